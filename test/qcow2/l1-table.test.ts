import test from 'ava'
import { hostOffset } from '../../lib/base/units.js'
import { makeGeometry } from '../../lib/qcow2/geometry.js'
import { L1Table } from '../../lib/qcow2/l1-table.js'

const geometry = makeGeometry(9, 4)

/** A table of `entries` entries at 0x600, padded to whole slices of 512 bytes. */
function makeTable(entries: number): { table: L1Table; bytes: Uint8Array } {
  const bytes = new Uint8Array(Math.ceil((entries * 8) / 512) * 512)
  return { table: new L1Table(geometry, hostOffset(0x600), entries, bytes), bytes }
}

test('an entry names its table, and one behind the end none', (t) => {
  const { table, bytes } = makeTable(65)
  bytes.set(Buffer.from('8000000000000a00', 'hex'), 64 * 8)
  bytes.set(Buffer.from('8000000000000c00', 'hex'), 65 * 8)
  t.is(table.table(0), undefined)
  t.deepEqual(table.table(64), { host: hostOffset(0xa00), copied: true })
  t.is(table.table(65), undefined, 'what follows the last entry is none')
})

test('a damaged entry is reported with its place in the file', (t) => {
  const { table, bytes } = makeTable(2)
  bytes.set(Buffer.from('8000000000000a01', 'hex'), 8)
  const error = t.throws(() => table.table(1), { code: 'ERR_CORRUPT' })
  t.like(error, { offset: 0x608, structure: 'L1 entry' })
})

test('a change returns the slice to be written: where it stands, with the entry in it', (t) => {
  const { table } = makeTable(130)
  const set = table.setTable(65, hostOffset(0x1234560000))
  t.is(set.host, 0x800)
  t.is(set.bytes.length, 512)
  t.is(Buffer.from(set.bytes.subarray(8, 16)).toString('hex'), '8000001234560000')
  const cleared = table.clear(65)
  t.is(cleared.host, 0x800)
  t.true(cleared.bytes.every((byte) => byte === 0))
})

test('the table takes whole clusters of the file', (t) => {
  t.is(makeTable(1).table.length, 512)
  t.is(makeTable(64).table.length, 512)
  t.is(makeTable(65).table.length, 1024)
})

test('a table that moved is read and changed at its new place', (t) => {
  const { table } = makeTable(1)
  const larger = new Uint8Array(1024)
  larger.set(Buffer.from('8000000000000a00', 'hex'), 64 * 8)
  table.replace(hostOffset(0x4000), 128, larger)
  t.is(table.entries, 128)
  t.deepEqual(table.table(64), { host: hostOffset(0xa00), copied: true })
  t.is(table.setTable(64, hostOffset(0xc00)).host, 0x4200)
})
