import test from 'ava'
import { checkedByQemu, checkedClean, checkedSound, fill, newDisk, readDisk } from '../support/qcow2-disk.js'

test('what only the snapshot had is free again; what is left has one owner, and is written in place', async (t) => {
  for (const clusterSize of [512, 65536]) {
    const disk = await newDisk({ size: 2 ** 20, clusterSize })
    await disk.image.write(fill(2 ** 19, 1), 0)
    await disk.image.writeCompressed(fill(clusterSize, 9), 2 ** 19)
    await disk.image.snapshots.creating('one', {})()
    await disk.image.write(fill(2 ** 18, 2), 0)
    await disk.image.snapshots.deleting('one', {})()
    await disk.image.flush()
    const before = disk.image.stats()
    await disk.image.write(fill(2 ** 19, 3), 0)
    t.is(disk.image.stats().nodesQueued, before.nodesQueued, 'no mapping has changed')
    t.deepEqual(await readDisk(disk, 2 ** 19, clusterSize), fill(clusterSize, 9))
    t.deepEqual(await disk.image.snapshots.list(), [])
    await checkedByQemu(t, disk)
  }
})

test('of several the others stay, and share what they shared', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 4096 })
  for (const [value, name] of [
    [1, 'one'],
    [2, 'two'],
    [3, 'three'],
  ] as const) {
    await disk.image.write(fill(30_000 * value, value), 0)
    await disk.image.snapshots.creating(name, {})()
  }
  await disk.image.snapshots.deleting({ id: '2' }, {})()
  t.deepEqual(
    (await disk.image.snapshots.list()).map(({ name }) => name),
    ['one', 'three'],
  )
  await disk.image.snapshots.applying('one', {})()
  t.deepEqual(await readDisk(disk, 0, 30_000), fill(30_000, 1))
  await disk.image.snapshots.deleting('one', {})()
  t.is((await disk.image.snapshots.creating('four', {})()).id, '4')
  await checkedByQemu(t, disk)
})

test('a name goes before an id', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 512 })
  await disk.image.snapshots.creating('first', {})()
  await disk.image.snapshots.creating('1', {})()
  await disk.image.snapshots.deleting('1', {})()
  t.deepEqual(
    (await disk.image.snapshots.list()).map(({ name }) => name),
    ['first'],
  )
  await disk.image.snapshots.deleting('1', {})()
  await t.throwsAsync(disk.image.snapshots.deleting('1', {})(), { code: 'ERR_SNAPSHOT_NOT_FOUND' })
  await checkedClean(t, disk)
})

test('a table whose count a crash has left too high is not taken for shared: what it maps has one owner', async (t) => {
  const clusterSize = 4096
  const disk = await newDisk({ size: 2 ** 20, clusterSize })
  await disk.image.write(fill(5 * clusterSize, 1), 0)
  await disk.image.snapshots.creating('one', {})()
  const { allocator, l1, ordering } = disk.parts
  const table = (l1.table(0)?.host ?? 0) / clusterSize
  await allocator.changeCounts(
    table,
    1,
    (count) => count + 1,
    (slice) => ordering.addReferences(slice),
  )
  await disk.image.snapshots.deleting('one', {})()
  await disk.image.close()
  const { leaks } = await checkedSound(t, disk.memory.contents)
  t.is(leaks, 1)
})
