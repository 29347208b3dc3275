import test, { type ExecutionContext } from 'ava'
import { SectorCipher } from '../../lib/luks/sector-cipher.js'
import type { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import {
  checkedClean,
  type Disk,
  fill,
  newDisk,
  openDisk,
  readAll,
  readDisk,
  reopen,
  source,
} from '../support/qcow2-disk.js'

/* Extended L2 entries whose clusters stand in a data file, and encrypted ones there. */

const cluster = 16384
const sub = cluster / 32
const size = 8 * cluster
const plain = { size, clusterSize: cluster, extendedL2: true, dataFile: 'data' } as const
const raw = { ...plain, dataFileRaw: true } as const

const cipher = new SectorCipher(
  { cipherAlg: 'aes-256', cipherMode: 'xts', ivgenAlg: 'plain64', ivgenHashAlg: undefined },
  Uint8Array.from({ length: 64 }, (_, index) => index),
)

function dataOf(disk: Disk): MemoryBackend {
  if (disk.data === undefined) throw new Error('the image has a data file')
  return disk.data
}

/** Entry `index` of the only L2 table, of an image that is closed. */
function entryOf(disk: Disk, index: number): string {
  const bytes = Buffer.from(disk.memory.snapshot())
  return bytes.subarray(4 * cluster + index * 16, 4 * cluster + (index + 1) * 16).toString('hex')
}

async function sameInBoth(t: ExecutionContext, disk: Disk): Promise<void> {
  const bytes = new Uint8Array(disk.image.size)
  bytes.set(dataOf(disk).snapshot().subarray(0, bytes.length))
  t.true(Buffer.from(await readAll(disk)).equals(bytes))
}

test('subclusters of the first cluster stand at offset 0, which COPIED tells from nothing', async (t) => {
  const disk = await newDisk(plain, { dataContents: SparseBytes.from(fill(size, 9)) })
  t.deepEqual(await readAll(disk), fill(size, 0))
  await disk.image.write(fill(100, 1), 2 * sub + 50)
  await disk.image.write(fill(sub, 2), 5 * cluster)
  t.deepEqual(await disk.image.mapping(2 * sub, sub), { type: 'data', length: sub, hostOffset: 2 * sub })
  t.deepEqual(await disk.image.mapping(0, 2 * sub), { type: 'unallocated', length: 2 * sub, hostOffset: 0 })
  await reopen(disk)
  t.deepEqual(
    await readDisk(disk, 2 * sub, sub),
    fill(sub, 0).fill(1, 50, 150),
    'what was there does not show',
  )
  t.deepEqual(await readDisk(disk, 3 * sub, cluster), fill(cluster, 0))
  t.deepEqual(await readDisk(disk, 5 * cluster, 2 * sub), fill(2 * sub, 0).fill(2, 0, sub))
  t.is(dataOf(disk).snapshot()[3 * sub], 9, 'nor is it touched')
  await checkedClean(t, disk)
  t.is(entryOf(disk, 0), '80000000000000000000000000000004')
})

test('around a write only its subcluster is copied from the backing file', async (t) => {
  const disk = await newDisk(plain, { backing: source(fill(size, 7)) })
  await disk.image.write(fill(10, 1), sub + 5)
  await disk.image.write(fill(cluster, 2), cluster + 5 * sub)
  const expected = fill(size, 7)
    .fill(1, sub + 5, sub + 15)
    .fill(2, cluster + 5 * sub, 2 * cluster + 5 * sub)
  t.deepEqual(await readAll(disk), expected)
  const left = dataOf(disk).snapshot()
  t.deepEqual([left[sub - 1], left[sub], left[2 * sub]], [0, 7, 0])
  await checkedClean(t, disk)
  t.is(entryOf(disk, 2), '8000000000008000000000000000001f')
})

test('zeroed subclusters keep the cluster; discarded clusters are given back to the host', async (t) => {
  const disk = await newDisk(plain)
  await disk.image.write(fill(3 * cluster, 1), 0)
  await disk.image.writeZeroes(sub, 2 * sub, { unmap: false })
  await disk.image.discard(cluster, cluster)
  await disk.image.writeZeroes(2 * cluster, cluster, { unmap: true })
  const expected = fill(3 * cluster, 0)
  expected.fill(1, 0, sub).fill(1, 3 * sub, cluster)
  t.deepEqual(await readDisk(disk, 0, 3 * cluster), expected)
  const left = dataOf(disk).snapshot()
  t.deepEqual([left[sub], left[cluster], left[2 * cluster]], [1, 0, 0])
  await disk.image.write(fill(10, 2), sub + 1)
  t.deepEqual(await readDisk(disk, sub, 2 * sub), fill(2 * sub, 0).fill(2, 1, 11), 'what was kept is garbage')
  await disk.image.write(fill(10, 3), cluster + 1)
  t.deepEqual(await readDisk(disk, cluster, sub), fill(sub, 0).fill(3, 1, 11))
  await checkedClean(t, disk)
})

test('a raw data file is the disk, by subclusters too', async (t) => {
  for (const isMapped of [true, false]) {
    const disk = await newDisk(raw)
    await dataOf(disk).truncate(size)
    if (isMapped) await disk.image.preallocate('metadata')
    const works: (() => Promise<void>)[] = [
      () => disk.image.write(fill(3 * cluster, 1), 100),
      () => disk.image.writeZeroes(700, 3 * sub, { unmap: false }),
      () => disk.image.writeZeroes(sub, sub, { unmap: true }),
      () => disk.image.discard(cluster, cluster),
      () => disk.image.writeZeroes(2 * cluster, cluster, { unmap: false }),
      () => disk.image.write(fill(70, 2), 6 * cluster + 5),
      () => disk.image.resize(5 * cluster + 512, { shrink: true }),
      () => disk.image.resize(size, { shrink: false }),
      () => disk.image.write(fill(sub, 3), size - sub),
    ]
    for (const work of works) {
      await work()
      await sameInBoth(t, disk)
    }
    t.deepEqual(await readDisk(disk, 2 * cluster, sub), fill(sub, 0))
    await checkedClean(t, disk)
  }
})

test('subclusters of a raw data file are mapped durably before bytes go into them', async (t) => {
  const disk = await newDisk(raw)
  await dataOf(disk).truncate(size)
  await disk.image.preallocate('metadata')
  await disk.image.flush()
  const mapped = disk.backend.hold(({ kind }) => kind === 'durable')
  const write = disk.image.write(fill(100, 1), cluster + 10)
  await mapped.reached
  t.deepEqual(
    dataOf(disk)
      .snapshot()
      .subarray(cluster, cluster + sub),
    fill(sub, 0),
  )
  mapped.release()
  await write
  t.deepEqual(await disk.image.mapping(cluster, sub), { type: 'data', length: sub, hostOffset: cluster })
  await sameInBoth(t, disk)
  await checkedClean(t, disk)
})

test('bits of a cluster that is not there, and a cluster that stands elsewhere, are damage', async (t) => {
  const disk = await newDisk(plain)
  await disk.image.write(fill(2 * cluster, 1), 0)
  await disk.image.close()
  const bytes = disk.memory.snapshot()
  const view = new DataView(bytes.buffer)
  const table = 4 * cluster
  t.is(view.getUint32(table), 0x80000000, 'offset 0, COPIED')
  view.setUint32(table, 0)
  view.setUint32(table + 16 + 4, 5 * cluster)
  const odd = await openDisk(SparseBytes.from(bytes), { dataContents: dataOf(disk).contents })
  await t.throwsAsync(readDisk(odd, 0, sub), {
    code: 'ERR_CORRUPT',
    message: /subclusters are allocated in a cluster that is not/,
  })
  const elsewhere = {
    code: 'ERR_CORRUPT',
    message: /External data file host cluster offset 0x14000 does not match guest cluster offset: 0x4000/,
  } as const
  await t.throwsAsync(readDisk(odd, cluster, sub), elsewhere)
  await t.throwsAsync(odd.image.write(fill(sub, 1), cluster), { code: 'ERR_CORRUPT' })
})

for (const extendedL2 of [false, true]) {
  const kind = extendedL2 ? ', by subclusters' : ''
  test(`encrypted bytes stand in the data file, and zeros are not noise${kind}`, async (t) => {
    const create = { ...plain, extendedL2 }
    const disk = await newDisk(create, { cipher, dataContents: SparseBytes.from(fill(size, 9)) })
    t.deepEqual(await readAll(disk), fill(size, 0))
    await disk.image.write(fill(100, 1), 50)
    await disk.image.write(fill(3 * cluster, 2), 2 * cluster + 700)
    await disk.image.writeZeroes(2 * cluster + 900, 1000, { unmap: false })
    await disk.image.resize(size + 700 * 512, { shrink: false })
    await disk.image.write(fill(512, 3), size + 700 * 512 - 512)
    const expected = fill(size + 700 * 512, 0)
    expected.fill(1, 50, 150).fill(2, 2 * cluster + 700, 5 * cluster + 700)
    expected.fill(0, 2 * cluster + 900, 2 * cluster + 1900).fill(3, size + 700 * 512 - 512)
    t.true(Buffer.from(await readAll(disk)).equals(expected))
    await disk.image.flush()
    const left = dataOf(disk).snapshot()
    t.false(Buffer.from(left.subarray(0, 512)).equals(fill(512, 0).fill(1, 50, 150)), 'not as it is')
    const decrypted = new Uint8Array(512)
    cipher.decrypt(left.slice(0, 512), decrypted, 0)
    t.deepEqual(decrypted, fill(512, 0).fill(1, 50, 150), 'by its place in the data file')
    await checkedClean(t, disk)
  })

  test(`what is encrypted is punched when its mapping is durably gone${kind}`, async (t) => {
    const disk = await newDisk({ ...plain, extendedL2 }, { cipher })
    await disk.image.write(fill(2 * cluster, 1), 0)
    await disk.image.flush()
    const removed = disk.backend.hold(({ kind: call }) => call === 'durable')
    const discarded = disk.image.discard(cluster, cluster)
    await removed.reached
    const held = (): Uint8Array =>
      dataOf(disk)
        .snapshot()
        .subarray(cluster, 2 * cluster)
    t.false(Buffer.from(held()).equals(fill(cluster, 0)), 'a crash shows the old bytes')
    removed.release()
    await discarded
    t.deepEqual(new Uint8Array(held()), fill(cluster, 0))
    t.deepEqual(await readDisk(disk, cluster, cluster), fill(cluster, 0))
    t.deepEqual(await readDisk(disk, 0, cluster), fill(cluster, 1))
    await checkedClean(t, disk)
  })
}
