import test from 'ava'
import { hostOffset } from '../../lib/base/units.js'
import { makeGeometry } from '../../lib/qcow2/geometry.js'
import { storeCompressed, storeCopied } from '../../lib/qcow2/l2-entry.js'
import type { Slice } from '../../lib/qcow2/table-cache.js'
import { WildEntries } from '../../lib/qcow2/wild-entries.js'

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
