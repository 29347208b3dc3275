import test from 'ava'
import {
  checkedByQemu,
  checkedClean,
  fill,
  newDisk,
  openDisk,
  readAll,
  readDisk,
} from '../support/qcow2-disk.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'

test('the disk has its size and contents of then; what only the newer one had is free again', async (t) => {
  const disk = await newDisk({ size: 2 ** 18, clusterSize: 512 })
  await disk.image.write(fill(10_000, 1), 0)
  await disk.image.snapshots.creating('one', {})()
  await disk.image.resize(2 ** 22, { shrink: false })
  await disk.image.write(fill(2 ** 20, 2), 2 ** 21)
  await disk.image.flush()
  const { length } = disk.backend
  await disk.image.snapshots.applying('one', {})()
  t.is(disk.image.size, 2 ** 18)
  const expected = new Uint8Array(2 ** 18)
  expected.fill(1, 0, 10_000)
  t.deepEqual(await readAll(disk), expected)
  await disk.image.resize(2 ** 22, { shrink: false })
  t.true((await readDisk(disk, 2 ** 18, 2 ** 22 - 2 ** 18)).every((byte) => byte === 0))
  await disk.image.write(fill(2 ** 20, 3), 2 ** 21)
  t.true(disk.backend.length <= length + 4096, 'the clusters are used again')
  await checkedByQemu(t, disk)
})

test('flags in the tables of a snapshot that are out of date are not believed', async (t) => {
  const disk = await newDisk({ size: 2 ** 18, clusterSize: 512 })
  await disk.image.write(fill(20 * 512, 1), 0)
  await disk.image.snapshots.creating('one', {})()
  await disk.image.write(fill(20 * 512, 2), 0)
  await disk.image.close()
  // COPIED in all entries of the snapshot's L1 and L2 tables: a mix that a careless writer leaves behind.
  const bytes = disk.memory.snapshot()
  const view = new DataView(bytes.buffer)
  const l1 = Number(view.getBigUint64(Number(view.getBigUint64(64))))
  const l2 = Number(view.getBigUint64(l1) & 0x00ff_ffff_ffff_fe00n)
  for (const table of [l1, l2]) {
    for (let at = table; at < table + 512; at += 8)
      if (view.getBigUint64(at) !== 0n) bytes[at] = (bytes[at] as number) | 0x80
  }
  const again = await openDisk(SparseBytes.from(bytes))
  await again.image.snapshots.applying('one', {})()
  await again.image.write(fill(20 * 512, 3), 0)
  await again.image.snapshots.applying('one', {})()
  t.deepEqual(await readDisk(again, 0, 20 * 512), fill(20 * 512, 1))
  await checkedByQemu(t, again)
})

test('counts that have no room for a third reference are enough: what both disks share is not counted twice', async (t) => {
  const disk = await newDisk({ size: 2 ** 18, clusterSize: 512, refcountBits: 2 })
  await disk.image.write(fill(20 * 512, 1), 0)
  await disk.image.snapshots.creating('one', {})()
  await disk.image.snapshots.creating('two', {})()
  await disk.image.snapshots.applying('one', {})()
  t.deepEqual(await readDisk(disk, 0, 20 * 512), fill(20 * 512, 1))
  await checkedClean(t, disk)
})

test('in version 2 the disk keeps its size, and goes back', async (t) => {
  const disk = await newDisk({ size: 2 ** 18, clusterSize: 512, version: 2 })
  await disk.image.write(fill(5000, 1), 0)
  await disk.image.snapshots.creating('one', {})()
  await disk.image.write(fill(5000, 2), 0)
  await disk.image.snapshots.applying('1', {})()
  t.deepEqual(await readDisk(disk, 0, 5000), fill(5000, 1))
  await checkedByQemu(t, disk)
})
