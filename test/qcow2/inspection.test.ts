import test from 'ava'
import { Inspection } from '../../lib/qcow2/inspection.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'

function inspectionOf(bytes: Uint8Array, entries?: number): Inspection {
  const backend = new MemoryBackend({ contents: SparseBytes.from(bytes) })
  return new Inspection(backend, { most: 10, signal: undefined }, entries)
}

test('what lies past the end of the file is left out', async (t) => {
  const inspection = inspectionOf(Uint8Array.from([1, 2, 3]))
  t.deepEqual(await inspection.read(1, 10), Uint8Array.from([2, 3]))
  t.is((await inspection.read(3, 10)).length, 0)
  t.is((await inspection.read(2 ** 50, 10)).length, 0)
})

test('a table is seen in pieces, each byte once, without half an entry', async (t) => {
  const length = 3 * 1024 * 1024 + 13
  const bytes = new Uint8Array(length).map((_, index) => index % 251)
  const inspection = inspectionOf(bytes)
  let at = 0
  const unread = await inspection.eachPiece({ offset: 0, length: length + 8, entries: 9 }, (view, from) => {
    t.is(from, at)
    t.is(view.getUint8(view.byteLength - 1), bytes[from + view.byteLength - 1] ?? -1)
    at += view.byteLength
  })
  t.is(unread, undefined)
  t.is(at, length - (length % 8))
})

test('all tables together have so many entries, and what would have more is not read', async (t) => {
  const inspection = inspectionOf(new Uint8Array(4096), 100)
  const table = { offset: 0, length: 64, entries: 60 }
  let seen = 0
  t.is(await inspection.eachPiece(table, () => seen++), undefined)
  t.true(inspection.hasRoomFor(40))
  t.false(inspection.hasRoomFor(41))
  t.is(await inspection.eachPiece(table, () => seen++), 'not read: of one image 100 entries are looked at')
  t.is(seen, 1)
})

test('where a structure cannot stand, and where some of it may', (t) => {
  const inspection = inspectionOf(new Uint8Array(5000))
  const cluster = { clusterSize: 512 }
  const say = (offset: number | bigint, length: number): [string | undefined, boolean] => {
    const { problem, isReadable } = inspection.placeProblem(offset, length, cluster)
    return [problem, isReadable]
  }
  t.deepEqual(say(512, 512), [undefined, true])
  t.deepEqual(say(2n ** 60n, 8), [`its offset ${2n ** 60n} is not below 2^53`, false])
  t.deepEqual(say(0, 8), ['its offset is 0, where the header is', false])
  t.deepEqual(say(520, 8), ['its offset 0x208 is not cluster aligned', false])
  t.deepEqual(say(5120, 8), ['it is not within the file: the file ends after 5000 bytes', false])
  t.deepEqual(say(4608, 512), ['the file ends after 5000 bytes, within it', true])
  t.is(inspection.placeProblem(520, 8, undefined).problem, undefined)
})
