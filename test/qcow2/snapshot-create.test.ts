import test from 'ava'
import { alignUp } from '../../lib/base/integers.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import {
  checkedByQemu,
  checkedClean,
  fill,
  newDisk,
  openDisk,
  readAll,
  readDisk,
} from '../support/qcow2-disk.js'

test('what is written afterwards goes elsewhere: the snapshot keeps what was frozen', async (t) => {
  for (const clusterSize of [512, 65536]) {
    const disk = await newDisk({ size: 2 ** 20, clusterSize })
    await disk.image.write(fill(100_000, 1), 0)
    const created = await disk.image.snapshots.creating('one', {})()
    t.deepEqual([created.id, created.name, created.diskSize], ['1', 'one', 2n ** 20n])
    await disk.image.write(fill(50_000, 2), 1000)
    await disk.image.discard(0, 2 ** 20)
    await disk.image.snapshots.applying('one', {})()
    const expected = new Uint8Array(2 ** 20)
    expected.fill(1, 0, 100_000)
    t.deepEqual(await readAll(disk), expected)
    await checkedByQemu(t, disk)
  }
})

test('an empty disk, and a disk of no bytes, can be frozen', async (t) => {
  for (const size of [0, 512]) {
    const disk = await newDisk({ size, clusterSize: 512 })
    await disk.image.snapshots.creating('', {})()
    await disk.image.snapshots.creating('', {})()
    t.deepEqual(
      (await disk.image.snapshots.list()).map(({ id, name }) => [id, name]),
      [
        ['1', ''],
        ['2', ''],
      ],
    )
    await checkedByQemu(t, disk)
  }
})

test('given up at any step it leaves the image as it was, without leaks', async (t) => {
  let isOver = false
  for (let last = 1; !isOver; last++) {
    const disk = await newDisk({ size: 2 ** 20, clusterSize: 512 })
    await disk.image.write(fill(200 * 512, 1), 0)
    const controller = new AbortController()
    let steps = 0
    const creating = disk.image.snapshots.creating('one', {
      signal: controller.signal,
      onProgress: () => {
        if (++steps === last) controller.abort(new Error('enough'))
      },
    })
    const error = await creating().then(
      () => undefined,
      (reason: unknown) => reason as Error,
    )
    isOver = error === undefined
    if (!isOver) t.is(error?.message, 'enough')
    t.is((await disk.image.snapshots.list()).length, isOver ? 1 : 0)
    t.deepEqual(await readDisk(disk, 0, 512), fill(512, 1))
    await checkedClean(t, disk)
    t.true(last < 100)
  }
})

test('with 65536 there is no room for another one, and nothing is written', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 65536 })
  await disk.image.close()
  const bytes = disk.memory.snapshot()
  const at = alignUp(bytes.length, 65536)
  // Entries without an L1 table, an id or a name.
  const full = Buffer.alloc(at + 65536 * 64)
  full.set(bytes)
  full.writeUInt32BE(65536, 60)
  full.writeBigUInt64BE(BigInt(at), 64)
  for (let entry = at; entry < full.length; entry += 64) full.writeUInt32BE(24, entry + 36)
  const many = await openDisk(SparseBytes.from(full))
  const creating = many.image.snapshots.creating('one more', {})()
  await t.throwsAsync(creating, { code: 'ERR_NOT_SUPPORTED', message: /largest size/ })
  t.is(many.image.stats().dataWrites, 0)
  t.is(many.image.stats().nodesQueued, 0)
  await many.image.close()
})

test('it costs few syncs, however much there is', async (t) => {
  const disk = await newDisk({ size: 2 ** 22, clusterSize: 512 })
  await disk.image.write(fill(2 ** 21, 1), 0)
  await disk.image.flush()
  const before = disk.image.stats().syncsIssued
  await disk.image.snapshots.creating('one', {})()
  t.true(disk.image.stats().syncsIssued - before <= 3, `${disk.image.stats().syncsIssued - before} syncs`)
  await checkedClean(t, disk)
})
