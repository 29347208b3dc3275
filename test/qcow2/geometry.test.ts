import test from 'ava'
import { guestOffset, hostOffset } from '../../lib/base/units.js'
import {
  clusterOf,
  l1EntriesFor,
  l1Index,
  l2Index,
  l2SliceOffset,
  geometryOf,
  makeGeometry,
} from '../../lib/qcow2/geometry.js'

test('the sizes of an image with 64 KiB clusters and 16-bit refcounts are those of the specification', (t) => {
  t.deepEqual(makeGeometry(16, 4), {
    clusterBits: 16,
    clusterSize: 65536,
    sliceSize: 4096,
    extendedL2: false,
    l2EntryBytes: 8,
    subclusterSize: 65536,
    l2EntriesPerTable: 8192,
    l2EntriesPerSlice: 512,
    l2TableCoverage: 512 * 2 ** 20,
    refcountOrder: 4,
    refcountBits: 16,
    refcountMax: 65535,
    refcountsPerBlock: 32768,
    refcountsPerSlice: 2048,
  })
})

test('the sizes of an image with 512-byte clusters and 64-bit refcounts are those of the specification', (t) => {
  t.deepEqual(makeGeometry(9, 6), {
    clusterBits: 9,
    clusterSize: 512,
    sliceSize: 512,
    extendedL2: false,
    l2EntryBytes: 8,
    subclusterSize: 512,
    l2EntriesPerTable: 64,
    l2EntriesPerSlice: 64,
    l2TableCoverage: 32768,
    refcountOrder: 6,
    refcountBits: 64,
    refcountMax: 2 ** 53 - 1,
    refcountsPerBlock: 64,
    refcountsPerSlice: 64,
  })
})

test('the sizes of an image with 2 MiB clusters and 1-bit refcounts are those of the specification', (t) => {
  t.deepEqual(makeGeometry(21, 0), {
    clusterBits: 21,
    clusterSize: 2097152,
    sliceSize: 4096,
    extendedL2: false,
    l2EntryBytes: 8,
    subclusterSize: 2097152,
    l2EntriesPerTable: 262144,
    l2EntriesPerSlice: 512,
    l2TableCoverage: 512 * 2 ** 30,
    refcountOrder: 0,
    refcountBits: 1,
    refcountMax: 1,
    refcountsPerBlock: 16777216,
    refcountsPerSlice: 32768,
  })
})

// [cluster bits, guest byte, L1 index, L2 index]
const places: readonly (readonly [number, number, number, number])[] = [
  [16, 0, 0, 0],
  [16, 65535, 0, 0],
  [16, 65536, 0, 1],
  [16, 512 * 2 ** 20 - 1, 0, 8191],
  [16, 512 * 2 ** 20, 1, 0],
  [16, 2 ** 46 + 3 * 65536 + 5, 2 ** 17, 3],
  [9, 511, 0, 0],
  [9, 32767, 0, 63],
  [9, 32768, 1, 0],
  // Beyond 2^32 clusters, where bit operators of the language would wrap.
  [9, 2 ** 45 + 65 * 512, 2 ** 30 + 1, 1],
  [21, 2 ** 39 - 1, 0, 262143],
  [21, 2 ** 52 + 2 ** 21, 2 ** 13, 1],
]

for (const [clusterBits, guest, l1, l2] of places) {
  test(`guest byte ${guest} stands in L1 entry ${l1} and L2 entry ${l2} with clusters of 2^${clusterBits}`, (t) => {
    const geometry = makeGeometry(clusterBits, 4)
    t.is(l1Index(geometry, guestOffset(guest)), l1)
    t.is(l2Index(geometry, guestOffset(guest)), l2)
  })
}

test('an L2 entry lies in the slice of min(4096, cluster size) bytes that holds it', (t) => {
  const large = makeGeometry(16, 4)
  t.is(l2SliceOffset(large, hostOffset(0x50000), 0), hostOffset(0x50000))
  t.is(l2SliceOffset(large, hostOffset(0x50000), 511), hostOffset(0x50000))
  t.is(l2SliceOffset(large, hostOffset(0x50000), 512), hostOffset(0x51000))
  t.is(l2SliceOffset(large, hostOffset(0x50000), 8191), hostOffset(0x5f000))
  const small = makeGeometry(9, 4)
  t.is(l2SliceOffset(small, hostOffset(0x600), 63), hostOffset(0x600))
})

test('a disk that ends within an L2 table needs an entry for it', (t) => {
  const geometry = makeGeometry(9, 4)
  t.is(l1EntriesFor(geometry, 0), 0)
  t.is(l1EntriesFor(geometry, 1), 1)
  t.is(l1EntriesFor(geometry, 32768), 1)
  t.is(l1EntriesFor(geometry, 32769), 2)
  t.is(l1EntriesFor(makeGeometry(16, 4), 64 * 2 ** 40), 131072)
})

test('a host byte belongs to one cluster, also beyond 2^32 clusters', (t) => {
  const geometry = makeGeometry(9, 4)
  t.is(clusterOf(geometry, 511), 0)
  t.is(clusterOf(geometry, 512), 1)
  t.is(clusterOf(geometry, 2 ** 50 + 513), 2 ** 41 + 1)
})

test('extended L2 entries take twice the space, so that a table maps half as much', (t) => {
  const standard = makeGeometry(16, 4)
  const extended = makeGeometry(16, 4, true)
  t.like(extended, {
    l2EntryBytes: 16,
    subclusterSize: 2048,
    l2EntriesPerTable: 4096,
    l2EntriesPerSlice: 256,
  })
  t.is(extended.l2TableCoverage, standard.l2TableCoverage / 2)
  t.is(l1EntriesFor(extended, 64 * 2 ** 40), 2 * 131072)
  t.is(l2SliceOffset(extended, hostOffset(0x50000), 256), hostOffset(0x51000))
  t.deepEqual(geometryOf({ clusterBits: 16, refcountOrder: 4, incompatibleFeatures: 0x10n }), extended)
  t.deepEqual(geometryOf({ clusterBits: 16, refcountOrder: 4, incompatibleFeatures: 0xfn }), standard)
})
