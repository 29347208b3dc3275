import test from 'ava'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { defaultReservation } from '../../lib/qcow2/reservation.js'
import { makeGeometry } from '../../lib/qcow2/geometry.js'
import {
  checkContents,
  checkedByQemu,
  checkedClean,
  checkedSound,
  type Disk,
  type DiskOptions,
  fill,
  newDisk,
  readDisk,
  settle,
  source,
} from '../support/qcow2-disk.js'

/** 512 clusters of 4 KiB; the counts of 2048 clusters stand in one slice. */
const disk4k = { size: 2 ** 21, clusterSize: 4096 } as const
const reserving: DiskOptions = { reservation: 16 }

/** A disk whose first reservation is durable; guest clusters from 1 on are unallocated. */
async function reserved(
  create: { size: number; clusterSize: number } = disk4k,
  options = reserving,
): Promise<Disk> {
  const disk = await newDisk(create, options)
  for (let round = 0; round < 2; round++) {
    await disk.image.write(fill(create.clusterSize, 1), 0)
    await settle()
    await disk.image.flush()
  }
  return disk
}

/** What the requests cost. */
async function syncsOf(disk: Disk, work: () => Promise<void>): Promise<number> {
  const before = disk.image.stats().syncsIssued
  await work()
  return disk.image.stats().syncsIssued - before
}

test('4 MiB are reserved, but 8 clusters at least and 64 at most', (t) => {
  const clusters = [9, 12, 16, 18, 21].map((bits) => defaultReservation(makeGeometry(bits, 4)))
  t.deepEqual(clusters, [64, 64, 64, 16, 8])
})

test('an allocating write and its flush cost one sync, for as long as the disk grows', async (t) => {
  const disk = await reserved()
  const writes = 300
  const syncs = await syncsOf(disk, async () => {
    for (let cluster = 1; cluster <= writes; cluster++) {
      await disk.image.write(fill(100, cluster), cluster * 4096 + 50)
      await disk.image.flush()
    }
  })
  t.is(syncs, writes)
  const bytes = await readDisk(disk, 7 * 4096, 4096)
  t.deepEqual([bytes[49], bytes[50], bytes[149], bytes[150]], [0, 7, 7, 0])
  await checkedByQemu(t, disk)
})

test('without reservation it costs two', async (t) => {
  const disk = await reserved(disk4k, {})
  const syncs = await syncsOf(disk, async () => {
    for (let cluster = 1; cluster <= 10; cluster++) {
      await disk.image.write(fill(100, 1), cluster * 4096)
      await disk.image.flush()
    }
  })
  t.is(syncs, 20)
})

test('a new L2 table in a reserved cluster costs no sync more', async (t) => {
  const disk = await reserved({ size: 2 ** 24, clusterSize: 4096 })
  const syncs = await syncsOf(disk, async () => {
    await disk.image.write(fill(4096, 1), 2 ** 23)
    await disk.image.flush()
  })
  t.is(syncs, 1)
  t.deepEqual(
    await readDisk(disk, 2 ** 23 - 4096, 3 * 4096).then((bytes) => [bytes[0], bytes[4096], bytes[8192]]),
    [0, 1, 0],
  )
  await checkedByQemu(t, disk)
})

test('where every write is synced, it is synced once', async (t) => {
  const disk = await reserved(disk4k, { ...reserving, syncPolicy: 'write' })
  const syncs = await syncsOf(disk, async () => {
    for (let cluster = 1; cluster <= 5; cluster++) await disk.image.write(fill(4096, cluster), cluster * 4096)
  })
  t.is(syncs, 5)
  await checkedClean(t, disk)
})

test('where nothing is ever synced, nothing is reserved', async (t) => {
  const disk = await reserved(disk4k, { ...reserving, syncPolicy: 'never' })
  t.false(disk.backend.log.some(({ kind }) => kind === 'allocate'))
  await checkedClean(t, disk)
})

test('a cluster is blank when the longer file is durable, and not before', async (t) => {
  const { parts, backend } = await newDisk(disk4k, reserving)
  const extending = backend.hold(({ kind }) => kind === 'allocate')
  const before = await parts.allocator.allocate(1)
  await extending.reached
  const meanwhile = await parts.allocator.allocate(1)
  t.true(meanwhile.host >= before.host + 17 * 4096, 'what is being reserved is not given out yet')
  extending.release()
  await settle()
  const extended = await parts.allocator.allocate(1)
  t.is(extended.host, (before.host + 4096) as never)
  t.deepEqual([before.blank, meanwhile.blank, extended.blank], [false, false, false])
  t.true(extended.after > backend.durableSection, 'its count is not durable either')
  // A sync that had begun before says nothing; one that starts now does, with whatever makes it start.
  await backend.flush()
  backend.enqueue(fill(4096, 0), before.host, extended.after)
  await backend.flush()
  const durable = await parts.allocator.allocate(1)
  t.deepEqual([durable.blank, durable.fresh, durable.after], [true, true, 0 as never])
})

test('old bytes that are copied around a write are durable before its mapping', async (t) => {
  const disk = await newDisk(disk4k, { ...reserving, backing: source(fill(2 ** 20, 9)) })
  for (let round = 0; round < 2; round++) {
    await disk.image.write(fill(4096, 1), 0)
    await settle()
    await disk.image.flush()
  }
  const partial = await syncsOf(disk, async () => {
    await disk.image.write(fill(100, 1), 4096)
    await disk.image.flush()
  })
  t.is(partial, 2, 'before the mapping, and behind it')
  const whole = await syncsOf(disk, async () => {
    await disk.image.write(fill(4096, 1), 2 * 4096)
    await disk.image.flush()
  })
  t.is(whole, 2, 'what would show in its place is not zeros')
  const behind = await syncsOf(disk, async () => {
    await disk.image.write(fill(100, 1), 2 ** 20)
    await disk.image.flush()
  })
  t.is(behind, 1, 'behind the end of the backing file all is zeros')
  await disk.image.writeZeroes(3 * 4096, 4096, { unmap: true })
  const hidden = await syncsOf(disk, async () => {
    await disk.image.flush()
    await disk.image.write(fill(100, 1), 3 * 4096)
    await disk.image.flush()
  })
  t.is(hidden, 2, 'so it is where zeros hide it: one sync for them, one for the write')
  await disk.image.close()
  await checkedSound(t, disk.memory.contents)
})

test('free clusters within the file come first', async (t) => {
  const disk = await reserved()
  await disk.image.write(fill(4 * 4096, 1), 4096)
  await disk.image.discard(2 * 4096, 4096)
  await disk.image.flush()
  await disk.parts.frees.settled()
  const length = disk.parts.l2.contiguousHost(4096 as never, 4096, { inPlace: true })
  await disk.image.write(fill(4096, 7), 9 * 4096)
  t.is(disk.parts.l2.contiguousHost((9 * 4096) as never, 4096, { inPlace: true }), length + 4096)
  await checkedClean(t, disk)
})

test('a cluster whose write failed is not blank any more', async (t) => {
  const disk = await reserved()
  const failure = new Error('this once')
  disk.backend.fail(({ kind }) => kind === 'write', failure, 1)
  await t.throwsAsync(disk.image.write(fill(4096, 2), 4096), { is: failure })
  const again = await disk.parts.allocator.allocate(1)
  t.deepEqual([again.fresh, again.blank], [false, false])
  await disk.parts.allocator.cancel(again)
  const next = await disk.parts.allocator.allocate(2)
  t.true(next.fresh || next.host === again.host)
  await disk.parts.allocator.cancel(next)
  await checkedClean(t, disk)
})

test('where the file cannot be extended ahead, writes go on without, and it is tried again later', async (t) => {
  const disk = await newDisk(disk4k, reserving)
  const attempts = (): number => disk.backend.log.filter(({ kind }) => kind === 'allocate').length
  disk.backend.fail(({ kind }) => kind === 'allocate', new Error('no room'), 2)
  for (let cluster = 0; cluster < 100; cluster++) {
    await disk.image.write(fill(4096, cluster), cluster * 4096)
    await settle()
  }
  t.true(attempts() >= 3, 'tried again')
  t.true(attempts() <= 10, 'but not for each write')
  await disk.image.flush()
  t.is((await readDisk(disk, 99 * 4096, 4096))[0], 99)
  await checkedClean(t, disk)
})

test('a crash leaks what is reserved, and no more; closing gives it back, and the end of the file', async (t) => {
  const disk = await reserved()
  await disk.image.write(fill(4096, 2), 4096)
  await disk.image.flush()
  const crashed = await checkContents(SparseBytes.from(disk.memory.snapshot()))
  t.is(crashed.corruptions, 0)
  t.true(crashed.leaks > 0 && crashed.leaks <= 32, `${crashed.leaks} leaks`)
  await disk.image.close()
  // Header, refcount table, refcount block, L1, L2 table, and two clusters of data.
  t.is(disk.memory.contents.length, 7 * 4096)
  t.is((await checkContents(disk.memory.contents)).leaks, 0)
})

test('shrinking gives it back, and the disk can grow again', async (t) => {
  const disk = await reserved()
  for (let cluster = 1; cluster < 40; cluster++) await disk.image.write(fill(4096, 1), cluster * 4096)
  await disk.image.flush()
  await disk.image.resize(2 ** 16, { shrink: true })
  t.true(disk.memory.contents.length <= 25 * 4096)
  await disk.image.resize(2 ** 21, { shrink: false })
  for (let cluster = 16; cluster < 100; cluster++) await disk.image.write(fill(4096, 2), cluster * 4096)
  t.is((await readDisk(disk, 50 * 4096, 1))[0], 2)
  await checkedByQemu(t, disk)
})

test('many writers at once never get the same cluster, through new refcount blocks', async (t) => {
  // 64-bit counts: 64 clusters a block.
  const disk = await newDisk({ size: 2 ** 19, clusterSize: 512, refcountBits: 64 }, { reservation: 8 })
  let next = 0
  const writer = async (): Promise<void> => {
    while (next < 1000) {
      const cluster = next++
      await disk.image.write(fill(512, cluster % 251), cluster * 512)
      if (cluster % 7 === 0) await disk.image.flush()
    }
  }
  await Promise.all(Array.from({ length: 8 }, writer))
  for (let cluster = 0; cluster < 1000; cluster++) {
    t.deepEqual(await readDisk(disk, cluster * 512, 512), fill(512, cluster % 251))
  }
  await checkedByQemu(t, disk)
})
