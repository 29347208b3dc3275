import test from 'ava'
import { hostOffset } from '../../lib/base/units.js'
import { makeGeometry } from '../../lib/qcow2/geometry.js'
import { RefcountTable } from '../../lib/qcow2/refcount-table.js'

/** One cluster of table at 0x10000 with the given entries, in hexadecimal. */
function makeTable(clusterBits: number, order: number, entries: Record<number, string>): RefcountTable {
  const bytes = new Uint8Array(2 ** clusterBits)
  for (const [index, hex] of Object.entries(entries)) bytes.set(Buffer.from(hex, 'hex'), Number(index) * 8)
  return new RefcountTable(makeGeometry(clusterBits, order), hostOffset(0x10000), bytes)
}

test('a cluster is counted by the block that its number falls to', (t) => {
  // 64 KiB clusters, 16 bits: 32768 counts in a block, 2048 in a slice of 4096 bytes.
  const table = makeTable(16, 4, { 0: '0000000000020000', 1: '0000000080000000' })
  t.deepEqual(table.place(0), { slice: hostOffset(0x20000), index: 0 })
  t.deepEqual(table.place(2047), { slice: hostOffset(0x20000), index: 2047 })
  t.deepEqual(table.place(2048), { slice: hostOffset(0x21000), index: 0 })
  t.deepEqual(table.place(32767), { slice: hostOffset(0x2f000), index: 2047 })
  t.deepEqual(table.place(32768), { slice: hostOffset(0x80000000), index: 0 })
})

test('a cluster without a block, or beyond the table, has no place: its count is 0', (t) => {
  const table = makeTable(9, 6, { 0: '0000000000000400' })
  t.is(table.entries, 64)
  t.deepEqual(table.place(63), { slice: hostOffset(0x400), index: 63 })
  t.is(table.place(64), undefined)
  t.is(table.place(64 * 64), undefined)
  t.is(table.blockIndex(64 * 64), 64)
})

test('counts of one bit: a block of 512 bytes counts 4096 clusters', (t) => {
  const table = makeTable(9, 0, { 1: '0000000000200000' })
  t.deepEqual(table.place(4096 + 4095), { slice: hostOffset(0x200000), index: 4095 })
})

test('an entry with reserved bits, a misaligned or an absurd offset is corrupt, and is named', (t) => {
  for (const hex of ['0000000000020001', '0000000000020200', '0020000000000000', 'ff00000000020000']) {
    const table = makeTable(16, 4, { 1: hex })
    const error = t.throws(() => table.block(1), { code: 'ERR_CORRUPT' }, hex)
    t.like(error, { structure: 'refcount table entry', offset: 0x10008 })
  }
})

test('entering a block returns the slice to be written', (t) => {
  const table = makeTable(16, 4, {})
  const changed = table.setBlock(513, hostOffset(0x1234560000))
  t.is(changed.host, 0x11000)
  t.is(changed.bytes.length, 4096)
  t.is(Buffer.from(changed.bytes.subarray(8, 16)).toString('hex'), '0000001234560000')
  t.is(table.block(513), hostOffset(0x1234560000))
})

test('a table that moved keeps its entries and takes more', (t) => {
  const table = makeTable(9, 6, { 0: '0000000000000400' })
  const larger = new Uint8Array(1024)
  larger.set(table.bytes)
  table.replace(hostOffset(0x8000), larger)
  t.is(table.host, hostOffset(0x8000))
  t.is(table.length, 1024)
  t.is(table.entries, 128)
  t.is(table.block(0), hostOffset(0x400))
  t.is(table.setBlock(64, hostOffset(0x200000)).host, 0x8200)
})
