import test from 'ava'
import {
  alikeFrom,
  allSubclusters,
  decodeExtended,
  type ExtendedEntry,
  isAllAllocated,
  loadSubclusters,
  runsOf,
  storeSubclusters,
  subclusterEntry,
  subclusterMask,
  touchedSubclusters,
} from '../../lib/qcow2/subclusters.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'

const rules = { version: 3, clusterBits: 16, extendedL2: true } as const
const host = 0x50000

function entryView(high: number, low: number, zero: number, allocated: number): DataView {
  const view = new DataView(new ArrayBuffer(48))
  // Not at the start, so that nobody forgets where it is.
  for (const [index, word] of [high, low, zero, allocated].entries()) view.setUint32(16 + 4 * index, word)
  return view
}

function decode(high: number, low: number, zero: number, allocated: number): ExtendedEntry {
  return decodeExtended(entryView(high, low, zero, allocated), 16, rules, 0)
}

test('a mask is the bits from first to last, for all of them', (t) => {
  for (let first = 0; first < 32; first++) {
    for (let last = first; last < 32; last++) {
      let expected = 0
      for (let bit = first; bit <= last; bit++) expected += 2 ** bit
      t.is(subclusterMask(first, last), expected)
    }
  }
})

test('bytes touch the subclusters in which they are', (t) => {
  t.is(touchedSubclusters(0, 1, 2048), 1)
  t.is(touchedSubclusters(2047, 2048, 2048), 1)
  t.is(touchedSubclusters(2047, 2049, 2048), 3)
  t.is(touchedSubclusters(65535, 65536, 2048), 0x80000000)
  t.is(touchedSubclusters(0, 65536, 2048), allSubclusters)
})

test('runs, and how many are alike, are those of a loop over single bits', (t) => {
  const seed = seedOfRun()
  t.log(`QCOW2_SEED=${seed}`)
  const random = new SeededRandom(seed)
  const sets = [0, 1, 0x80000000, allSubclusters, 0x7fffffff, 0xfffffffe, 0x55555555]
  while (sets.length < 200) sets.push((random.integer(2 ** 16) * 2 ** 16 + random.integer(2 ** 16)) >>> 0)
  for (const set of sets) {
    const bits = Array.from({ length: 32 }, (_, bit) => Math.floor(set / 2 ** bit) % 2)
    const seen = new Array<number>(32).fill(0)
    for (const [first, end] of runsOf(set)) {
      t.true(bits[first - 1] !== 1 && bits[end] !== 1, 'a run is as long as it can be')
      seen.fill(1, first, end)
    }
    t.deepEqual(seen, bits)
    const zero = (~set & (random.pick(sets) >>> 0)) >>> 0
    const entry = { cluster: { type: 'unallocated' }, allocated: set, zero } as const
    const states = bits.map((bit, index) =>
      bit === 1 ? 'there' : ((zero >>> index) & 1) === 1 ? 'zero' : 'not',
    )
    for (let index = 0; index < 32; index++) {
      const end = states.findIndex((state, at) => at > index && state !== states[index])
      t.is(alikeFrom(entry, index), (end < 0 ? 32 : end) - index)
    }
  }
})

test('an entry says of each subcluster whether it is there, reads as zeros, or shows the backing file', (t) => {
  const entry = decode(0x80000000, host, 0x00000018, 0x80000002)
  t.deepEqual(entry.cluster, { type: 'normal', host: host as never, copied: true })
  t.deepEqual(subclusterEntry(entry, 0), { type: 'unallocated', host: host as never })
  t.deepEqual(subclusterEntry(entry, 1), { type: 'normal', host: host as never, copied: true })
  t.deepEqual(subclusterEntry(entry, 3), { type: 'zero', host: host as never, copied: true })
  t.deepEqual(subclusterEntry(entry, 31), { type: 'normal', host: host as never, copied: true })
})

test('without a cluster there are zeros, and nothing', (t) => {
  const entry = decode(0, 0, 0x80000000, 0)
  t.deepEqual(subclusterEntry(entry, 31), { type: 'zero', host: undefined, copied: false })
  t.deepEqual(subclusterEntry(entry, 30), { type: 'unallocated' })
})

test('all of a compressed cluster is there, whatever its bitmap says', (t) => {
  const plain = decode(0x40000000, host, 0, 0)
  t.is(plain.cluster.type, 'compressed')
  t.deepEqual(decode(0x40000000, host, 1, 2), plain)
  t.is(subclusterEntry(plain, 7), plain.cluster)
  t.is(alikeFrom(plain, 0), 32)
})

test('as for QEMU, bit 0 of the first word means nothing, nor does COPIED without a cluster', (t) => {
  t.deepEqual(decode(0x80000000, host + 1, 0, 1), decode(0x80000000, host, 0, 1))
  t.deepEqual(decode(0x80000000, 0, 4, 0), decode(0, 0, 4, 0))
})

test('a subcluster in two states, or in a cluster that is not there, is damage', (t) => {
  for (const words of [
    [0x80000000, host, 1, 1],
    [0x80000000, host, 0x80000000, 0x8000001f],
    [0, 0, 0, 1],
    [0x80000000, 0, 0, 1],
    [0x80000000, host + 2, 0, 1],
    [0x81000000, host, 0, 1],
    [0x80000000, host + 512, 0, 1],
  ] as const) {
    t.throws(
      () => decode(words[0], words[1], words[2], words[3]),
      { code: 'ERR_CORRUPT' },
      words.map((word) => word.toString(16)).join(' '),
    )
  }
})

test('the bitmap is read and stored where it stands; in place is only what is there as a whole', (t) => {
  const view = entryView(0x80000000, host, 0, 0)
  storeSubclusters(view, 16, 0x80000006, 0x10)
  t.is(view.getBigUint64(24), 0x00000010_80000006n)
  t.is(view.getBigUint64(16), 0x80000000_00050000n)
  t.is(view.getBigUint64(32), 0n)
  t.deepEqual(loadSubclusters(view, 16), { allocated: 0x80000006, zero: 0x10 })
  t.true(isAllAllocated(view, 16, 0x80000000))
  t.true(isAllAllocated(view, 16, 6))
  t.false(isAllAllocated(view, 16, 7))
  t.false(isAllAllocated(view, 16, 0x10))
  storeSubclusters(view, 16, 6, 2)
  t.false(isAllAllocated(view, 16, 4), 'damage is left to whoever tells of it')
})
