import test from 'ava'
import { checkL2Table, hasMisalignedZeros, l2FormatOf } from '../../lib/qcow2/check-l2.js'
import { at, checkStateOf, compressed, copied, imageWith } from '../support/check-state-of.js'

/** Check one table, at cluster 4 of a file of 16 clusters. @param features  incompatible features, e.g. 4: a data file */
async function check(words: Record<number, bigint>, features = 0) {
  const image = imageWith(words, ...Array.from({ length: 11 }, () => ({})))
  const found = await checkStateOf(image)
  // a feature that the smallest clusters cannot have is set behind the header's back
  Object.assign(found.state.header, { incompatibleFeatures: BigInt(features) })
  const view = new DataView(image.buffer, image.byteOffset + 4 * 512, 512)
  checkL2Table(found.state, { index: 0, offset: 4 * 512, view }, { next: 0 })
  return { ...found, clusters: [...found.state.counts.counted(0, 100)] }
}

test('standard entries count their cluster, zero entries only one that they keep', async (t) => {
  const { clusters, texts, state } = await check({
    0: copied | at(5),
    1: at(6),
    2: 1n,
    3: copied | at(8) | 1n,
  })
  t.deepEqual(clusters, [5, 6, 8])
  t.deepEqual(texts, [])
  t.like(state.result, { allocatedClusters: 3, fragmentedClusters: 1 })
})

test('compressed entries count every cluster that they may touch', async (t) => {
  // n at bit 61: one more sector
  const { clusters, state } = await check({ 0: compressed | (1n << 61n) | (at(5) + 511n) })
  t.deepEqual(clusters, [5, 6])
  t.like(state.result, { allocatedClusters: 1, compressedClusters: 1, fragmentedClusters: 1 })
})

test('what the format does not allow is told in the words of the stock tool', async (t) => {
  const cases: [entry: bigint, text: string, features?: number][] = [
    [copied | at(5) | 2n, 'ERROR found l2 entry with reserved bits set: 8000000000000a02'],
    [
      copied | compressed | at(5),
      'ERROR: coffset=0xa00: copied flag must never be set for compressed clusters',
    ],
    [compressed | at(5), 'ERROR compressed cluster 3 with data file, entry=0x4000000000000a00', 4],
  ]
  for (const [entry, text, features] of cases) {
    const { texts, found } = await check({ 3: entry }, features)
    t.deepEqual(texts, [text])
    t.is(found[0]?.offset, 4 * 512 + 24)
  }
})

test('in a data file host offset 0 is a place, and nothing there is counted', async (t) => {
  const { state, clusters, texts } = await check({ 0: copied, 1: copied | at(5), 2: 1n, 3: copied | 1n }, 4)
  t.deepEqual(clusters, [])
  t.deepEqual(texts, [])
  t.is(state.result.allocatedClusters, 2)
})

test('a run of clusters does not go on at the beginning of its 4 GiB', async (t) => {
  const last = copied | (2n ** 33n - 512n)
  const anew = await check({ 0: last, 1: copied | (2n ** 32n), 2: copied | (2n ** 32n + 512n) }, 4)
  t.like(anew.state.result, { allocatedClusters: 3, fragmentedClusters: 1 })
  const behind = await check({ 0: last, 1: copied | (2n ** 33n), 2: copied | (2n ** 33n + 512n) }, 4)
  t.like(behind.state.result, { allocatedClusters: 3, fragmentedClusters: 0 })
})

test('entries with subclusters are 16 bytes, and their bitmaps are checked', async (t) => {
  const { clusters, texts } = await check(
    {
      0: copied | at(5),
      1: 0x00000001_00000001n, // subcluster 0 both allocated and zero
      2: 0n,
      3: 1n, // allocated in no cluster
      4: compressed | at(6),
      5: 1n,
      6: copied | at(7),
      7: 0xffffffff_00000000n,
    },
    16,
  )
  t.deepEqual(clusters, [5, 7])
  t.deepEqual(texts, [
    'ERROR offset=a00: Allocated cluster has corrupted subcluster allocation bitmap',
    'ERROR: Unallocated cluster has non-zero subcluster allocation map',
    'ERROR compressed cluster 2 with non-zero subcluster allocation bitmap, entry=0x4000000000000c00',
  ])
})

test('only zeros that keep a crooked cluster are told apart for repair', async (t) => {
  const { state } = await checkStateOf(imageWith({}))
  Object.assign(state.geometry, { clusterSize: 1024 })
  const view = new DataView(new ArrayBuffer(32))
  view.setBigUint64(0, copied | 0x600n | 1n)
  view.setBigUint64(8, copied | 0x600n)
  view.setBigUint64(16, copied | 0x800n | 1n)
  view.setBigUint64(24, compressed | 0x601n)
  const format = l2FormatOf(state)
  t.deepEqual(
    [0, 8, 16, 24].map((byte) => hasMisalignedZeros(state, view, byte, format)),
    [true, false, false, false],
  )
})
