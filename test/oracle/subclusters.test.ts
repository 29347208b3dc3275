import { copyFile, open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { checkImage, createImage, imageInfo, openImage, Qcow2Error } from '../../lib/index.js'
import { qemuCheck, qemuImg, qemuIo, qemuRead } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

const kib = 1024
const size = 400 * kib + 512

/** By guest cluster: the bitmap of its extended L2 entry, and whether there is a cluster. One L2 table; what cluster it is may differ. */
function bitmaps(file: Buffer): Record<number, string> {
  const table = Number(file.readBigUInt64BE(Number(file.readBigUInt64BE(40))) & 0x00ff_ffff_ffff_fe00n)
  const found: Record<number, string> = {}
  for (let index = 0; index < 64 && table !== 0; index++) {
    const at = table + 16 * index
    const [descriptor, bitmap] = [file.readBigUInt64BE(at), file.readBigUInt64BE(at + 8)]
    const kind = ((descriptor >> 62n) & 1n) === 1n ? 'compressed' : descriptor === 0n ? 'none' : 'there'
    if (descriptor !== 0n || bitmap !== 0n) found[index] = `${kind} ${bitmap.toString(16).padStart(16, '0')}`
  }
  return found
}

type Step = readonly [
  kind: 'write' | 'compress' | 'zero' | 'unmap' | 'discard',
  offset: number,
  length: number,
]

function commandOf([kind, offset, length]: Step, pattern: number): string {
  const flags = {
    write: `write -P ${pattern}`,
    compress: `write -c -P ${pattern}`,
    zero: 'write -z',
    unmap: 'write -z -u',
    discard: 'discard',
  }
  return `${flags[kind].replace(/^\w+/, '$& -q')} ${offset} ${length}`
}

async function perform(path: string, steps: readonly Step[]): Promise<void> {
  const image = await openImage(path)
  try {
    for (const [index, [kind, offset, length]] of steps.entries()) {
      const bytes = new Uint8Array(length).fill(index + 1)
      if (kind === 'write') await image.write(bytes, offset)
      else if (kind === 'compress') await image.writeCompressed(bytes, offset)
      else if (kind === 'discard') await image.discard({ offset, length })
      else await image.writeZeroes({ offset, length, unmap: kind === 'unmap' })
    }
  } finally {
    await image.close()
  }
}

/** Do the same by both, on images of each other's making. */
async function alike(t: ExecutionContext, steps: readonly Step[], over: boolean): Promise<void> {
  const folder = await makeFolder(t, { fast: true })
  const [ours, theirs] = [join(folder, 'ours.qcow2'), join(folder, 'theirs.qcow2')]
  const backing = over ? ['-b', 'base.raw', '-F', 'raw'] : []
  if (over) {
    await qemuImg('create', '-q', '-f', 'raw', join(folder, 'base.raw'), '250k')
    await qemuIo(join(folder, 'base.raw'), ['write -q -P 200 0 250k'], ['-f', 'raw'])
  }
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'extended_l2=on', ...backing, ours, String(size))
  await createImage(theirs, {
    size,
    extendedL2: true,
    ...(over ? { backingFile: 'base.raw', backingFormat: 'raw' } : {}),
  })
  await perform(ours, steps)
  await qemuIo(
    theirs,
    steps.map((step, index) => commandOf(step, index + 1)),
    ['-f', 'qcow2', '-d', 'unmap'],
  )
  t.deepEqual(bitmaps(await readFile(ours)), bitmaps(await readFile(theirs)), JSON.stringify(steps))
  t.deepEqual(await qemuRead(ours), await qemuRead(theirs))
  t.is(await qemuCheck(ours), '')
  const image = await openImage(theirs, { readOnly: true })
  t.deepEqual(Buffer.from(await image.read({ offset: 0, length: size })), await qemuRead(ours))
  await image.close()
}

const sequences: Record<string, readonly Step[]> = {
  'writes of parts of subclusters, clusters and several clusters': [
    ['write', 3 * kib, kib],
    ['write', 61 * kib, 100 * kib],
    ['write', 4 * kib, 512],
    ['write', size - 512, 512],
  ],
  'zeros over all kinds': [
    ['write', 3 * kib, kib],
    ['write', 61 * kib, 100 * kib],
    ['zero', 61 * kib, 6 * kib],
    ['unmap', 130 * kib, 100 * kib],
    ['write', 62 * kib, 512],
    ['zero', 2 * kib, 4 * kib],
    ['unmap', 64 * kib, 64 * kib],
  ],
  discards: [
    ['write', 0, 200 * kib],
    ['discard', 2 * kib, 60 * kib],
    ['discard', 64 * kib, 64 * kib],
    ['discard', 120 * kib, 80 * kib],
    ['write', 64 * kib, 3 * kib],
  ],
  'compressed clusters, and what is done to them': [
    ['compress', 0, 64 * kib],
    ['compress', 64 * kib, 64 * kib],
    ['compress', 128 * kib, 64 * kib],
    ['write', 70 * kib, 512],
    ['discard', 128 * kib, 64 * kib],
  ],
}

for (const [name, steps] of Object.entries(sequences)) {
  for (const over of [false, true]) {
    // Of zeros where nothing is hidden the stock tool makes marks that nobody needs.
    if (!over && name.startsWith('zeros')) continue
    test(`${name} leave the bitmaps that qemu-io leaves${over ? ', over a backing file' : ''}`, (t) =>
      alike(t, steps, over))
  }
}

test('a preallocated image with extended L2 entries has clusters, and nothing in them yet, as one of qemu-img', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  await qemuImg('create', '-q', '-f', 'raw', join(folder, 'base.raw'), '250k')
  await qemuIo(join(folder, 'base.raw'), ['write -q -P 200 0 250k'], ['-f', 'raw'])
  for (const preallocation of ['metadata', 'falloc', 'full'] as const) {
    for (const over of [false, true]) {
      const [ours, theirs] = [join(folder, 'ours.qcow2'), join(folder, 'theirs.qcow2')]
      const backing = over ? ['-b', 'base.raw', '-F', 'raw'] : []
      const options = `extended_l2=on,preallocation=${preallocation}`
      await qemuImg('create', '-q', '-f', 'qcow2', '-o', options, ...backing, theirs, String(size))
      await createImage(ours, {
        size,
        extendedL2: true,
        preallocation,
        overwrite: true,
        ...(over ? { backingFile: 'base.raw', backingFormat: 'raw' } : {}),
      })
      t.deepEqual(bitmaps(await readFile(ours)), bitmaps(await readFile(theirs)))
      t.deepEqual(await qemuRead(ours), await qemuRead(theirs))
      t.is(await qemuCheck(ours), '')
      const step: Step = ['write', 5 * kib, 100 * kib]
      for (const path of [ours, theirs]) await perform(path, [step])
      t.deepEqual(await qemuRead(ours), await qemuRead(theirs))
      t.is(await qemuCheck(theirs), '')
    }
  }
})

test('growing preallocates clusters with nothing in them, and shows zeros over a longer backing file', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  await qemuImg('create', '-q', '-f', 'raw', join(folder, 'base.raw'), '250k')
  await qemuIo(join(folder, 'base.raw'), ['write -q -P 200 0 250k'], ['-f', 'raw'])
  const path = join(folder, 'disk.qcow2')
  await qemuImg(
    'create',
    '-q',
    '-f',
    'qcow2',
    '-o',
    'extended_l2=on',
    '-b',
    'base.raw',
    '-F',
    'raw',
    path,
    '100k',
  )
  const image = await openImage(path)
  await image.resize(400 * kib, { preallocation: 'metadata' })
  await image.resize(70 * kib, { shrink: true })
  await image.resize(300 * kib)
  await image.close()
  const expected = Buffer.alloc(300 * kib)
  expected.fill(200, 0, 70 * kib)
  t.deepEqual(await qemuRead(path), expected)
  t.is(await qemuCheck(path), '')
})

/** Change the first L2 entry of a file. */
async function poke(path: string, change: (entry: Buffer) => void): Promise<void> {
  const file = await open(path, 'r+')
  const word = Buffer.alloc(8)
  await file.read(word, 0, 8, 40)
  await file.read(word, 0, 8, Number(word.readBigUInt64BE()))
  const at = Number(word.readBigUInt64BE() & 0x00ff_ffff_ffff_fe00n)
  const entry = Buffer.alloc(16)
  await file.read(entry, 0, 16, at)
  change(entry)
  await file.write(entry, 0, 16, at)
  await file.close()
}

/** Whether the stock tool reads a disk. */
async function isReadByQemu(path: string): Promise<boolean> {
  return await qemuRead(path).then(
    () => true,
    () => false,
  )
}

const oddities: readonly [what: string, compressed: boolean, change: (entry: Buffer) => void][] = [
  ['bit 0 of the first word', false, (entry) => entry.writeUInt8((entry[7] ?? 0) | 1, 7)],
  ['COPIED without a cluster', false, (entry) => entry.fill(0).writeUInt8(0x80, 0)],
  ['marks without a cluster', false, (entry) => entry.fill(0).writeUInt8(0x80, 8)],
  ['a bitmap beside a compressed cluster', true, (entry) => entry.writeUInt32BE(6, 12)],
  ['a subcluster in two states', false, (entry) => entry.writeUInt32BE(1, 8)],
  ['a subcluster elsewhere in two states', false, (entry) => entry.writeUInt32BE(0x80000000, 8)],
  ['an allocated subcluster without a cluster', false, (entry) => entry.fill(0, 0, 8)],
]

test('what is odd about an entry is read, or refused, and told of by check, as the stock tool does', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const path = join(folder, 'disk.qcow2')
  for (const [what, isCompressed, change] of oddities) {
    await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'extended_l2=on', path, String(size))
    const filling = isCompressed ? 'write -q -c -P 9 0 64k' : 'write -q -P 9 0 10k'
    await qemuIo(
      path,
      what.includes('elsewhere') ? ['write -q -P 9 0 10k', 'write -q -P 9 62k 2k'] : [filling],
    )
    await poke(path, change)
    const image = await openImage(path, { readOnly: true })
    const seen = await image.read({ offset: 0, length: size }).catch((error: unknown) => error)
    await image.close()
    if (await isReadByQemu(path)) t.deepEqual(Buffer.from(seen as Uint8Array), await qemuRead(path), what)
    else t.is(seen instanceof Qcow2Error ? seen.code : 'read', 'ERR_CORRUPT', what)
    const checked = join(folder, 'checked.qcow2')
    await copyFile(path, checked)
    const result = await checkImage(checked)
    t.is(
      'corruptions' in result && result.corruptions > 0,
      /^qemu-img check exits with 2/.test(await qemuCheck(path)),
      what,
    )
  }
})

test('a chain of standard and extended images, with snapshots, is read and written by both', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const [base, top] = [join(folder, 'base.qcow2'), join(folder, 'top.qcow2')]
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'extended_l2=on,cluster_size=16k', base, '150k')
  await qemuIo(base, ['write -q -P 1 1k 3k', 'write -q -P 2 40k 50k', 'write -q -z 44k 5k'])
  await createImage(top, {
    size: 300 * kib,
    extendedL2: true,
    clusterSize: 2 ** 21,
    backingFile: 'base.qcow2',
    backingFormat: 'qcow2',
  })
  t.true((await imageInfo(top)).qcow2?.extendedL2)
  const image = await openImage(top)
  await image.write(new Uint8Array(100).fill(3), 3 * kib)
  await image.snapshots.create('first')
  await image.write(new Uint8Array(60 * kib).fill(4), 70 * kib)
  await image.close()
  t.is(await qemuCheck(top), '')
  const before = await qemuRead(top)
  await qemuImg('snapshot', '-q', '-c', 'second', top)
  await qemuIo(top, ['write -q -P 5 0 290k'])
  await qemuImg('snapshot', '-q', '-a', 'second', top)
  const again = await openImage(top)
  t.deepEqual(Buffer.from(await again.read({ offset: 0, length: 300 * kib })), before)
  await again.snapshots.apply('first')
  await again.write(new Uint8Array(10).fill(6), 200 * kib)
  await again.snapshots.delete('first')
  await again.snapshots.delete('second')
  const shown = Buffer.from(await again.read({ offset: 0, length: 300 * kib }))
  await again.close()
  t.deepEqual(await qemuRead(top), shown)
  t.is(await qemuCheck(top), '')
})
