import test from 'ava'
import {
  checkContents,
  checkedByQemu,
  checkedClean,
  type Disk,
  fill,
  newDisk,
  readDisk,
  settle,
} from '../support/qcow2-disk.js'
import type { Operation } from '../support/staged-backend.js'

/** 512 clusters of 4 KiB, of which 16 are reserved at a time, with zeros. */
const newDisk4k = (): Promise<Disk> =>
  newDisk({ size: 2 ** 21, clusterSize: 4096 }, { reservation: 16, preallocation: 'full' })

/** As long as what is reserved: nothing that a guest writes here is. */
const isOfZeros = ({ kind, length }: Operation): boolean => kind === 'write' && length === 16 * 4096

const zerosOf = ({ backend }: Disk): Operation[] => backend.log.filter(isOfZeros)

/** Writes to clusters `from` to, not with, `to`, a flush behind each `each` of them. */
async function write(disk: Disk, from: number, to: number, each = 1): Promise<void> {
  for (let cluster = from; cluster < to; cluster++) {
    await disk.image.write(fill(100, cluster), cluster * 4096 + 50)
    if (cluster % each === each - 1) await disk.image.flush()
    await settle()
  }
}

test('while writes are flushed one by one, what is reserved is written with zeros', async (t) => {
  const disk = await newDisk4k()
  await write(disk, 0, 100)
  const reserved = disk.backend.log.filter(({ kind }) => kind === 'allocate')
  t.true(reserved.length > 5)
  const places = (operations: Operation[]): number[] => operations.map(({ offset }) => offset)
  t.deepEqual(places(zerosOf(disk)), places(reserved).slice(1), 'all but the first, before which no sync was')
  const bytes = await readDisk(disk, 77 * 4096, 4096)
  t.deepEqual([bytes[49], bytes[50], bytes[149], bytes[150]], [0, 77, 77, 0])
  await checkedByQemu(t, disk)
})

test('an allocating write and its flush cost one sync as before', async (t) => {
  const disk = await newDisk4k()
  await write(disk, 0, 32)
  const before = disk.image.stats().syncsIssued
  await write(disk, 32, 64)
  t.is(disk.image.stats().syncsIssued - before, 32)
  t.true(zerosOf(disk).length >= 3)
})

test('no zeros are written for writes without flushes', async (t) => {
  const disk = await newDisk4k()
  await write(disk, 0, 200, 1000)
  t.is(zerosOf(disk).length, 0)
  await checkedClean(t, disk)
})

test('they are at most 96 KiB for each sync', async (t) => {
  // Of 64 KiB each: 16 are reserved at a time, which is the zeros of 11 syncs.
  for (const [each, pays] of [
    [1, true],
    [2, false],
    [8, false],
  ] as const) {
    const disk = await newDisk(
      { size: 2 ** 24, clusterSize: 65536 },
      { reservation: 16, preallocation: 'full' },
    )
    for (let cluster = 0; cluster < 128; cluster++) {
      await disk.image.write(fill(100, 1), cluster * 65536)
      if (cluster % each === each - 1) await disk.image.flush()
      await settle()
    }
    const zeros = disk.backend.log.filter(({ kind, length }) => kind === 'write' && length === 256 * 1024)
    t.is(zeros.length > 0, pays, `a flush for each ${each}`)
    t.is(zeros.length % 4, 0, 'four pieces at a time')
    await checkedClean(t, disk)
  }
})

test('nothing is given out before its zeros are written', async (t) => {
  const disk = await newDisk4k()
  await write(disk, 0, 2)
  const filling = disk.backend.hold(isOfZeros)
  await write(disk, 2, 12)
  const { offset, length } = await filling.reached
  await write(disk, 12, 60)
  const meanwhile = await disk.parts.allocator.allocate(1)
  t.true(meanwhile.host >= offset + length)
  filling.release()
  await settle()
  const { host } = await disk.parts.allocator.allocate(1)
  t.is(host, offset as never)
  for (const cluster of [11, 12, 59]) t.is((await readDisk(disk, cluster * 4096 + 50, 1))[0], cluster)
})

test('where zeros cannot be written, writes go on without, and it is tried again later', async (t) => {
  const disk = await newDisk4k()
  disk.backend.fail(isOfZeros, new Error('no room'))
  await write(disk, 0, 150)
  t.true(zerosOf(disk).length >= 3, 'tried again')
  t.true(zerosOf(disk).length <= 10, 'but not for each write')
  for (const cluster of [5, 60, 149]) t.is((await readDisk(disk, cluster * 4096 + 50, 1))[0], cluster)
  await checkedByQemu(t, disk)
})

test('closing waits for the zeros, and gives them back', async (t) => {
  const disk = await newDisk4k()
  await write(disk, 0, 2)
  const filling = disk.backend.hold(isOfZeros)
  await write(disk, 2, 12)
  await filling.reached
  const closing = disk.image.close()
  await settle()
  filling.release()
  await closing
  // Header, refcount table, refcount block, L1, L2 table, and the clusters of data.
  t.is(disk.memory.contents.length, 17 * 4096)
  t.is((await checkContents(disk.memory.contents)).leaks, 0)
})
