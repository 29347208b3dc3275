import test from 'ava'
import { makeGeometry } from '../../lib/qcow2/geometry.js'
import { metadataEntry, MetadataMap } from '../../lib/qcow2/metadata-map.js'

const geometry = makeGeometry(16, 4)
const size = geometry.clusterSize

function mapWith(...entries: number[]): MetadataMap {
  return new MetadataMap(geometry, [Float64Array.of(), Float64Array.from(entries)])
}

test('what was found at open is known, in whatever order it was found', (t) => {
  const map = mapWith(
    metadataEntry('refcount block', 2),
    metadataEntry('header', 0),
    metadataEntry('L2 table', 2 ** 40),
    metadataEntry('refcount table', 1),
  )
  t.is(map.kindOf(0), 'header')
  t.is(map.kindOf(1), 'refcount table')
  t.is(map.kindOf(2), 'refcount block')
  t.is(map.kindOf(3), undefined)
  t.is(map.kindOf(2 ** 40), 'L2 table')
})

test('all kinds survive the packing', (t) => {
  const kinds = [
    'header',
    'L1 table',
    'L2 table',
    'refcount table',
    'refcount block',
    'snapshot table',
    'inactive L1 table',
    'bitmap directory',
  ] as const
  const map = mapWith(...kinds.map((kind, cluster) => metadataEntry(kind, cluster * 3)))
  t.deepEqual(
    kinds.map((_, cluster) => map.kindOf(cluster * 3)),
    [...kinds],
  )
})

test('a range that touches metadata with its last byte is refused by name', (t) => {
  const map = mapWith(metadataEntry('L1 table', 3))
  t.notThrows(() => map.refuse('guest data', 0, 3 * size))
  const error = t.throws(() => map.refuse('guest data', 0, 3 * size + 1), { code: 'ERR_CORRUPT' })
  t.like(error, { structure: 'L1 table', offset: 3 * size })
  t.regex(error?.message ?? '', /guest data overlaps it/)
  t.throws(() => map.refuse('guest data', 3 * size + 512, 512))
  t.notThrows(() => map.refuse('guest data', 4 * size, 512))
})

test('a new table is refused from then on, until it is removed', (t) => {
  const map = mapWith()
  map.add('L2 table', 5 * size, 2 * size)
  t.throws(() => map.refuse('guest data', 6 * size, 1))
  map.remove(5 * size, 2 * size)
  t.notThrows(() => map.refuse('guest data', 5 * size, 2 * size))
})

test('a table found at open can go, and another take its place', (t) => {
  const map = mapWith(metadataEntry('L1 table', 3))
  map.remove(3 * size, size)
  t.is(map.kindOf(3), undefined)
  map.add('refcount block', 3 * size, size)
  t.is(map.kindOf(3), 'refcount block')
  map.remove(3 * size, size)
  t.is(map.kindOf(3), undefined)
})

test('when all tables are others, what was known before is forgotten', (t) => {
  const map = mapWith(metadataEntry('header', 0), metadataEntry('L2 table', 5))
  map.add('L1 table', 7 * size, size)
  map.remove(5 * size, size)
  map.replace([
    Float64Array.of(metadataEntry('L2 table', 9), metadataEntry('header', 0), metadataEntry('L2 table', 5)),
  ])
  t.deepEqual(
    [0, 5, 7, 9].map((cluster) => map.kindOf(cluster)),
    ['header', 'L2 table', undefined, 'L2 table'],
  )
})
