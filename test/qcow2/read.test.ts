import test from 'ava'
import { checkedClean, fill, newDisk, readDisk, reopen, source } from '../support/qcow2-disk.js'

const options = { size: 65536, clusterSize: 4096 } as const

test('an empty disk reads as zeros', async (t) => {
  const disk = await newDisk(options)
  t.deepEqual(await readDisk(disk, 100, 20000), fill(20000, 0))
})

test('one read goes through data, zeros, holes and the backing file', async (t) => {
  const disk = await newDisk(options, { backing: source(fill(30000, 7)) })
  await disk.image.write(fill(4096, 1), 4096)
  await disk.image.writeZeroes(8192, 4096, { unmap: true })
  await disk.image.writeZeroes(16384, 100, { unmap: true })
  const seen = await readDisk(disk, 4000, 36000)
  const expected = fill(36000, 7)
  expected.fill(1, 4096 - 4000, 8192 - 4000)
  expected.fill(0, 8192 - 4000, 12288 - 4000)
  expected.fill(0, 16384 - 4000, 16484 - 4000)
  expected.fill(0, 30000 - 4000)
  t.deepEqual(seen, expected)
  await checkedClean(t, disk)
})

test('behind the end of a shorter backing file are zeros, also within a cluster', async (t) => {
  const disk = await newDisk(options, { backing: source(fill(5000, 7)) })
  const seen = await readDisk(disk, 4096, 4096)
  t.deepEqual(seen, new Uint8Array([...fill(904, 7), ...fill(3192, 0)]))
  t.deepEqual(await readDisk(disk, 8192, 100), fill(100, 0))
})

test('the tables are loaded when they are first needed, each slice once for all who wait', async (t) => {
  const disk = await newDisk(options)
  await disk.image.write(fill(65536, 1), 0)
  await reopen(disk)
  const seen = await Promise.all([
    readDisk(disk, 0, 100),
    readDisk(disk, 5000, 100),
    readDisk(disk, 60000, 100),
  ])
  t.true(seen.every((bytes) => bytes.every((byte) => byte === 1)))
  t.is(disk.backend.log.filter(({ kind }) => kind === 'readQueued').length, 1)
  await checkedClean(t, disk)
})

test('a read whose first part fails while a table is loaded for the rest fails, and nothing else does', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 512 })
  await disk.image.write(fill(512, 1), 32768 - 512)
  await disk.image.write(fill(512, 2), 32768)
  await reopen(disk)
  await readDisk(disk, 32768 - 512, 512)
  const failure = new Error('a bad sector')
  disk.backend.fail(({ kind }) => kind === 'read', failure)
  const load = disk.backend.hold(({ kind }) => kind === 'readQueued')
  // A rejection that nobody handles would end the process here.
  const unhandled: unknown[] = []
  const listener = (reason: unknown): void => void unhandled.push(reason)
  process.on('unhandledRejection', listener)
  const reading = t.throwsAsync(readDisk(disk, 32768 - 512, 1024), { is: failure })
  await load.reached
  await new Promise((resolve) => setTimeout(resolve, 20))
  load.release()
  await reading
  process.off('unhandledRejection', listener)
  t.deepEqual(unhandled, [])
})

test('a buffer is not written to any more when its read has failed', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 512 })
  await disk.image.write(fill(512, 1), 32768 - 512)
  await disk.image.write(fill(512, 2), 32768)
  await reopen(disk)
  const slow = disk.backend.hold(({ kind }) => kind === 'read')
  disk.backend.fail(({ kind, offset }) => kind === 'readQueued' && offset > 0, new Error('a bad table'), 1)
  const loaded = await readDisk(disk, 0, 512).catch(() => undefined)
  t.is(loaded, undefined, 'the first table could not be loaded')
  slow.release()
})

test('an entry that points to nowhere is told with its place, and only whoever reads there is hurt', async (t) => {
  const disk = await newDisk(options)
  await disk.image.write(fill(8192, 1), 0)
  await disk.image.flush()
  const table = disk.parts.l1.table(0)?.host ?? 0
  await disk.backend.write(Uint8Array.from(Buffer.from('8100000000005000', 'hex')), table + 8)
  await reopen(disk)
  t.deepEqual(await readDisk(disk, 0, 4096), fill(4096, 1))
  const error = await t.throwsAsync(readDisk(disk, 4096, 10), {
    code: 'ERR_CORRUPT',
    message: /reserved bits/,
  })
  t.like(error, { offset: table + 8, structure: 'L2 entry' })
})
