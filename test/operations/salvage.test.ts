import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Qcow2Error } from '../../lib/base/errors.js'
import { convertImage, type ErrorCode } from '../../lib/index.js'
import { Losses, type ReadableDisk, SalvagedDisk } from '../../lib/operations/salvage.js'
import { type Places, placesOf } from '../support/image-bytes.js'
import { qemuImg, qemuIo } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

const kib = 1024
const size = 1024 * kib
const cluster = 64 * kib

/** Six clusters of 64 KiB with bytes 1 to 6, then nothing. */
async function sixClusters(t: ExecutionContext): Promise<{ folder: string; sound: string }> {
  const folder = await makeFolder(t)
  const sound = join(folder, 'sound.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', sound, String(size))
  await qemuIo(
    sound,
    [1, 2, 3, 4, 5, 6].map((byte) => `write -P ${byte} ${(byte - 1) * cluster} ${cluster}`),
  )
  return { folder, sound }
}

type Damage = (image: Buffer, places: Places) => void

async function damagedCopy(source: string, copy: string, damage: Damage): Promise<string> {
  const image = await readFile(source)
  damage(image, placesOf(image))
  await writeFile(copy, image)
  return copy
}

const entryOf = (index: number, value: bigint): Damage => {
  return (image, { l2 }) => image.writeBigUInt64BE(value, l2[index])
}
const unaligned = 0x8000_0000_0007_0200n
const behindTheEnd = 0x8000_0001_0000_0000n

async function byStock(source: string, ...options: string[]): Promise<Buffer> {
  const copy = `${source}.stock`
  await qemuImg('convert', '--salvage', '-f', 'qcow2', '-O', 'raw', ...options, source, copy)
  return readFile(copy)
}

const damages: readonly (readonly [string, Damage, readonly [number, number][]])[] = [
  ['an L2 entry that is not aligned', entryOf(2, unaligned), [[2 * cluster, cluster]]],
  ['an L2 entry that points behind the end', entryOf(5, behindTheEnd), [[5 * cluster, cluster]]],
  [
    'the first entries of a table',
    (image, places) => {
      for (const index of [0, 1, 3]) entryOf(index, unaligned)(image, places)
    },
    [
      [0, 2 * cluster],
      [3 * cluster, cluster],
    ],
  ],
  [
    'an L1 entry, all that it covers',
    (image, { l1 }) => image.writeBigUInt64BE(0x8000_0000_0004_0200n, l1[0]),
    [[0, size]],
  ],
]

for (const [name, damage, lost] of damages) {
  test(`what is damaged becomes zeros, the rest is copied: ${name}`, async (t) => {
    const { folder, sound } = await sixClusters(t)
    const source = await damagedCopy(sound, join(folder, 'damaged.qcow2'), damage)
    const target = join(folder, 'target.raw')
    await t.throwsAsync(convertImage(source, target, { format: 'raw' }), { code: 'ERR_CORRUPT' })
    const converted = await convertImage(source, target, { format: 'raw', salvage: true })
    t.deepEqual(
      converted.lost?.map(({ offset, length }) => [offset, length] as [number, number]),
      [...lost],
    )
    t.is(
      converted.bytesLost,
      lost.reduce((sum, [, length]) => sum + length, 0),
    )
    t.true((await readFile(target)).equals(await byStock(source)))
  })
}

test('a compressed cluster that does not inflate is lost alone', async (t) => {
  const { folder, sound } = await sixClusters(t)
  const compressed = join(folder, 'compressed.qcow2')
  await qemuImg('convert', '-c', '-O', 'qcow2', sound, compressed)
  const source = await damagedCopy(compressed, join(folder, 'damaged.qcow2'), (image, { l2 }) => {
    const at = Number(image.readBigUInt64BE(l2[2]) & ((1n << 54n) - 1n))
    image.fill(0xff, at, at + 20)
  })
  const target = join(folder, 'target.raw')
  const { lost } = await convertImage(source, target, { format: 'raw', salvage: true })
  t.like(lost, [
    { offset: 2 * cluster, length: cluster, reason: 'A compressed cluster cannot be decompressed' },
  ])
  t.true((await readFile(target)).equals(await byStock(source)))
})

test('a cluster that is lost in a backing file with small clusters takes none of its neighbours along', async (t) => {
  const folder = await makeFolder(t)
  const sound = join(folder, 'sound.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', sound, String(size))
  await qemuIo(sound, [`write -P 9 0 ${size}`])
  await damagedCopy(sound, join(folder, 'base.qcow2'), entryOf(7, unaligned))
  const top = join(folder, 'top.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', top)
  const target = join(folder, 'target.raw')
  const { lost } = await convertImage(top, target, { format: 'raw', salvage: true })
  t.deepEqual(
    lost?.map(({ offset, length }) => [offset, length]),
    [[28 * kib, 4 * kib]],
  )
  t.true((await readFile(target)).equals(await byStock(top)))
})

test('over a backing file of the target, what is lost is zeros, and not what stands there', async (t) => {
  const { folder, sound } = await sixClusters(t)
  const source = await damagedCopy(sound, join(folder, 'damaged.qcow2'), entryOf(2, unaligned))
  const target = join(folder, 'target.qcow2')
  const backingFile = { backingFile: 'sound.qcow2', backingFormat: 'qcow2' } as const
  await convertImage(source, target, { format: 'qcow2', salvage: true, ...backingFile })
  t.true((await byStock(target)).equals(await byStock(source)))
})

test('of a file that was cut short within its tables, what is left is copied', async (t) => {
  const folder = await makeFolder(t)
  const sound = join(folder, 'sound.qcow2')
  // A table maps 2 MiB. The second one stands behind the clusters of the first, and its own behind it: of ten entries that are left, the clusters are lost.
  const disk = 4 * size
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', sound, String(disk))
  await qemuIo(sound, [`write -P 1 0 ${2 * size}`, `write -P 2 ${2 * size} 40k`, `write -P 3 ${3 * size} 4k`])
  await qemuImg('snapshot', '-c', 'then', sound)
  const image = await readFile(sound)
  const [second = 0] = placesOf(image).l2.slice(512)
  for (const [left, lost] of [
    [
      20 * 8,
      [
        [2 * size, 40 * kib],
        [2 * size + 80 * kib, 2 * size - 80 * kib],
      ],
    ],
    [0, [[2 * size, 2 * size]]],
  ] as const) {
    const source = join(folder, 'short.qcow2')
    await writeFile(source, image.subarray(0, second + left))
    const target = join(folder, 'target.raw')
    const options = { format: 'raw', overwrite: true } as const
    await t.throwsAsync(convertImage(source, target, options), { code: 'ERR_CORRUPT' })
    const converted = await convertImage(source, target, { ...options, salvage: true })
    t.deepEqual(
      converted.lost?.map(({ offset, length }) => [offset, length]),
      lost,
    )
    const expected = Buffer.alloc(disk).fill(1, 0, 2 * size)
    t.true((await readFile(target)).equals(expected))
  }
})

test('of several sources, places are told as they are in the copy', async (t) => {
  const { folder, sound } = await sixClusters(t)
  const source = await damagedCopy(sound, join(folder, 'damaged.qcow2'), entryOf(2, unaligned))
  const target = join(folder, 'target.raw')
  const { lost } = await convertImage([sound, source], target, { format: 'raw', salvage: true })
  t.deepEqual(
    lost?.map(({ offset, length }) => [offset, length]),
    [[size + 2 * cluster, cluster]],
  )
})

test('damage below the target is no damage of the source, and ends the conversion as it does with the stock tool', async (t) => {
  const { folder, sound } = await sixClusters(t)
  await damagedCopy(sound, join(folder, 'base.qcow2'), entryOf(2, unaligned))
  const options = {
    format: 'qcow2',
    backingFile: 'base.qcow2',
    backingFormat: 'qcow2',
    salvage: true,
  } as const
  const other = join(folder, 'other.raw')
  await writeFile(other, Buffer.alloc(size, 8))
  const target = join(folder, 'target.qcow2')
  await t.throwsAsync(convertImage(other, target, options), { code: 'ERR_CORRUPT', message: /base\.qcow2/ })
})

test('a sound source loses nothing, and without the option nothing is told', async (t) => {
  const { folder, sound } = await sixClusters(t)
  const target = join(folder, 'target.raw')
  const options = { format: 'raw', overwrite: true } as const
  t.like(await convertImage(sound, target, { ...options, salvage: true }), { bytesLost: 0, lost: [] })
  t.false('lost' in (await convertImage(sound, target, options)))
})

/** A raw disk of bytes 7 of which some sectors cannot be read. @param failed  told of every request that fails */
function failingDisk(length: number, sectors: readonly number[], code: ErrorCode = 'ERR_IO'): ReadableDisk {
  return {
    size: length,
    readInto: (bytes, offset) => {
      const end = offset + bytes.length
      bytes.fill(7)
      return sectors.some((sector) => sector * 512 < end && offset < sector * 512 + 512)
        ? Promise.reject(new Qcow2Error(code, 'EIO: i/o error, read'))
        : Promise.resolve()
    },
    extents: () => {
      throw new Error('not asked for')
    },
  }
}

test('of what the host cannot read, only the sectors are lost, as with the stock tool', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'source.raw')
  const length = 2 * size + 512
  await writeFile(path, Buffer.alloc(length, 7))
  const sectors = [0, 300, 301, 2047, 4096]
  const failures = sectors.map((sector) => ({ event: 'none', errno: 5, sector }))
  const image = { driver: 'file', filename: path }
  const name = `json:${JSON.stringify({ driver: 'raw', file: { driver: 'blkdebug', image, 'inject-error': failures } })}`
  const copy = join(folder, 'stock.raw')
  await qemuImg('convert', '--salvage', '-O', 'raw', name, copy)
  const losses = new Losses()
  const bytes = Buffer.alloc(length, 1)
  await new SalvagedDisk(failingDisk(length, sectors), 0, 512, losses).readInto(bytes, 0)
  t.true(bytes.equals(await readFile(copy)))
  t.deepEqual(
    losses.runs.map(({ offset, length }) => [offset / 512, length / 512]),
    [
      [0, 1],
      [300, 2],
      [2047, 1],
      [4096, 1],
    ],
  )
  t.is(losses.bytes, 5 * 512)
})

for (const code of ['ERR_CLOSED', 'ERR_OUT_OF_MEMORY', 'ERR_UNSUPPORTED_FEATURE'] as const) {
  test(`${code} is no damage, and is thrown`, async (t) => {
    const losses = new Losses()
    const disk = new SalvagedDisk(failingDisk(size, [3], code), 0, 512, losses)
    await t.throwsAsync(disk.readInto(new Uint8Array(size), 0), { code })
    t.is(losses.bytes, 0)
  })
}

test('tables that cannot be read are gone past, whatever comes behind is found, and each place is told once', async (t) => {
  const unit = 4096
  const bad = [5, 6, 100]
  const asked: number[] = []
  const disk: ReadableDisk = {
    ...failingDisk(256 * unit, []),
    async *extents({ offset = 0, length = 0 } = {}) {
      asked.push(length)
      const found = { allocated: true, data: true, compressed: false, depth: 0 }
      for (let position = offset; position < offset + length; position += unit) {
        if (bad.includes(position / unit)) throw new Qcow2Error('ERR_CORRUPT', 'Image is corrupt')
        yield await Promise.resolve({ ...found, offset: position, length: unit, zero: true })
      }
    },
  }
  let end = 0
  const data: number[] = []
  for await (const { offset, length, zero } of new SalvagedDisk(disk, 0, unit, new Losses()).extents()) {
    t.is(offset, end)
    end += length
    if (!zero) data.push(offset / unit)
  }
  t.is(end, disk.size)
  t.deepEqual(data, bad)
  t.true(asked.length < 40, `asked ${asked.length} times`)
})

test('of very many runs the first are remembered, and all bytes counted', (t) => {
  const losses = new Losses()
  for (let run = 0; run < 10_005; run++) losses.add({ offset: run * 1024, length: 512, reason: '' })
  t.is(losses.runs.length, 10_000)
  t.is(losses.bytes, 10_005 * 512)
})
