import test, { type ExecutionContext } from 'ava'
import { autoclear } from '../../lib/qcow2/spec.js'
import { readHeader } from '../../lib/qcow2/open-metadata.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import {
  checkedClean,
  type Disk,
  type DiskOptions,
  fill,
  imageBytes,
  newDisk,
  openDisk,
  readAll,
  readDisk,
  reopen,
  settle,
  source,
} from '../support/qcow2-disk.js'

const size = 64 * 4096
const plain = { size, clusterSize: 4096, dataFile: 'data' } as const
const raw = { ...plain, dataFileRaw: true } as const

function dataOf(disk: Disk): MemoryBackend {
  if (disk.data === undefined) throw new Error('the image has a data file')
  return disk.data
}

/** As createImage makes it: mapped as a whole. */
async function newRawDisk(options: DiskOptions = {}): Promise<Disk> {
  const disk = await newDisk(raw, options)
  await dataOf(disk).truncate(size)
  await disk.image.preallocate('metadata')
  await disk.image.flush()
  return disk
}

/** What the data file holds is what the guest sees. */
async function sameInBoth(t: ExecutionContext, disk: Disk): Promise<void> {
  const bytes = new Uint8Array(disk.image.size)
  bytes.set(dataOf(disk).snapshot().subarray(0, bytes.length))
  t.deepEqual(Buffer.from(await readAll(disk)).equals(bytes), true)
}

test('a cluster stands where the guest has it, the first one too; the image holds tables only', async (t) => {
  const disk = await newDisk(plain)
  await disk.image.write(fill(5000, 1), 0)
  await disk.image.write(fill(100, 2), 5 * 4096 + 50)
  t.deepEqual(await disk.image.mapping(0, 100), { type: 'data', length: 100, hostOffset: 0 })
  t.deepEqual(await disk.image.mapping(5 * 4096, 4096), { type: 'data', length: 4096, hostOffset: 5 * 4096 })
  t.deepEqual(dataOf(disk).snapshot().subarray(0, 5000), fill(5000, 1))
  await reopen(disk)
  t.deepEqual(await readDisk(disk, 0, 5000), fill(5000, 1))
  t.deepEqual(await readDisk(disk, 5 * 4096, 200), new Uint8Array(200).fill(2, 50, 150))
  await checkedClean(t, disk)
  t.true(disk.memory.length <= 6 * 4096, 'header, two for counts, L1, L2')
})

test('what a data file held before is not shown around a write', async (t) => {
  const disk = await newDisk(plain, { dataContents: SparseBytes.from(fill(size, 9)) })
  t.deepEqual(await readDisk(disk, 0, size), fill(size, 0))
  await disk.image.write(fill(10, 1), 4096 + 5)
  t.deepEqual(await readDisk(disk, 4096, 20), new Uint8Array(20).fill(1, 5, 15))
  t.deepEqual(await readDisk(disk, 8000, 192), fill(192, 0))
  await checkedClean(t, disk)
})

test('old bytes are copied from the backing file around a write; a shorter data file reads as zeros', async (t) => {
  const disk = await newDisk(plain, { backing: source(fill(size, 7)) })
  await disk.image.write(fill(10, 1), 4096)
  const expected = fill(size, 7)
  expected.fill(1, 4096, 4106)
  t.deepEqual(await readAll(disk), expected)
  await disk.image.flush()
  await dataOf(disk).truncate(4096 + 5)
  await reopen(disk, { backing: source(fill(size, 7)) })
  t.deepEqual(await readDisk(disk, 4096, 4096), new Uint8Array(4096).fill(1, 0, 5))
  await checkedClean(t, disk)
})

test('an allocating write and a flush cost one sync of each file; an idle file is not synced', async (t) => {
  const disk = await newDisk(plain)
  await disk.image.write(fill(4096, 1), 0)
  await disk.image.flush()
  const syncs = (): [own: number, data: number] => [
    disk.memory.stats().syncsIssued,
    dataOf(disk).stats().syncsIssued,
  ]
  let before = syncs()
  const since = (): [number, number] => {
    const now = syncs()
    const difference: [number, number] = [now[0] - before[0], now[1] - before[1]]
    before = now
    return difference
  }
  for (let cluster = 1; cluster < 9; cluster++) await disk.image.write(fill(4096, cluster), cluster * 4096)
  t.deepEqual(since(), [0, 0], 'nobody waits for a sync')
  await disk.image.flush()
  t.deepEqual(since(), [1, 1], 'eight allocations: the data, then the mappings')
  await disk.image.write(fill(4096, 1), 0)
  await disk.image.flush()
  t.deepEqual(since(), [0, 1], 'written in place: the data alone')
  await disk.image.writeZeroes(0, 4096, { unmap: false })
  await disk.image.flush()
  t.deepEqual(since(), [1, 0], 'a flag of the tables alone')
  await disk.image.flush()
  t.deepEqual(since(), [0, 0], 'nothing has changed')
  t.is(disk.image.stats().syncsIssued, before[0] + before[1])
  await checkedClean(t, disk)
})

test('where every write is synced, data are before their mapping, and both before the write completes', async (t) => {
  const disk = await newDisk(plain, { syncPolicy: 'write' })
  await disk.image.write(fill(4096, 1), 8192)
  t.is(dataOf(disk).stats().syncsIssued, 1)
  const { durableSection } = disk.memory
  t.true(durableSection > 0 && disk.memory.stats().queuedNodesNow === 0)
  await disk.image.write(fill(4096, 2), 8192)
  t.is(dataOf(disk).stats().syncsIssued, 2)
  await checkedClean(t, disk)
})

test('where nothing is synced neither file is', async (t) => {
  const disk = await newDisk(plain, { syncPolicy: 'never' })
  await disk.image.write(fill(4096, 1), 8192)
  await disk.image.flush()
  await disk.image.close()
  t.deepEqual([disk.memory.stats().syncsIssued, dataOf(disk).stats().syncsIssued], [0, 0])
})

test('a failed sync of the data file poisons the image: nothing is written any more, nothing new is read', async (t) => {
  const data = new MemoryBackend({ path: 'data', fault: ({ kind }) => (kind === 'sync' ? 5 : undefined) })
  const contents = await imageBytes(plain)
  const memory = new MemoryBackend({ contents })
  const { openQcow2 } = await import('../../lib/qcow2/image.js')
  const image = await openQcow2(memory, { readOnly: false, reservation: 0, dataFile: data })
  await image.write(fill(4096, 1), 4096)
  await t.throwsAsync(image.flush(), { code: 'ERR_POISONED' })
  await t.throwsAsync(image.write(fill(4096, 1), 4096), { code: 'ERR_POISONED' })
  await t.throwsAsync(data.write(fill(1, 1), 0), { code: 'ERR_POISONED' })
  await t.throwsAsync(image.read(fill(512, 0), 4096), { code: 'ERR_POISONED' }, 'filled and not durable')
  await t.notThrowsAsync(image.read(fill(512, 0), 0))
  await t.throwsAsync(image.close(), { code: 'ERR_POISONED' })
  const { image: left } = await openDisk(memory.contents, { dataContents: data.contents })
  const bytes = fill(4096, 0xee)
  await left.read(bytes, 4096)
  t.deepEqual(bytes, fill(4096, 0), 'the mapping was never written')
})

test('discarding gives the bytes back and zeroing keeps them; both read as zeros', async (t) => {
  const disk = await newDisk(plain)
  await disk.image.write(fill(4 * 4096, 1), 0)
  await disk.image.writeZeroes(0, 4096, { unmap: false })
  await disk.image.discard(4096, 4096)
  await disk.image.writeZeroes(2 * 4096, 4096, { unmap: true })
  t.deepEqual(await readDisk(disk, 0, 4 * 4096), new Uint8Array(4 * 4096).fill(1, 3 * 4096))
  const left = dataOf(disk).snapshot()
  t.deepEqual([left[0], left[4096], left[2 * 4096], left[3 * 4096]], [1, 0, 0, 1])
  t.deepEqual(await disk.image.mapping(0, 4096), { type: 'zero', length: 4096, hostOffset: 0 })
  t.deepEqual(await disk.image.mapping(4096, 8192), { type: 'zero', length: 8192, hostOffset: undefined })
  await disk.image.write(fill(10, 2), 5)
  t.deepEqual(await readDisk(disk, 0, 30), new Uint8Array(30).fill(2, 5, 15), 'kept for zeros is garbage')
  await checkedClean(t, disk)
})

test('a write that comes while a discard still punches does not lose its bytes', async (t) => {
  const disk = await newDisk(plain)
  await disk.image.write(fill(4096, 1), 0)
  const discarded = disk.image.discard(0, 4096)
  const written = disk.image.write(fill(4096, 2), 0)
  await Promise.all([discarded, written])
  await disk.image.flush()
  await settle()
  t.deepEqual(await readDisk(disk, 0, 4096), fill(4096, 2))
  await checkedClean(t, disk)
})

test('the data file grows before the disk and shrinks after it', async (t) => {
  const disk = await newDisk(plain)
  await dataOf(disk).truncate(size)
  await disk.image.write(fill(4096, 1), size - 4096)
  await disk.image.resize(2 * size, { shrink: false })
  t.is(dataOf(disk).contents.length, 2 * size)
  await disk.image.write(fill(4096, 2), 2 * size - 4096)
  await disk.image.resize(size - 512, { shrink: true })
  t.is(dataOf(disk).contents.length, size - 512)
  await disk.image.resize(size, { shrink: false })
  t.deepEqual(await readDisk(disk, size - 4096, 4096), new Uint8Array(4096).fill(1, 0, 4096 - 512))
  await checkedClean(t, disk)
})

test('a data file that is longer than the disk does not show what it has there when the disk grows', async (t) => {
  for (const create of [plain, raw]) {
    const disk = await newDisk(create, { dataContents: SparseBytes.from(fill(2 * size, 9)) })
    await disk.image.resize(2 * size, { shrink: false })
    t.deepEqual(await readDisk(disk, size, size), fill(size, 0))
    await checkedClean(t, disk)
  }
})

test('a raw data file is the disk, whatever is done to it', async (t) => {
  const disk = await newRawDisk()
  await disk.image.write(fill(8 * 4096, 1), 0)
  await disk.image.writeZeroes(100, 200, { unmap: false })
  await disk.image.writeZeroes(4096, 4096, { unmap: false })
  await disk.image.writeZeroes(2 * 4096, 4096, { unmap: true })
  await disk.image.discard(3 * 4096, 4096)
  await sameInBoth(t, disk)
  t.deepEqual(await disk.image.mapping(0, size), { type: 'data', length: size, hostOffset: 0 })
  await disk.image.resize(size + 4096, { shrink: false })
  await disk.image.write(fill(4096, 3), size)
  await sameInBoth(t, disk)
  t.deepEqual(await disk.image.mapping(size, 4096), { type: 'data', length: 4096, hostOffset: size })
  await disk.image.resize(4096 + 512, { shrink: true })
  await sameInBoth(t, disk)
  t.is(dataOf(disk).contents.length, 4096 + 512)
  await checkedClean(t, disk)
  const { header } = await readHeader(new MemoryBackend({ contents: disk.memory.contents }))
  t.is(header.autoclearFeatures, autoclear.dataFileRaw, 'the promise is kept')
})

test('clusters of a raw data file are mapped durably before bytes go into them', async (t) => {
  // Not preallocated, as QEMU leaves what it has made zeros.
  const disk = await newDisk(raw, { dataContents: SparseBytes.from(fill(size, 9)) })
  const written = disk.backend.hold(({ kind }) => kind === 'durable')
  const write = disk.image.write(fill(100, 1), 4096 + 10)
  await written.reached
  t.deepEqual(dataOf(disk).snapshot().subarray(4096, 8192), fill(4096, 0), 'zeros, and none of the new bytes')
  written.release()
  await write
  t.deepEqual(await readDisk(disk, 4096, 200), new Uint8Array(200).fill(1, 10, 110))
  t.deepEqual(dataOf(disk).snapshot().subarray(4096, 4296), new Uint8Array(200).fill(1, 10, 110))
  await checkedClean(t, disk)
})

test('what is mapped behind the end of a raw data file that was cut short counts as no bytes', async (t) => {
  const disk = await newDisk(raw, { dataContents: SparseBytes.from(fill(2 * 4096, 9)) })
  const { unsyncedData } = disk.parts
  const add = unsyncedData.add.bind(unsyncedData)
  const lengths: number[] = []
  unsyncedData.add = (host, length, section) => {
    lengths.push(length)
    add(host, length, section)
  }
  await disk.image.write(fill(3 * 4096, 1), 4096)
  await disk.image.write(fill(4096, 2), 6 * 4096)
  t.true(lengths.length > 0)
  t.true(
    lengths.every((length) => length > 0),
    lengths.join(' '),
  )
  t.deepEqual(await readDisk(disk, 4096, 3 * 4096), fill(3 * 4096, 1))
  t.deepEqual(await readDisk(disk, 6 * 4096, 4096), fill(4096, 2))
})

test('a raw data file over a backing file is no such promise', async (t) => {
  const disk = await newDisk(
    { ...plain, backingFile: 'base', backingFormat: 'raw' },
    { backing: source(fill(size, 7)) },
  )
  await disk.image.flush()
  // As nobody makes it: the bit beside a backing file.
  const { header } = await readHeader(disk.memory)
  t.is(header.autoclearFeatures, 0n)
  await disk.image.close()
  const bytes = disk.memory.snapshot()
  bytes[95] = 2
  const odd = await openDisk(SparseBytes.from(bytes), { backing: source(fill(size, 7)) })
  await odd.image.write(fill(10, 1), 4096)
  t.deepEqual(await readDisk(odd, 4096, 20), fill(20, 7).fill(1, 0, 10))
  await odd.image.close()
  const after = await readHeader(new MemoryBackend({ contents: odd.memory.contents }))
  t.is(after.header.autoclearFeatures, 0n)
})

test('what needs clusters that can be shared is refused by name', async (t) => {
  const disk = await newDisk(plain)
  const refused = {
    code: 'ERR_NOT_SUPPORTED',
    message: /cannot be in an image with an external data file/,
  } as const
  await t.throwsAsync(disk.image.writeCompressed(fill(4096, 1), 0), refused)
  await t.throwsAsync(disk.image.snapshots.creating('one', {})(), refused)
  await t.throwsAsync(disk.image.snapshots.applying('one', {})(), refused)
  await t.throwsAsync(disk.image.snapshots.deleting('one', {})(), refused)
  t.deepEqual(await disk.image.snapshots.list(), [])
  const rawDisk = await newRawDisk()
  await t.throwsAsync(rawDisk.image.rewriteBacking({ file: 'base', format: 'raw' }), refused)
  await checkedClean(t, disk)
})

test('preallocation maps all of the disk where it stands', async (t) => {
  for (const mode of ['metadata', 'falloc', 'full'] as const) {
    const disk = await newDisk(plain)
    await dataOf(disk).truncate(size)
    await disk.image.preallocate(mode)
    t.deepEqual(await disk.image.mapping(0, size), { type: 'data', length: size, hostOffset: 0 })
    await checkedClean(t, disk)
  }
})

test('an entry that leads elsewhere, or is compressed, is damage', async (t) => {
  const disk = await newDisk(plain)
  await disk.image.write(fill(3 * 4096, 1), 0)
  await disk.image.close()
  const bytes = disk.memory.snapshot()
  const view = new DataView(bytes.buffer)
  const table = 4 * 4096
  t.is(view.getUint32(table), 0x80000000, 'offset 0, COPIED')
  view.setUint32(table + 8 + 4, 5 * 4096)
  view.setUint32(table + 16, 0x40000000)
  const odd = await openDisk(SparseBytes.from(bytes), { dataContents: dataOf(disk).contents })
  await t.throwsAsync(readDisk(odd, 4096, 512), {
    code: 'ERR_CORRUPT',
    message: /External data file host cluster offset 0x5000 does not match guest cluster offset: 0x1000/,
  })
  await t.throwsAsync(odd.image.write(fill(10, 1), 4096), { code: 'ERR_CORRUPT' })
  await t.throwsAsync(readDisk(odd, 8192, 512), {
    code: 'ERR_CORRUPT',
    message: /compressed cluster with an external/,
  })
  t.deepEqual(await readDisk(odd, 0, 512), fill(512, 1))
})

test('without its data file an image is not opened', async (t) => {
  const { openQcow2 } = await import('../../lib/qcow2/image.js')
  const backend = new MemoryBackend({ contents: await imageBytes(plain) })
  await t.throwsAsync(openQcow2(backend, { readOnly: false }), {
    code: 'ERR_UNSUPPORTED_FEATURE',
    message: /external data file, which is not open/,
  })
})
