import test from 'ava'
import type { DeviceOperation } from '../../lib/queue/memory-device.js'
import {
  checkedByQemu,
  checkedClean,
  type Disk,
  diskByQemu,
  fill,
  newDisk,
  readAll,
  readDisk,
  reopen,
  settle,
  source,
} from '../support/qcow2-disk.js'

const options = { size: 65536, clusterSize: 4096 } as const

async function typesOf(disk: Disk): Promise<string[]> {
  const types: string[] = []
  for (let at = 0; at < disk.image.size; at += disk.image.clusterSize) {
    const mapping = await disk.image.mapping(at, disk.image.clusterSize)
    types.push(mapping.type === 'zero' && mapping.hostOffset !== undefined ? 'kept' : mapping.type)
  }
  return types
}

const used = (disk: Disk): Promise<number> =>
  disk.parts.allocator.counts(0, 512).then((counts) => counts.filter((count) => count > 0).length)

test('a discarded cluster reads as zeros even over a backing file, also when it was never written', async (t) => {
  const disk = await newDisk(options, { backing: source(fill(65536, 7)) })
  await disk.image.write(fill(4096, 1), 0)
  await disk.image.discard(0, 8192)
  t.deepEqual(await readDisk(disk, 0, 12288), new Uint8Array([...fill(8192, 0), ...fill(4096, 7)]))
  t.deepEqual((await typesOf(disk)).slice(0, 3), ['zero', 'zero', 'unallocated'])
  await reopen(disk)
  t.deepEqual(await readDisk(disk, 0, 8192), fill(8192, 0))
  await checkedByQemu(t, disk)
})

test('a discarded cluster is given back, and its bytes to the host', async (t) => {
  const disk = await newDisk(options)
  await disk.image.write(fill(16384, 1), 0)
  await disk.image.flush()
  const before = await used(disk)
  await disk.image.discard(0, 12288)
  await disk.image.flush()
  await settle()
  t.is(await used(disk), before - 3)
  t.is(
    disk.backend.log.filter(({ kind }) => kind === 'punch').reduce((sum, { length }) => sum + length, 0),
    12288,
  )
  await checkedByQemu(t, disk)
})

test('a discard is about whole clusters; the last cluster of the disk is whole although the disk ends in it', async (t) => {
  const disk = await newDisk({ size: 5 * 4096 + 1024, clusterSize: 4096 })
  await disk.image.write(fill(5 * 4096 + 1024, 1), 0)
  await disk.image.discard(100, 8192)
  t.deepEqual((await typesOf(disk)).slice(0, 3), ['data', 'zero', 'data'])
  t.is((await readDisk(disk, 4095, 1))[0], 1)
  t.is((await readDisk(disk, 8192, 1))[0], 1)
  await disk.image.discard(5 * 4096, 512)
  t.is((await typesOf(disk))[5], 'data', 'it does not reach the end')
  await disk.image.discard(5 * 4096, 1024)
  t.is((await typesOf(disk))[5], 'zero')
  await disk.image.discard(10, 20)
  t.is((await readDisk(disk, 10, 1))[0], 1)
  await checkedClean(t, disk)
})

test('version 2 refuses to discard where a backing file would show again, and changes nothing', async (t) => {
  const disk = await newDisk({ ...options, version: 2 }, { backing: source(fill(20000, 7)) })
  await disk.image.write(fill(65536, 1), 0)
  await t.throwsAsync(disk.image.discard(0, 65536), { code: 'ERR_NOT_SUPPORTED', message: /version 2/ })
  await t.throwsAsync(disk.image.discard(16384, 8192), { code: 'ERR_NOT_SUPPORTED' })
  t.deepEqual(await readAll(disk), fill(65536, 1))
  await disk.image.discard(20480, 45056)
  t.deepEqual(await readDisk(disk, 20480, 45056), fill(45056, 0))
  t.deepEqual((await typesOf(disk)).slice(4, 6), ['data', 'unallocated'])
  await checkedByQemu(t, disk)
})

test('zeros keep the clusters of a cluster of our own, and with unmap they do not', async (t) => {
  const disk = await newDisk(options)
  await disk.image.write(fill(16384, 1), 0)
  await disk.image.flush()
  const before = await used(disk)
  await disk.image.writeZeroes(0, 8192, { unmap: false })
  await disk.image.writeZeroes(8192, 4096, { unmap: true })
  t.deepEqual((await typesOf(disk)).slice(0, 5), ['kept', 'kept', 'zero', 'data', 'unallocated'])
  t.deepEqual(await readDisk(disk, 0, 16384), new Uint8Array([...fill(12288, 0), ...fill(4096, 1)]))
  await disk.image.flush()
  await settle()
  t.is(await used(disk), before - 1)
  await checkedByQemu(t, disk)
})

test('a write into a kept cluster uses it, and shows none of what it held', async (t) => {
  const disk = await newDisk(options)
  await disk.image.write(fill(4096, 9), 0)
  const before = await disk.image.mapping(0, 4096)
  await disk.image.writeZeroes(0, 4096, { unmap: false })
  await disk.image.write(fill(100, 1), 1000)
  const expected = new Uint8Array(4096)
  expected.fill(1, 1000, 1100)
  t.deepEqual(await readDisk(disk, 0, 4096), expected)
  t.deepEqual(await disk.image.mapping(0, 4096), before, 'the same host cluster')
  await checkedClean(t, disk)
})

test('zeros over parts of clusters are written, the whole ones between are flagged', async (t) => {
  const disk = await newDisk(options, { backing: source(fill(65536, 7)) })
  await disk.image.write(fill(4096, 1), 0)
  await disk.image.writeZeroes(1000, 15000, { unmap: true })
  const expected = fill(65536, 7)
  expected.fill(1, 0, 1000)
  expected.fill(0, 1000, 16000)
  t.deepEqual(await readAll(disk), expected)
  t.deepEqual((await typesOf(disk)).slice(0, 5), ['data', 'zero', 'zero', 'data', 'unallocated'])
  await checkedClean(t, disk)
})

test('zeros where zeros are cost nothing', async (t) => {
  const disk = await newDisk({ size: 2 ** 40, clusterSize: 65536 })
  await disk.image.writeZeroes(0, 2 ** 40, { unmap: true })
  await disk.image.writeZeroes(100, 2 ** 39, { unmap: false })
  await disk.image.discard(0, 2 ** 40)
  t.deepEqual(
    disk.backend.log.filter(({ kind }) => kind !== 'admit'),
    [],
  )
  await checkedClean(t, disk)
})

test('version 2 writes zeros as data where a backing file shows, and drops mappings where none does', async (t) => {
  const disk = await newDisk({ ...options, version: 2 }, { backing: source(fill(20000, 7)) })
  await disk.image.write(fill(40960, 1), 16384)
  await disk.image.writeZeroes(8192, 40960, { unmap: true })
  const expected = new Uint8Array(65536)
  expected.fill(7, 0, 8192)
  expected.fill(1, 49152, 57344)
  t.deepEqual(await readAll(disk), expected)
  t.deepEqual((await typesOf(disk)).slice(1, 6), ['unallocated', 'data', 'data', 'data', 'unallocated'])
  await disk.image.writeZeroes(49152, 8192, { unmap: false })
  expected.fill(0, 49152, 57344)
  t.deepEqual(await readAll(disk), expected)
  await checkedByQemu(t, disk)
})

test('a storm of discards and a flush: one sync, and the counts ride along with the next', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 4096 })
  await disk.image.write(fill(2 ** 20, 1), 0)
  await disk.image.flush()
  const taken = await used(disk)
  const before = disk.image.stats().syncsIssued
  await Promise.all(Array.from({ length: 128 }, (_, index) => disk.image.discard(index * 8192, 4096)))
  await disk.image.flush()
  t.is(disk.image.stats().syncsIssued - before, 1)
  await disk.parts.frees.settled()
  t.is(disk.image.stats().syncsIssued - before, 1, 'frees cost none')
  t.is(await used(disk), taken - 128)
  await disk.image.flush()
  t.is(disk.image.stats().syncsIssued - before, 2)
  await checkedClean(t, disk)
})

test('200 pairs of allocate and discard elsewhere, and a flush at the end: six syncs at most', async (t) => {
  const disk = await newDisk({ size: 64 * 2 ** 20, clusterSize: 65536 })
  await disk.image.write(fill(200 * 65536, 1), 0)
  await disk.image.flush()
  const before = disk.image.stats().syncsIssued
  for (let index = 0; index < 200; index++) {
    await disk.image.write(fill(4096, 2), (300 + index) * 65536)
    await disk.image.discard(index * 65536, 65536)
  }
  await disk.image.flush()
  const syncs = disk.image.stats().syncsIssued - before
  t.log(`${syncs} syncs`)
  t.true(syncs <= 6, `${syncs}`)
  await checkedClean(t, disk)
})

test('a cluster shared with a snapshot is not zeroed in place, nor given to the host', async (t) => {
  const disk = await diskByQemu(t, {
    create: ['-o', 'cluster_size=4096', 'disk.qcow2', '64k'],
    io: ['write -P 1 0 64k'],
    then: [['snapshot', '-c', 'one', 'disk.qcow2']],
  })
  await disk.image.writeZeroes(0, 16384, { unmap: false })
  await disk.image.discard(16384, 16384)
  await disk.image.flush()
  await settle()
  t.deepEqual(
    (await typesOf(disk)).slice(0, 8),
    Array.from({ length: 8 }, () => 'zero'),
  )
  t.false(disk.backend.log.some(({ kind }) => kind === 'punch'))
  await checkedClean(t, disk)
})

test("zeros kept in a snapshot's cluster give way to a cluster of our own when they are written", async (t) => {
  const disk = await diskByQemu(t, {
    create: ['-o', 'cluster_size=4096,preallocation=metadata', 'disk.qcow2', '64k'],
    io: ['write -P 1 0 64k', 'write -z 0 32k'],
    then: [['snapshot', '-c', 'one', 'disk.qcow2']],
  })
  await disk.image.write(fill(100, 2), 1000)
  const expected = new Uint8Array(65536)
  expected.fill(2, 1000, 1100)
  expected.fill(1, 32768)
  t.deepEqual(await readAll(disk), expected)
  await disk.image.flush()
  await checkedClean(t, disk)
})

test('a discard through many tables is done table by table, those that are not there skipped', async (t) => {
  const disk = await newDisk({ size: 2 ** 22, clusterSize: 512 }, { l2CacheBytes: 0, refcountCacheBytes: 0 })
  for (let at = 0; at < 2 ** 22; at += 100_000) await disk.image.write(fill(5000, 1), at)
  await disk.image.flush()
  const tables = disk.backend.log.filter(({ kind }) => kind === 'writeZeroes').length
  await disk.image.discard(0, 2 ** 22)
  t.is(
    disk.backend.log.filter(({ kind }) => kind === 'writeZeroes').length,
    tables,
    'no table was made for it',
  )
  t.true((await readAll(disk)).every((byte) => byte === 0))
  await checkedByQemu(t, disk)
})

test('where every write is synced, a discard is durable when it completes', async (t) => {
  const disk = await newDisk(options, { syncPolicy: 'write' })
  await disk.image.write(fill(16384, 1), 0)
  await disk.image.discard(0, 8192)
  t.is(disk.image.stats().queuedNodesNow, 0)
  await settle()
  t.true(disk.backend.log.some(({ kind }) => kind === 'punch'))
  await checkedClean(t, disk)
})

for (const request of ['writeZeroes', 'discard', 'resize'] as const) {
  test(`written through, a ${request} that finds nothing to do waits for whoever did it`, async (t) => {
    let isFull = false
    const memory = {
      fault: ({ section }: DeviceOperation) => (isFull && section !== undefined ? 28 : undefined),
    }
    const disk = await newDisk(options, { syncPolicy: 'write', memory })
    await disk.image.write(fill(4096, 1), 0)
    const ask = (): Promise<void> => {
      if (request === 'discard') return disk.image.discard(0, 4096)
      if (request === 'resize') return disk.image.resize(options.size + 4096, { shrink: false })
      return disk.image.writeZeroes(0, 4096, { unmap: true })
    }
    isFull = true
    // The second one finds in memory what it asks for; the file does not have it.
    for (let time = 0; time < 2; time++) await t.throwsAsync(ask(), { code: 'ERR_NO_SPACE' }, String(time))
    isFull = false
    await ask()
    t.true(disk.backend.inner.durableSection > 0)
    await checkedByQemu(t, disk)
  })
}
