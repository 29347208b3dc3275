import { constants } from 'node:os'
import test from 'ava'
import { hostOffset, type Section } from '../../lib/base/units.js'
import type { FreeOptions } from '../../lib/qcow2/deferred-frees.js'
import type { DeviceOperation } from '../../lib/queue/memory-device.js'
import { checkedByQemu, type Disk, fill, newDisk, newParts, readDisk } from '../support/qcow2-disk.js'

const options = { size: 65536, clusterSize: 512 } as const
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** Clusters in use, and a write that has removed the reference to them. */
async function setUp(clusters: number, how: Partial<FreeOptions> = {}) {
  const made = await newParts(options)
  const { parts } = made
  const allocation = await parts.allocator.allocate(clusters)
  const first = allocation.host / 512
  await parts.backend.write(fill(clusters * 512, 1), allocation.host)
  await parts.backend.flush()
  const remove = (): Section => {
    // The L1 stands in for whatever held the reference.
    const removal = parts.ordering.unlink(parts.l1.slice(0))
    parts.frees.add(allocation.host, clusters * 512, { removal, punch: false, wasTable: false, ...how })
    return removal
  }
  return { ...made, allocation, first, remove }
}

test('G2: a cluster is not free before the removal of its reference is durable', async (t) => {
  const { parts, first, remove } = await setUp(2)
  remove()
  t.true(parts.frees.pending)
  await parts.frees.settled()
  t.deepEqual(await parts.allocator.counts(first, 2), [1, 1])
  t.not((await parts.allocator.allocate(1)).host / 512, first)
  await parts.backend.flush()
  await parts.frees.settled()
  t.deepEqual(await parts.allocator.counts(first, 2), [0, 0])
  t.false(parts.frees.pending)
  t.is((await parts.allocator.allocate(1)).host / 512, first)
})

/** Where a cluster of the guest stands in the file. */
async function hostOf(disk: Disk, cluster: number): Promise<number | undefined> {
  const mapping = await disk.image.mapping(cluster * 4096, 4096)
  return mapping.type === 'data' ? mapping.hostOffset : undefined
}

/** An image without a free cluster on a device that is full, of which the first cluster has been discarded, durably. */
async function fullOfClusters() {
  let isFull = false
  const fault = ({ kind, offset, length }: DeviceOperation): number | undefined =>
    isFull && kind === 'write' && offset + length > end ? constants.errno.ENOSPC : undefined
  const disk = await newDisk({ size: 65536, clusterSize: 4096 }, { memory: { fault } })
  for (let cluster = 0; cluster < 4; cluster++)
    await disk.image.write(fill(4096, cluster + 1), cluster * 4096)
  await disk.image.flush()
  const end = disk.memory.length
  isFull = true
  return { disk, end, host: await hostOf(disk, 0) }
}

test('a write that finds no room waits for clusters that an older request still may use', async (t) => {
  const { disk, host } = await fullOfClusters()
  const reading = disk.backend.hold(({ kind }) => kind === 'read')
  const read = readDisk(disk, 4096, 4096)
  await reading.reached
  await disk.image.discard(0, 4096)
  await disk.image.flush()
  const written = disk.image.write(fill(4096, 9), 8 * 4096)
  for (let turns = 0; turns < 20; turns++) await turn()
  t.true(disk.parts.frees.pending)
  reading.release()
  t.deepEqual(await read, fill(4096, 2))
  await written
  t.is(await hostOf(disk, 8), host)
  t.deepEqual(await readDisk(disk, 8 * 4096, 4096), fill(4096, 9))
  await checkedByQemu(t, disk)
})

test('a write that finds no room takes what has become free while it was failing', async (t) => {
  const { disk, end, host } = await fullOfClusters()
  const punching = disk.backend.hold(({ kind }) => kind === 'punch')
  await disk.image.discard(0, 4096)
  await disk.image.flush()
  await punching.reached
  const writing = disk.backend.hold(({ kind, offset }) => kind === 'write' && offset >= end)
  const written = disk.image.write(fill(4096, 9), 8 * 4096)
  await writing.reached
  punching.release()
  await disk.parts.frees.settled()
  t.false(disk.parts.frees.pending)
  writing.release()
  await written
  t.is(await hostOf(disk, 8), host)
  await checkedByQemu(t, disk)
})

test('a write that finds no room fails where nothing becomes free', async (t) => {
  const { disk } = await fullOfClusters()
  await t.throwsAsync(disk.image.write(fill(4096, 9), 8 * 4096), { code: 'ERR_NO_SPACE' })
  await disk.image.discard(0, 4096)
  await disk.image.flush()
  await disk.image.write(fill(4096, 9), 8 * 4096)
  await t.throwsAsync(disk.image.write(fill(4096, 9), 9 * 4096), { code: 'ERR_NO_SPACE' })
  await checkedByQemu(t, disk)
})

test('G3: a cluster is not free while a request runs that began before the removal', async (t) => {
  const { parts, first, remove } = await setUp(1)
  const reader = parts.active.begin()
  remove()
  const later = parts.active.begin()
  await parts.backend.flush()
  await parts.frees.settled()
  t.deepEqual(await parts.allocator.counts(first, 1), [1])
  parts.active.end(reader)
  await parts.frees.settled()
  t.deepEqual(await parts.allocator.counts(first, 1), [0], 'the later one cannot have seen the mapping')
  parts.active.end(later)
})

test('G3: neighbours that one write unlinks wait each for the requests that may use it', async (t) => {
  const { parts, allocation, first } = await setUp(2)
  const removal = parts.ordering.unlink(parts.l1.slice(0))
  const how = { removal, punch: false, wasTable: false }
  parts.frees.add(allocation.host, 512, how)
  // It began in between, so only the second cluster can be its.
  const writer = parts.active.begin()
  parts.frees.add(hostOffset(allocation.host + 512), 512, how)
  await parts.backend.flush()
  await parts.frees.settled()
  t.deepEqual(await parts.allocator.counts(first, 2), [0, 1])
  parts.active.end(writer)
  await parts.frees.settled()
  t.deepEqual(await parts.allocator.counts(first, 2), [0, 0])
})

test('G4: a cluster is not free while the host is giving its bytes up', async (t) => {
  const { parts, backend, first, remove } = await setUp(1, { punch: true })
  remove()
  const held = backend.hold(({ kind }) => kind === 'punch')
  await backend.flush()
  parts.frees.release()
  await held.reached
  await turn()
  t.deepEqual(await parts.allocator.counts(first, 1), [1])
  held.release()
  await parts.frees.settled()
  t.deepEqual(await parts.allocator.counts(first, 1), [0])
})

test('G5: the cluster of a table is not free while a node of it waits', async (t) => {
  const { parts, allocation, first } = await setUp(1)
  // The node stands in a later section than the removal.
  const removal = parts.ordering.unlink(parts.l1.slice(0))
  const late = parts.backend.enqueue(fill(512, 3), allocation.host, (removal + 1) as Section)
  t.true(late > removal)
  parts.frees.add(allocation.host, 512, { removal, punch: false, wasTable: true })
  await parts.backend.durable(removal)
  await parts.frees.settled()
  if (parts.backend.durableSection < late) t.deepEqual(await parts.allocator.counts(first, 1), [1])
  await parts.backend.flush()
  await parts.frees.settled()
  t.deepEqual(await parts.allocator.counts(first, 1), [0])
})

test('nothing is given back to the host before the removal is durable', async (t) => {
  const { parts, backend, remove } = await setUp(1, { punch: true })
  remove()
  await parts.frees.settled()
  t.false(backend.log.some(({ kind }) => kind === 'punch'))
  await backend.flush()
  await parts.frees.settled()
  t.true(backend.log.some(({ kind }) => kind === 'punch'))
})

test('only clusters whose last reference goes are given back to the host', async (t) => {
  const { parts, backend, allocation, first, remove } = await setUp(5, { punch: true })
  // The second and the fourth have another reference.
  for (const shared of [first + 1, first + 3]) {
    await parts.allocator.changeCounts(
      shared,
      1,
      (count) => count + 1,
      (slice) => parts.ordering.addReferences(slice),
    )
  }
  remove()
  await backend.flush()
  await parts.frees.settled()
  const punched = backend.log
    .filter(({ kind }) => kind === 'punch')
    .map(({ offset, length }) => [offset, length])
  t.deepEqual(punched, [
    [allocation.host, 512],
    [allocation.host + 2 * 512, 512],
    [allocation.host + 4 * 512, 512],
  ])
  t.deepEqual(await parts.allocator.counts(first, 5), [0, 1, 0, 1, 0])
})

test('what is not to be punched keeps its bytes: a crash may bring it back', async (t) => {
  const { parts, backend, allocation, remove } = await setUp(1)
  remove()
  await backend.flush()
  await parts.frees.settled()
  const bytes = fill(512, 0)
  await backend.read(bytes, allocation.host)
  t.deepEqual(bytes, fill(512, 1))
})

test('lowered counts cost no sync of their own', async (t) => {
  const { parts, backend, remove } = await setUp(3)
  remove()
  await backend.flush()
  const before = backend.stats().syncsIssued
  await parts.frees.settled()
  t.is(backend.stats().syncsIssued, before)
  await backend.flush()
  t.is(backend.stats().syncsIssued - before, 1)
})

test('a storm of frees becomes few nodes, however many clusters it was', async (t) => {
  const { parts, backend, allocation } = await setUp(100)
  const removal = parts.ordering.unlink(parts.l1.slice(0))
  for (let step = 0; step < 100; step++) {
    parts.frees.add(hostOffset(allocation.host + step * 512), 512, { removal, punch: false, wasTable: false })
  }
  const before = backend.log.length
  await backend.flush()
  await parts.frees.settled()
  t.is(backend.log.slice(before).filter(({ kind }) => kind === 'enqueue').length, 1)
})

test('compressed payloads in one cluster each take their reference with them; the last one frees it', async (t) => {
  const { parts, backend, allocation, first } = await setUp(2)
  // Two payloads: in cluster 0, and from cluster 0 into cluster 1.
  await parts.allocator.changeCounts(
    first,
    1,
    (count) => count + 1,
    (slice) => parts.ordering.addReferences(slice),
  )
  const removal = parts.ordering.unlink(parts.l1.slice(0))
  parts.frees.add(hostOffset(allocation.host + 100), 200, { removal, punch: true, wasTable: false })
  await backend.flush()
  await parts.frees.settled()
  t.deepEqual(await parts.allocator.counts(first, 2), [1, 1])
  t.false(
    backend.log.some(({ kind }) => kind === 'punch'),
    'the other payload is still there',
  )
  const second = parts.ordering.unlink(parts.l1.slice(0))
  parts.frees.add(hostOffset(allocation.host + 300), 400, { removal: second, punch: true, wasTable: false })
  await backend.flush()
  await parts.frees.settled()
  t.deepEqual(await parts.allocator.counts(first, 2), [0, 0])
  t.like(
    backend.log.find(({ kind }) => kind === 'punch'),
    { offset: allocation.host, length: 1024 },
  )
})

test('a count that is 0 already is a damaged image: the rest stays in use, and who waits is told', async (t) => {
  const { parts, backend, first, remove } = await setUp(2)
  await parts.allocator.changeCounts(
    first,
    1,
    () => 0,
    (slice) => parts.ordering.addReferences(slice),
  )
  remove()
  await backend.flush()
  await t.throwsAsync(parts.frees.settled(), {
    code: 'ERR_CORRUPT',
    message: /a cluster in use has refcount 0/,
  })
  t.deepEqual(await parts.allocator.counts(first + 1, 1), [1])
  t.is(backend.admitted, 0)
})

test('a punch that fails costs the space, not the image', async (t) => {
  const { parts, backend, first, remove } = await setUp(1, { punch: true })
  backend.fail(({ kind }) => kind === 'punch', new Error('not now'), 1)
  remove()
  await backend.flush()
  await parts.frees.settled()
  t.deepEqual(await parts.allocator.counts(first, 1), [0])
})
