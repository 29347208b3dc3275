import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { convertImage, createImage, measureImage, type MeasureOptions } from '../../lib/index.js'
import { qemuImg, qemuIo } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

/** Shapes of the target: ours, and the same in the stock tool's words. */
const shapes: [MeasureOptions, string][] = [
  [{}, 'compat=1.1'],
  [{ clusterSize: 512 }, 'cluster_size=512'],
  [{ clusterSize: 4096, refcountBits: 64 }, 'cluster_size=4096,refcount_bits=64'],
  [{ clusterSize: 2 ** 21, refcountBits: 1 }, 'cluster_size=2M,refcount_bits=1'],
  [{ compat: '0.10', clusterSize: 32768 }, 'compat=0.10,cluster_size=32768'],
  [{ preallocation: 'metadata' }, 'preallocation=metadata'],
  [{ preallocation: 'falloc', clusterSize: 8192 }, 'preallocation=falloc,cluster_size=8192'],
  [{ preallocation: 'full', refcountBits: 32 }, 'preallocation=full,refcount_bits=32'],
  [{ backingFile: 'base.qcow2' }, 'backing_file=base.qcow2'],
  [{ extendedL2: true, clusterSize: 16384 }, 'extended_l2=on,cluster_size=16384'],
  [
    { extendedL2: true, clusterSize: 2 ** 20, refcountBits: 2 },
    'extended_l2=on,cluster_size=1M,refcount_bits=2',
  ],
]

type StockSizes = { required: number; 'fully-allocated': number; bitmaps?: number }

async function byQemu(options: string, ...source: string[]): Promise<object> {
  const text = await qemuImg('measure', '--output=json', '-O', 'qcow2', '-o', options, ...source)
  const { required, bitmaps, ...rest } = JSON.parse(text) as StockSizes
  return { required, fullyAllocated: rest['fully-allocated'], ...(bitmaps === undefined ? {} : { bitmaps }) }
}

// 8 GiB with clusters of 512 bytes are 131072 L2 tables; a refcount table of many clusters and one that just does not fit one
const sizes = [0, 1, 65536, 65537, 2 ** 20 + 513, 2 ** 29, 2 ** 29 + 512, 2 ** 33, 137 * 2 ** 30 + 4096]

for (const [shape, options] of shapes) {
  test(`an empty disk of any size takes what qemu-img says: ${options}`, async (t) => {
    for (const size of sizes) {
      // The stock tool takes the size as whole sectors.
      const expected = await byQemu(options, '--size', String(size)).catch((error: unknown) => error)
      if (expected instanceof Error) {
        t.regex(expected.message, /too large/)
        await t.throwsAsync(measureImage({ size }, shape), { code: 'ERR_OUT_OF_RANGE', message: /too large/ })
      } else t.deepEqual(await measureImage({ size }, shape), expected, `${size} bytes`)
    }
  })
}

/** Images of all sorts, with data of odd places and sizes. */
async function makeSources(t: ExecutionContext): Promise<{ folder: string; names: string[] }> {
  const folder = await makeFolder(t)
  const at = (name: string): string => join(folder, name)
  const make = (...words: string[]): Promise<string> =>
    qemuImg('create', '-q', ...words.slice(0, -2), at(words.at(-2) ?? ''), words.at(-1) ?? '')
  const data = [
    'write -P 1 3k 1k',
    'write -P 2 9k 512',
    'write -P 3 1M 300k',
    'write -P 4 40M 64k',
    'write -P 5 41926144 512',
  ]
  await make('-f', 'raw', 'holes.raw', '64M')
  await qemuIo(at('holes.raw'), data, ['-f', 'raw'])
  await make('-f', 'qcow2', '-o', 'cluster_size=4k', 'small.qcow2', '64M')
  await qemuIo(at('small.qcow2'), [...data, 'write -z 2M 1M', 'write -z 1M 8k', 'discard 40M 4k'])
  await make('-f', 'qcow2', '-o', 'cluster_size=1M,compat=0.10', 'old.qcow2', '67109376')
  await qemuIo(at('old.qcow2'), data)
  await make('-f', 'qcow2', '-b', at('small.qcow2'), '-F', 'qcow2', 'overlay.qcow2', '80M')
  await qemuIo(at('overlay.qcow2'), ['write -P 6 5k 512', 'write -z 40M 64k', 'write -P 7 70M 1M'])
  await make('-f', 'qcow2', '-o', 'preallocation=metadata', 'preallocated.qcow2', '8M')
  await qemuImg('convert', '-c', '-O', 'qcow2', at('holes.raw'), at('compressed.qcow2'))
  await make('-f', 'qcow2', 'bitmaps.qcow2', '3G')
  await qemuImg('bitmap', '--add', at('bitmaps.qcow2'), 'one')
  await qemuImg('bitmap', '--add', '--disable', '-g', '4k', at('bitmaps.qcow2'), 'two, of a longer name')
  await make('-f', 'qcow2', 'nothing.qcow2', '0')
  const names = ['holes.raw', 'small.qcow2', 'old.qcow2', 'overlay.qcow2', 'preallocated.qcow2']
  return { folder, names: [...names, 'compressed.qcow2', 'bitmaps.qcow2', 'nothing.qcow2'] }
}

test('a source takes what qemu-img says, whatever it holds and whatever is made of it', async (t) => {
  t.timeout(300_000)
  const { folder, names } = await makeSources(t)
  for (const name of names) {
    const path = join(folder, name)
    const format = name.endsWith('raw') ? 'raw' : 'qcow2'
    for (const [shape, options] of shapes) {
      const ours = await measureImage(path, { ...shape, sourceFormat: format })
      t.deepEqual(ours, await byQemu(options, '-f', format, path), `${name}: ${options}`)
    }
    const { required, fullyAllocated } = await measureImage(path, { format: 'raw', sourceFormat: format })
    const stock = JSON.parse(await qemuImg('measure', '--output=json', '-f', format, path)) as StockSizes
    t.deepEqual({ required, 'fully-allocated': fullyAllocated }, stock, name)
  }
})

test('an image that is then made is no larger', async (t) => {
  const { folder } = await makeSources(t)
  for (const clusterSize of [4096, 65536]) {
    const target = join(folder, 'target.qcow2')
    const { required, fullyAllocated } = await measureImage(join(folder, 'small.qcow2'), { clusterSize })
    await convertImage(join(folder, 'small.qcow2'), target, { format: 'qcow2', clusterSize, overwrite: true })
    t.true((await stat(target)).size <= required)
    await createImage(target, { size: 2 ** 26, clusterSize, preallocation: 'full', overwrite: true })
    const { size } = await stat(target)
    t.true(size <= fullyAllocated && size > fullyAllocated - 2 * clusterSize, `${size} of ${fullyAllocated}`)
  }
})

test('what no image can be is refused', async (t) => {
  const misuse: [unknown, MeasureOptions, object][] = [
    [{ size: 2 ** 52 }, {}, { code: 'ERR_OUT_OF_RANGE' }],
    [{ size: Number.MAX_SAFE_INTEGER }, { clusterSize: 2 ** 21 }, { code: 'ERR_OUT_OF_RANGE' }],
    [{ size: -1 }, {}, { code: 'ERR_OUT_OF_RANGE' }],
    [{}, {}, { message: /size/ }],
    [{ size: 1, sise: 1 }, {}, { code: 'ERR_INVALID_OPTION' }],
    [7, {}, { instanceOf: TypeError }],
    [{ size: 1 }, { extendedL2: true, clusterSize: 4096 }, { code: 'ERR_INVALID_OPTION' }],
    [{ size: 1 }, { compat: '0.10', refcountBits: 8 }, { code: 'ERR_INVALID_OPTION' }],
    ['missing', {}, { code: 'ERR_NOT_FOUND' }],
  ]
  for (const [source, options, expected] of misuse) {
    await t.throwsAsync(measureImage(source as string, options), expected)
  }
})
