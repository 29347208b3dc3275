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

test('long runs cost next to nothing, however often they are counted', (t) => {
  const counts = new ReferenceCounts(70_000)
  for (const clusters of [1_000_000, 600_000, 600_000])
    t.is(counts.incrementRun(5, clusters, 65535), clusters)
  t.deepEqual(
    [4, 5, 255, 256, 600_004, 600_005, 1_000_004, 1_000_005].map((cluster) => counts.get(cluster)),
    [0, 3, 3, 3, 3, 1, 1, 0],
  )
  t.is([...counts.counted(0, Number.POSITIVE_INFINITY)].length, 1_000_000)
})

test('chunks of ones are told from all others', (t) => {
  const counts = new ReferenceCounts(2 ** 20)
  counts.incrementRun(0, 10_000, 255)
  for (let cluster = 10_000; cluster < 10_240; cluster++) counts.set(cluster, 1)
  // The last whole chunk is 39, of the clusters below 10240.
  t.is(counts.onesFrom(0, 20_000), 10_240)
  t.is(counts.onesFrom(300, 20_000), 10_240 - 300)
  t.is(counts.onesFrom(300, 5000), 5000)
  t.is(counts.onesFrom(10_240, 1), 0)
  counts.set(7000, 2)
  t.is(counts.onesFrom(0, 20_000), 27 * 256)
  t.is(counts.onesFrom(7000, 20_000), 0)
  t.is(counts.onesFrom(28 * 256, 20_000), 10_240 - 28 * 256)
  counts.incrementRun(0, 512, 255)
  t.is(counts.onesFrom(0, 20_000), 0)
  t.is(counts.onesFrom(512, 20_000), 25 * 256)
  counts.incrementRun(5 * 256, 256, 255)
  t.is(counts.onesFrom(512, 20_000), 3 * 256)
})

test('a run is counted as its clusters one by one are, as far as that is quick', (t) => {
  const random = new SeededRandom(11)
  for (const max of [1, 3, 255, 65535]) {
    const runs = new ReferenceCounts(2 ** 24)
    const single = new ReferenceCounts(2 ** 24)
    for (let step = 0; step < 1200; step++) {
      const isLong = random.chance(0.05)
      const first = random.integer(isLong ? 9000 : 600)
      const clusters = random.between(1, isLong ? 9000 : 700)
      const counted = runs.incrementRun(first, clusters, max)
      t.true(counted >= 0 && counted <= clusters)
      for (let cluster = first; cluster < first + counted; cluster++) t.true(single.increment(cluster, max))
      // It ends where the ordinary way has to go on.
      if (counted === clusters) continue
      t.true(runs.get(first + counted) >= Math.min(max, 254))
      t.is(runs.increment(first + counted, max), single.increment(first + counted, max))
    }
    const numbers = Array.from({ length: 18_000 }, (_, cluster) => cluster)
    t.deepEqual(
      numbers.map((cluster) => runs.get(cluster)),
      numbers.map((cluster) => single.get(cluster)),
    )
    t.deepEqual(
      [...runs.counted(3, 17_000)],
      numbers.filter((cluster) => cluster >= 3 && cluster < 17_000 && single.get(cluster) > 0),
    )
  }
})
