import test from 'ava'
import {
  checkedByQemu,
  checkedClean,
  type Disk,
  fill,
  newDisk,
  readAll,
  readDisk,
  reopen,
  settle,
  source,
} from '../support/qcow2-disk.js'
import { entryText } from '../support/subclusters.js'

const kib = 1024
/** Subclusters of 2 KiB. */
const options = { size: 512 * kib, clusterSize: 64 * kib, extendedL2: true } as const
const backing = source(Uint8Array.from({ length: 300 * kib + 700 }, (_, at) => 1 + (at % 251)))

const written = (disk: Disk): number[] =>
  disk.backend.log.filter(({ kind }) => kind === 'write').map(({ length }) => length)

async function shown(over = backing): Promise<Uint8Array> {
  const bytes = new Uint8Array(options.size)
  await over.read(bytes.subarray(0, over.size), 0)
  return bytes
}

test('a write gives bytes to the subclusters that it touches, and takes from the backing file what is around it in these', async (t) => {
  const disk = await newDisk(options, { backing })
  await disk.image.write(fill(1000, 0xee), 3 * kib)
  t.deepEqual(written(disk), [2 * kib])
  t.is(await entryText(disk, 0), 'own 2 0')
  const expected = await shown()
  expected.fill(0xee, 3 * kib, 3 * kib + 1000)
  t.deepEqual(await readAll(disk), expected)
  await checkedByQemu(t, disk)
})

test('a write over several clusters copies at its ends, and goes to the host in one piece', async (t) => {
  const disk = await newDisk(options, { backing })
  await disk.image.write(fill(100 * kib, 0xee), 61 * kib)
  t.deepEqual(written(disk), [102 * kib])
  t.deepEqual(
    [await entryText(disk, 0), await entryText(disk, 1), await entryText(disk, 2)],
    ['own c0000000 0', 'own ffffffff 0', 'own 1ffff 0'],
  )
  const expected = await shown()
  expected.fill(0xee, 61 * kib, 161 * kib)
  t.deepEqual(await readAll(disk), expected)
  await checkedByQemu(t, disk)
})

test('within a cluster that is there only what had no bytes is copied, and linked behind its data', async (t) => {
  const disk = await newDisk(options, { backing })
  await disk.image.write(fill(4 * kib, 1), 8 * kib)
  await disk.image.flush()
  disk.backend.log.length = 0
  // From one that is there into one that is not: nothing in front of it, the rest behind it.
  await disk.image.write(fill(2 * kib, 2), 11 * kib)
  t.deepEqual(written(disk), [3 * kib])
  t.is(await entryText(disk, 0), 'own 70 0')
  t.is(disk.backend.log.filter(({ kind }) => kind === 'enqueue').length, 1, 'the entry, and no count')
  const order = disk.backend.log
    .map(({ kind }) => kind)
    .filter((kind) => kind === 'write' || kind === 'enqueue')
  t.deepEqual(order, ['write', 'enqueue'])
  const expected = await shown()
  expected.fill(1, 8 * kib, 12 * kib)
  expected.fill(2, 11 * kib, 13 * kib)
  t.deepEqual(await readAll(disk), expected)
  await checkedByQemu(t, disk)
})

test('what is there is written in place, without a change of metadata', async (t) => {
  const disk = await newDisk(options, { backing })
  await disk.image.write(fill(130 * kib, 1), 0)
  await disk.image.flush()
  disk.backend.log.length = 0
  await disk.image.write(fill(100 * kib, 2), 1000)
  t.deepEqual(
    disk.backend.log.map(({ kind, length }) => [kind, length]),
    [['write', 100 * kib]],
  )
  await disk.image.write(fill(10, 3), 131 * kib)
  t.is(await entryText(disk, 2), 'own 3 0')
  await checkedByQemu(t, disk)
})

test('in a cluster that has held something before, zeros are written around a write in its subcluster', async (t) => {
  const disk = await newDisk(options)
  await disk.image.write(fill(64 * kib, 9), 0)
  await disk.image.writeZeroes(0, 64 * kib, { unmap: false })
  t.is(await entryText(disk, 0), 'own 0 ffffffff')
  await disk.image.write(fill(10, 1), 5 * kib)
  t.is(await entryText(disk, 0), 'own 4 fffffffb')
  const expected = new Uint8Array(options.size)
  expected.fill(1, 5 * kib, 5 * kib + 10)
  t.deepEqual(await readAll(disk), expected)
  await checkedByQemu(t, disk)
})

test('where the backing file ends within the subcluster, zeros follow', async (t) => {
  const disk = await newDisk(options, { backing })
  await disk.image.write(fill(10, 0xee), 300 * kib + 100)
  const expected = await shown()
  expected.fill(0xee, 300 * kib + 100, 300 * kib + 110)
  t.deepEqual(await readAll(disk), expected)
  await checkedByQemu(t, disk)
})

test('of a cluster that a snapshot shares, what is there is copied, and what is not stays so', async (t) => {
  const disk = await newDisk(options, { backing })
  await disk.image.write(fill(6 * kib, 1), 0)
  await disk.image.write(fill(2 * kib, 2), 20 * kib)
  await disk.image.writeZeroes(30 * kib, 4 * kib, { unmap: false })
  await disk.image.snapshots.creating('s', {})()
  t.is(await entryText(disk, 0), 'shared 407 18000')
  disk.backend.log.length = 0
  await disk.image.write(fill(3 * kib, 3), 5 * kib)
  t.is(await entryText(disk, 0), 'own 40f 18000')
  const data = disk.backend.log.filter(({ kind, length }) => kind === 'write' && length !== 64 * kib)
  t.deepEqual(data.map(({ length }) => length).sort(), [2 * kib, 8 * kib])
  const expected = await shown()
  expected.fill(1, 0, 5 * kib)
  expected.fill(3, 5 * kib, 8 * kib)
  expected.fill(2, 20 * kib, 22 * kib)
  expected.fill(0, 30 * kib, 34 * kib)
  t.deepEqual(await readAll(disk), expected)
  await disk.image.snapshots.applying('s', {})()
  expected.set((await shown()).subarray(6 * kib, 8 * kib), 6 * kib)
  expected.fill(1, 0, 6 * kib)
  t.deepEqual(await readAll(disk), expected)
  await checkedByQemu(t, disk)
})

test('a compressed cluster is written anew as a whole, and another takes the place of any', async (t) => {
  const disk = await newDisk(options, { backing })
  await disk.image.writeCompressed(fill(64 * kib, 5), 0)
  t.is(await entryText(disk, 0), 'compressed ffffffff 0')
  await disk.image.write(fill(10, 6), 7 * kib)
  t.is(await entryText(disk, 0), 'own ffffffff 0')
  await disk.image.write(fill(10, 7), 64 * kib)
  await disk.image.writeCompressed(fill(64 * kib, 8), 64 * kib)
  const expected = await shown()
  expected.fill(5, 0, 64 * kib)
  expected.fill(6, 7 * kib, 7 * kib + 10)
  expected.fill(8, 64 * kib, 128 * kib)
  t.deepEqual(await readAll(disk), expected)
  await reopen(disk)
  t.is(await entryText(disk, 1), 'compressed ffffffff 0')
  await checkedByQemu(t, disk)
})

test('writes to different subclusters of one cluster at the same time all stay', async (t) => {
  const disk = await newDisk(options, { backing })
  const expected = await shown()
  const writes = Array.from({ length: 32 }, (_, index) => {
    expected.fill(index + 1, index * 2 * kib + 300, index * 2 * kib + 900)
    return disk.image.write(fill(600, index + 1), index * 2 * kib + 300)
  })
  await Promise.all(writes)
  t.is(await entryText(disk, 0), 'own ffffffff 0')
  t.deepEqual(await readAll(disk), expected)
  await checkedByQemu(t, disk)
})

test('a discard waits for a write that gives bytes to a subcluster of the cluster', async (t) => {
  const disk = await newDisk(options)
  await disk.image.write(fill(2 * kib, 1), 0)
  await disk.image.flush()
  const held = disk.backend.hold(({ kind }) => kind === 'write')
  const writing = disk.image.write(fill(2 * kib, 2), 8 * kib)
  await settle()
  const discarding = disk.image.discard(0, 64 * kib)
  await settle()
  t.is(await entryText(disk, 0), 'own 1 0')
  held.release()
  await Promise.all([writing, discarding])
  t.is(await entryText(disk, 0), 'unallocated 0 ffffffff')
  t.deepEqual(await readDisk(disk, 0, 64 * kib), fill(64 * kib, 0))
  await checkedByQemu(t, disk)
})

test('a write that fails links nothing, and what was allocated for it is given back', async (t) => {
  for (const isThere of [false, true]) {
    const disk = await newDisk(options, { backing })
    if (isThere) await disk.image.write(fill(10, 1), 0)
    await disk.image.flush()
    const before = await readAll(disk)
    disk.backend.fail(({ kind }) => kind === 'write', new Error('no'))
    await t.throwsAsync(disk.image.write(fill(10, 2), 40 * kib), { message: /no/ })
    t.is(await entryText(disk, 0), isThere ? 'own 1 0' : 'unallocated 0 0')
    t.deepEqual(await readAll(disk), before)
    await checkedClean(t, disk)
  }
})
