import test from 'ava'
import { guestOffset } from '../../lib/base/units.js'
import { storeCompressed, storeCopied } from '../../lib/qcow2/l2-entry.js'
import {
  checkedClean,
  diskByQemu,
  fill,
  newDisk,
  newParts,
  readAll,
  readDisk,
  reopen,
} from '../support/qcow2-disk.js'

const tiny = { size: 65536, clusterSize: 512 } as const
/** 4 KiB clusters: a table is one slice of 512 entries, 2 MiB of disk. */
const medium = { size: 8 * 2 ** 20, clusterSize: 4096 } as const

test("without a table a whole table's worth is unallocated, to the end of what is asked for", async (t) => {
  const { parts } = await newParts(tiny)
  t.deepEqual(parts.l2.lookup(guestOffset(1000), 50000), {
    entry: { type: 'unallocated' },
    length: 32768 - 1000,
  })
  t.deepEqual(parts.l2.lookup(guestOffset(32768), 100), { entry: { type: 'unallocated' }, length: 100 })
})

test('a run ends where type, flag or adjacency ends', async (t) => {
  const disk = await newDisk(medium)
  await disk.image.write(fill(3 * 4096, 1), 0)
  await disk.image.write(fill(4096, 2), 5 * 4096)
  await disk.image.write(fill(4096, 3), 4 * 4096)
  await disk.image.writeZeroes(4096, 4096, { unmap: false })
  const runs: unknown[] = []
  for (let at = 0; at < 8 * 4096;) {
    const run = await disk.image.mapping(at, 8 * 4096 - at)
    runs.push([run.type, run.length / 4096])
    at += run.length
  }
  t.deepEqual(runs, [
    ['data', 1],
    ['zero', 1],
    ['data', 1],
    ['unallocated', 1],
    // Written in the other order: their host clusters are not adjacent.
    ['data', 1],
    ['data', 1],
    ['unallocated', 2],
  ])
  await checkedClean(t, disk)
})

test('adjacent clusters are one run, from the middle of a cluster to the middle of another', async (t) => {
  const disk = await newDisk(medium)
  await disk.image.write(fill(20 * 4096, 1), 0)
  const first = await disk.image.mapping(0, 20 * 4096)
  if (first.type !== 'data') return t.fail(first.type)
  t.is(first.length, 20 * 4096)
  t.deepEqual(await disk.image.mapping(4096 + 100, 2 * 4096), {
    type: 'data',
    length: 2 * 4096,
    hostOffset: first.hostOffset + 4096 + 100,
  })
  await checkedClean(t, disk)
})

test('a run goes on over a multiple of 4 GiB, and does not begin anew behind it', async (t) => {
  const disk = await newDisk(medium)
  await disk.image.write(fill(6 * 4096, 1), 0)
  await disk.backend.truncate(2 ** 34)
  const lengths = (second: number): unknown[] => {
    const place = disk.parts.l2.writablePlace(guestOffset(0))
    if (place === undefined) throw new Error('the table is in memory')
    const hosts = [2 ** 33 - 8192, 2 ** 33 - 4096, second, second + 4096, second + 8192, 2 ** 32]
    for (const [index, host] of hosts.entries()) storeCopied(place.slice.view, place.at + index * 8, host)
    const found: unknown[] = []
    for (let at = 0; at < 6 * 4096;) {
      const run = disk.parts.l2.lookup(guestOffset(at), 6 * 4096 - at)
      if ('load' in run) throw new Error('not in memory')
      found.push([run.entry.host, run.length / 4096])
      at += run.length
    }
    return found
  }
  t.deepEqual(lengths(2 ** 33), [
    [2 ** 33 - 8192, 5],
    [2 ** 32, 1],
  ])
  t.deepEqual(lengths(2 ** 32), [
    [2 ** 33 - 8192, 2],
    [2 ** 32, 3],
    [2 ** 32, 1],
  ])
})

test('the quick way finds a run of plain clusters in memory, and nothing else', async (t) => {
  const { parts, image } = await newDisk(medium)
  await image.write(fill(4 * 4096, 1), 0)
  const run = parts.l2.lookup(guestOffset(0), 4096)
  if ('load' in run || run.entry.type !== 'normal') return t.fail('not in memory')
  const { host } = run.entry
  for (const inPlace of [true, false]) {
    t.is(parts.l2.contiguousHost(guestOffset(0), 4096, { inPlace }), host)
    t.is(parts.l2.contiguousHost(guestOffset(5000), 3 * 4096 - 5000, { inPlace }), host + 5000)
    t.is(parts.l2.contiguousHost(guestOffset(0), 4 * 4096 + 1, { inPlace }), -1, 'the fifth is unallocated')
    t.is(parts.l2.contiguousHost(guestOffset(2 ** 21), 512, { inPlace }), -1, 'no table')
    t.is(parts.l2.contiguousHost(guestOffset(2 ** 21 - 512), 1024, { inPlace }), -1, 'two tables')
  }
  await image.writeZeroes(0, 4096, { unmap: false })
  t.is(parts.l2.contiguousHost(guestOffset(0), 512, { inPlace: false }), -1, 'it reads as zeros')
  parts.l2Cache.drop(parts.l1.table(0)?.host ?? 0, 4096)
  t.is(parts.l2.contiguousHost(guestOffset(4096), 512, { inPlace: false }), -1, 'not in memory')
})

test('two requests that need the same new table share it', async (t) => {
  const disk = await newDisk(tiny)
  await Promise.all([0, 1, 2, 3].map((index) => disk.image.write(fill(512, index + 1), index * 512)))
  const zeroed = disk.backend.log.filter(({ kind }) => kind === 'writeZeroes')
  t.is(zeroed.length, 1, 'one table was made')
  await checkedClean(t, disk)
})

test('a table that could not be made leaves nothing behind, and is made by the next request', async (t) => {
  const disk = await newDisk(tiny)
  const failure = new Error('no space')
  disk.backend.fail(({ kind }) => kind === 'writeZeroes', failure, 1)
  const outcomes = await Promise.allSettled([
    disk.image.write(fill(512, 1), 0),
    disk.image.write(fill(512, 2), 512),
  ])
  t.deepEqual(
    outcomes.map(({ status }) => status),
    ['rejected', 'rejected'],
  )
  await disk.image.write(fill(512, 3), 0)
  t.is((await readAll(disk))[0], 3)
  t.is(disk.backend.admitted, 0)
  await checkedClean(t, disk)
})

test('a table that a snapshot shares is copied before it is changed; the snapshot keeps its own', async (t) => {
  const disk = await diskByQemu(t, {
    create: ['-o', 'cluster_size=4096', 'disk.qcow2', '1M'],
    io: ['write -P 1 0 64k'],
    then: [['snapshot', '-c', 'before', 'disk.qcow2']],
  })
  await disk.image.write(fill(512, 2), 4096)
  await disk.image.write(fill(4096, 3), 16384)
  const seen = await readAll(disk)
  t.deepEqual([seen[0], seen[4096], seen[4608], seen[16384], seen[20480]], [1, 2, 1, 3, 1])
  await checkedClean(t, disk)
})

test('a write to a disk with a snapshot never touches a cluster that the snapshot has', async (t) => {
  const disk = await diskByQemu(t, {
    create: ['-o', 'cluster_size=512', 'disk.qcow2', '1M'],
    io: ['write -P 1 0 256k'],
    then: [['snapshot', '-c', 'before', 'disk.qcow2']],
  })
  const before = disk.backend.length
  for (let at = 0; at < 2 ** 18; at += 700) await disk.image.write(fill(100, 2), at)
  await disk.image.discard(0, 2 ** 17)
  await disk.image.writeZeroes(2 ** 17, 2 ** 16, { unmap: false })
  const touched = disk.backend.log.filter(
    ({ kind, offset }) => (kind === 'write' || kind === 'punch') && offset < before,
  )
  t.deepEqual(touched, [], 'all that was there before belongs to the snapshot')
  await checkedClean(t, disk)
})

test('a cluster behind the end of the file is damage: it is neither read as zeros nor written in place', async (t) => {
  for (const options of [{}, { l2CacheBytes: 1 }]) {
    for (const length of [4096, 100]) {
      const disk = await newDisk(medium)
      await disk.image.write(fill(4096, 1), 0)
      await disk.image.flush()
      const place = disk.parts.l2.writablePlace(guestOffset(0))
      if (place === undefined) return t.fail('the table is in memory')
      // The second guest cluster, owned as it seems, in the first host cluster that the file does not have.
      const behind = Math.ceil(disk.memory.length / 4096) * 4096
      storeCopied(place.slice.view, place.at + 8, behind)
      disk.parts.ordering.unlink(place.slice)
      await reopen(disk, options)
      const damage = { code: 'ERR_CORRUPT', message: /behind the end of the file/ }
      await t.throwsAsync(readDisk(disk, 4096, 4096), damage)
      await disk.image.write(fill(4096, 3), 0)
      await t.throwsAsync(disk.image.write(fill(length, 2), 4096), damage)
      t.deepEqual(await readDisk(disk, 0, 4096), fill(4096, 3))
    }
  }
})

test('a run does not go on over the end of the file', async (t) => {
  const disk = await newDisk(medium)
  await disk.image.write(fill(4 * 4096, 1), 0)
  await disk.image.flush()
  const place = disk.parts.l2.writablePlace(guestOffset(0))
  if (place === undefined) return t.fail('the table is in memory')
  const last = (Math.ceil(disk.memory.length / 4096) - 1) * 4096
  for (const index of [0, 1, 2])
    storeCopied(place.slice.view, place.at + 8 * index, last + (index - 1) * 4096)
  t.like(disk.parts.l2.lookup(guestOffset(0), 2 * 4096), { length: 2 * 4096 })
  const damage = { code: 'ERR_CORRUPT', message: /behind the end of the file/ }
  t.throws(() => disk.parts.l2.lookup(guestOffset(0), 3 * 4096), damage)
})

test('an entry that was behind the end of the file at open stays damage when the file has grown there', async (t) => {
  for (const options of [{}, { l2CacheBytes: 1 }, { reservation: 64 }]) {
    for (const isCompressed of [false, true]) {
      const disk = await newDisk(medium)
      await disk.image.write(fill(4096, 1), 0)
      await disk.image.write(fill(4096, 1), 4 * 2 ** 20)
      await disk.image.flush()
      const place = disk.parts.l2.writablePlace(guestOffset(0))
      if (place === undefined) return t.fail('the table is in memory')
      const behind = Math.ceil(disk.memory.length / 4096) * 4096
      const { view } = place.slice
      if (isCompressed) storeCompressed(view, place.at + 8, { host: behind, bytes: 1000 }, 12)
      else storeCopied(view, place.at + 8, behind)
      disk.parts.ordering.unlink(place.slice)
      await reopen(disk, options)
      // In other tables, of which one is made, until the file has that cluster.
      await disk.image.write(fill(100 * 4096, 5), 4 * 2 ** 20)
      await disk.image.write(fill(20 * 4096, 6), 6 * 2 ** 20)
      t.true(disk.backend.length > behind + 4096)
      t.deepEqual(await readDisk(disk, 4 * 2 ** 20, 100 * 4096), fill(100 * 4096, 5))
      t.deepEqual(await readDisk(disk, 6 * 2 ** 20, 20 * 4096), fill(20 * 4096, 6))
      const damage = { code: 'ERR_CORRUPT', message: /behind the end of the file as it was opened/ }
      await t.throwsAsync(readDisk(disk, 4096, 4096), damage)
      t.deepEqual(await readDisk(disk, 0, 4096), fill(4096, 1))
      await disk.image.write(fill(4096, 3), 0)
      await t.throwsAsync(disk.image.write(fill(4096, 2), 4096), damage)
      t.deepEqual(await readDisk(disk, 0, 4096), fill(4096, 3))
      t.deepEqual(await readDisk(disk, 4 * 2 ** 20, 100 * 4096), fill(100 * 4096, 5), 'nobody wrote into it')
    }
  }
})
