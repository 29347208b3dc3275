import test from 'ava'
import { ReferenceCounts } from '../../lib/qcow2/check-counts.js'
import { SeededRandom } from '../support/seeded-random.js'

test('counts are kept for any cluster, small and large, near and far', (t) => {
  const counts = new ReferenceCounts(2 ** 20)
  for (const [cluster, count] of [
    [0, 1],
    [255, 254],
    [256, 255],
    [257, 256],
    [2 ** 44, 65536],
    [2 ** 44 + 1, 2 ** 40],
  ] as const) {
    counts.set(cluster, count)
    t.is(counts.get(cluster), count)
  }
  t.is(counts.get(1), 0)
  t.is(counts.get(2 ** 44 + 2), 0)
  counts.set(257, 3)
  t.is(counts.get(257), 3)
})

test('clusters that are counted are listed in order, without going through those that are not', (t) => {
  const counts = new ReferenceCounts(2 ** 20)
  for (const cluster of [2 ** 43, 5, 1000, 3, 255, 256]) counts.set(cluster, 1)
  counts.set(3, 0)
  t.deepEqual([...counts.counted(0, Number.POSITIVE_INFINITY)], [5, 255, 256, 1000, 2 ** 43])
  t.deepEqual([...counts.counted(5, 1000)], [5, 255, 256])
  t.deepEqual([...counts.counted(6, 255)], [])
  counts.set(700, 1)
  t.deepEqual([...counts.counted(257, 2 ** 43)], [700, 1000])
})

test('it counts as a map would', (t) => {
  const random = new SeededRandom(7)
  const counts = new ReferenceCounts(2 ** 24)
  const model = new Map<number, number>()
  for (let step = 0; step < 20_000; step++) {
    const cluster = random.chance(0.5) ? random.integer(2000) : random.integer(2 ** 31)
    const count = random.pick([0, 1, 2, 254, 255, 256, 1_000_000])
    counts.set(cluster, count)
    model.set(cluster, count)
  }
  const expected = [...model].filter(([, count]) => count > 0).sort(([a], [b]) => a - b)
  t.deepEqual(
    [...counts.counted(0, 2 ** 32)].map((cluster) => [cluster, counts.get(cluster)]),
    expected,
  )
})

test('memory is bounded: too many scattered clusters are refused', (t) => {
  const counts = new ReferenceCounts(100_000)
  const error = t.throws(
    () => {
      for (let cluster = 0; ; cluster += 1000) counts.set(cluster, 1)
    },
    { code: 'ERR_NOT_SUPPORTED', message: /more than 100000 bytes of memory/ },
  )
  t.truthy(error)
})

test('neighbouring clusters cost little more than a byte each', (t) => {
  const counts = new ReferenceCounts(1_300_000)
  for (let cluster = 0; cluster < 1_000_000; cluster++) counts.set(cluster, 1)
  t.is(counts.get(999_999), 1)
})

test('a run is counted as its clusters one by one are, as far as that is quick', (t) => {
  const random = new SeededRandom(11)
  for (const max of [1, 3, 255, 65535]) {
    const runs = new ReferenceCounts(2 ** 24)
    const single = new ReferenceCounts(2 ** 24)
    for (let step = 0; step < 1200; step++) {
      const first = random.integer(600)
      const clusters = random.between(1, 700)
      const counted = runs.incrementRun(first, clusters, max)
      t.true(counted >= 0 && counted <= clusters)
      for (let cluster = first; cluster < first + counted; cluster++) t.true(single.increment(cluster, max))
      // It ends where the ordinary way has to go on.
      if (counted === clusters) continue
      t.true(runs.get(first + counted) >= Math.min(max, 254))
      t.is(runs.increment(first + counted, max), single.increment(first + counted, max))
    }
    for (let cluster = 0; cluster < 1300; cluster++) t.is(runs.get(cluster), single.get(cluster))
  }
})
