import test from 'ava'
import { checkedByQemu, fill, newDisk, newParts, readDisk } from '../support/qcow2-disk.js'

/** Header, refcount table, refcount block and L1 table take the first four clusters. */
const create = { size: 65536, clusterSize: 4096 } as const
const first = 4 * 4096

test('each begins where the one before it ends, and counts one reference to every cluster that it touches', async (t) => {
  const { parts } = await newParts(create)
  const { compressedSpace: space, allocator } = parts
  const places = await Promise.all([space.allocate(1000), space.allocate(3000), space.allocate(4095)])
  t.deepEqual(
    places.map(({ host, bytes }) => [host, bytes]),
    [
      [first, 1000],
      [first + 1000, 3000],
      [first + 4000, 4095],
    ] as never,
  )
  t.deepEqual(await allocator.counts(4, 3), [3, 1, 0])
})

test('what fills a cluster to its end leaves nothing to the next one', async (t) => {
  const { parts } = await newParts(create)
  await parts.compressedSpace.allocate(4000)
  await parts.compressedSpace.allocate(96)
  t.is((await parts.compressedSpace.allocate(10)).host, (first + 4096) as never)
  t.deepEqual(await parts.allocator.counts(4, 2), [2, 1])
})

test('where another has the next cluster, the rest of the last one is left', async (t) => {
  const { parts } = await newParts(create)
  await parts.compressedSpace.allocate(4000)
  await parts.allocator.allocate(1)
  t.is((await parts.compressedSpace.allocate(200)).host, (first + 2 * 4096) as never)
  t.deepEqual(await parts.allocator.counts(4, 3), [1, 1, 1])
})

test('a count goes no higher than its bits', async (t) => {
  for (const [refcountBits, most] of [
    [1, 1],
    [2, 3],
  ] as const) {
    const { parts } = await newParts({ ...create, refcountBits })
    for (let index = 0; index < most; index++) await parts.compressedSpace.allocate(10)
    t.deepEqual(await parts.allocator.counts(4, 1), [most])
    t.is((await parts.compressedSpace.allocate(10)).host, (first + 4096) as never)
    t.deepEqual(await parts.allocator.counts(4, 2), [most, 1])
  }
})

test('what maps a place comes behind its counts, those of both clusters', async (t) => {
  const { parts, backend } = await newParts(create)
  await parts.compressedSpace.allocate(4000)
  await backend.flush()
  backend.log.length = 0
  const { after } = await parts.compressedSpace.allocate(200)
  const queued = backend.log.filter(({ kind }) => kind === 'enqueue')
  t.true(queued.length >= 2)
  for (const { section } of queued) t.true(after >= (section ?? Number.POSITIVE_INFINITY))
})

test('a cluster that was freed meanwhile belongs to its next owner alone', async (t) => {
  const { parts } = await newParts(create)
  const place = await parts.compressedSpace.allocate(100)
  await parts.compressedSpace.cancel(place)
  const owner = await parts.allocator.allocate(1)
  t.is(owner.host, place.host, 'the case that is meant')
  t.not((await parts.compressedSpace.allocate(100)).host, (place.host + 100) as never)
  t.deepEqual(await parts.allocator.counts(4, 2), [1, 1])
})

test('what is about to be punched out takes no further cluster', async (t) => {
  const disk = await newDisk(create)
  const compressible = (value: number): Uint8Array => fill(4096, value)
  await disk.image.writeCompressed(compressible(1), 0)
  await disk.image.discard(0, 4096)
  const punch = disk.backend.hold(({ kind }) => kind === 'punch')
  const flushed = disk.image.flush()
  const { offset, length } = await punch.reached
  // The count is still up, and the cluster has room.
  await disk.image.writeCompressed(compressible(3), 4096)
  const mapped = disk.backend.log.findLast(({ kind }) => kind === 'write')
  t.true((mapped?.offset ?? 0) < offset || (mapped?.offset ?? 0) >= offset + length)
  punch.release()
  await flushed
  t.deepEqual(await readDisk(disk, 0, 8192), new Uint8Array([...fill(4096, 0), ...fill(4096, 3)]))
  await checkedByQemu(t, disk)
})
