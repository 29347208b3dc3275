import test from 'ava'
import { hostOffset } from '../../lib/base/units.js'
import { makeGeometry } from '../../lib/qcow2/geometry.js'
import { storeCompressed, storeCopied } from '../../lib/qcow2/l2-entry.js'
import type { Slice } from '../../lib/qcow2/table-cache.js'
import { WildEntries } from '../../lib/qcow2/wild-entries.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { checkedByQemu, type Disk, fill, newDisk, openDisk, readDisk } from '../support/qcow2-disk.js'

const cluster = 65536
/** Sixteen slices of 512 entries in each table. */
const geometry = makeGeometry(16, 4)

function newSlice(host: number): Slice {
  const bytes = new Uint8Array(4096)
  const view = new DataView(bytes.buffer)
  return { host: hostOffset(host), bytes, view, pins: 0, recent: true, trusted: false, place: 0 }
}

test('a slice is looked at once, and trusted when it comes back with what this session has written', (t) => {
  const wild = new WildEntries(geometry, 10 * cluster)
  const slice = newSlice(2 * cluster)
  storeCopied(slice.view, 511 * 8, 9 * cluster)
  t.true(wild.areNone(slice, 3, 512))
  t.true(slice.trusted)
  storeCopied(slice.view, 0, 10 * cluster)
  slice.trusted = false
  t.true(wild.areNone(slice, 3, 1023), 'another entry of the same slice')
  slice.trusted = false
  t.false(wild.areNone(slice, 3, 1024), 'the next slice of the table')
  t.false(wild.areNone(slice, 3, 511), 'the one before')
  t.false(wild.areNone(slice, 100_000, 512), 'of a table far away')
  t.false(slice.trusted)
})

test('an entry behind the end of the file is found in its slice, and refused', (t) => {
  const wild = new WildEntries(geometry, 10 * cluster)
  const slice = newSlice(2 * cluster)
  storeCompressed(slice.view, 8, { host: 10 * cluster - 1, bytes: 1 }, 16)
  t.notThrows(() => wild.refuseChange(slice))
  storeCompressed(slice.view, 16, { host: 10 * cluster, bytes: 1 }, 16)
  t.throws(() => wild.refuseChange(slice), {
    code: 'ERR_CORRUPT',
    message: /131088.*655360 lies behind the end/,
  })
  t.throws(() => wild.refuse(10 * cluster, 0), { code: 'ERR_CORRUPT' })
  t.notThrows(() => wild.refuse(10 * cluster - 1, 0))
})

test('a table that this session has made is trusted as a whole', (t) => {
  const wild = new WildEntries(geometry, 10 * cluster)
  wild.trustNewTable(7)
  for (const index of [0, 8191]) {
    const slice = newSlice(20 * cluster)
    storeCopied(slice.view, 0, 30 * cluster)
    t.true(wild.areNone(slice, 7, index))
  }
  const other = newSlice(20 * cluster)
  storeCopied(other.view, 0, 30 * cluster)
  t.false(wild.areNone(other, 8, 0))
  t.false(wild.areNone(other, 6, 8191))
})

const kib = 1024

/** An image with a snapshot, whose first cluster holds 1 there and 2 on the disk, opened anew. @param change  of the file, of which it is told the snapshot's L2 table */
async function withSnapshot(change: (file: Buffer, table: number) => void): Promise<Disk> {
  const disk = await newDisk({ size: 1024 * kib, clusterSize: 4 * kib })
  await disk.image.write(fill(4 * kib, 1), 0)
  await disk.image.snapshots.creating('then', {})()
  await disk.image.write(fill(4 * kib, 2), 0)
  await disk.image.close()
  const file = Buffer.from(disk.memory.snapshot())
  const l1 = Number(file.readBigUInt64BE(Number(file.readBigUInt64BE(64))))
  change(file, Number(file.readBigUInt64BE(l1) & 0xffff_ffff_fe00n))
  return await openDisk(SparseBytes.from(file))
}

test('a snapshot that is applied is looked at, although what stood in its place was sound', async (t) => {
  let wild = 0
  const disk = await withSnapshot((file, table) => {
    wild = file.length + 20 * 4 * kib
    file.writeBigUInt64BE(BigInt(wild), table + 3 * 8)
  })
  t.deepEqual(await readDisk(disk, 0, 4 * kib), fill(4 * kib, 2))
  // Its cluster becomes somebody else's, and with a snapshot of that its count does not tell any more.
  await disk.image.write(fill(160 * kib, 7), 64 * kib)
  await disk.image.flush()
  t.true(disk.memory.length > wild)
  await disk.image.snapshots.creating('now', {})()
  await disk.image.snapshots.applying('then', {})()
  t.deepEqual(await readDisk(disk, 0, 4 * kib), fill(4 * kib, 1))
  await t.throwsAsync(readDisk(disk, 12 * kib, 4 * kib), {
    code: 'ERR_CORRUPT',
    message: /lies behind the end of the file as it was opened/,
  })
})

test('what this session has written is believed, whichever snapshot comes and goes', async (t) => {
  const disk = await withSnapshot(() => undefined)
  await disk.image.write(fill(160 * kib, 7), 64 * kib)
  await disk.image.snapshots.creating('now', {})()
  for (const [name, first, later] of [
    ['then', 1, 0],
    ['now', 2, 7],
    ['then', 1, 0],
  ] as const) {
    await disk.image.snapshots.applying(name, {})()
    t.deepEqual(await readDisk(disk, 0, 4 * kib), fill(4 * kib, first), name)
    t.deepEqual(await readDisk(disk, 64 * kib, 160 * kib), fill(160 * kib, later), name)
    await disk.image.write(fill(4 * kib, 9), 512 * kib)
    t.deepEqual(await readDisk(disk, 512 * kib, 4 * kib), fill(4 * kib, 9), name)
  }
  await checkedByQemu(t, disk)
})
