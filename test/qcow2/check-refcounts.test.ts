import test from 'ava'
import {
  compareRefcounts,
  isReadable,
  refcountBlockOffset,
  settleRefcounts,
} from '../../lib/qcow2/check-refcounts.js'
import { checkStateOf, emptyImage, imageWith } from '../support/check-state-of.js'

/** The empty image's four clusters counted as they are, and some other counts. */
async function compared(image: Buffer, counts: Record<number, number>, repair?: 'leaks' | 'all') {
  const found = await checkStateOf(image, { repair })
  for (const cluster of [0, 1, 2, 3]) found.state.counts.set(cluster, 1)
  for (const [cluster, count] of Object.entries(counts)) found.state.counts.set(Number(cluster), count)
  await compareRefcounts(found.state)
  return found
}

/** Stored refcounts of 16 bits, as they are in the file. */
async function storedIn(found: Awaited<ReturnType<typeof compared>>, clusters: number): Promise<number[]> {
  const block = Buffer.alloc(512)
  await found.backend.read(block, 1024)
  return Array.from({ length: clusters }, (_, cluster) => block.readUInt16BE(2 * cluster))
}

test('equal counts are no findings', async (t) => {
  const { found, state } = await compared(emptyImage(), {})
  t.deepEqual(found, [])
  t.false(state.refcountsDiffer)
  t.is(state.result.imageEndOffset, 2048)
})

test('too high is a leak, too low a corruption, nothing at all calls for new structures', async (t) => {
  const high = await compared(emptyImage(), { 3: 0 })
  t.deepEqual(high.texts, ['Leaked cluster 3 refcount=1 reference=0'])
  const low = await compared(emptyImage(), { 3: 2 })
  t.deepEqual(low.texts, ['ERROR cluster 3 refcount=1 reference=2'])
  t.false(low.state.needsRebuild)
  const none = await compared(imageWith({}), { 4: 1 })
  t.deepEqual(none.texts, ['ERROR cluster 4 refcount=0 reference=1'])
  t.true(none.state.needsRebuild)
  t.is(none.state.result.imageEndOffset, 2560)
})

test('where there is no block, all counts are 0; findings stay in the order of clusters', async (t) => {
  const far = Buffer.alloc(300 * 512)
  far.set(emptyImage())
  const { texts } = await compared(far, { 1: 2, 256: 1, 299: 3 })
  t.deepEqual(texts, [
    'ERROR cluster 1 refcount=1 reference=2',
    'ERROR cluster 256 refcount=0 reference=1',
    'ERROR cluster 299 refcount=0 reference=3',
  ])
})

test('clusters whose block cannot be read are told as such', async (t) => {
  const image = emptyImage()
  image.writeBigUInt64BE(1n << 63n, 512)
  const { texts, state } = await compared(image, {})
  t.deepEqual(
    texts,
    [0, 1, 2, 3].map((cluster) => `Can't get refcount for cluster ${cluster}: Input/output error`),
  )
  t.is(state.result.checkErrors, 4)
  await settleRefcounts(state)
  t.is(state.counts.get(0), 0)
})

test('without repair, settling leaves what is stored in the counts and the file alone', async (t) => {
  const found = await compared(imageWith({}), { 3: 2, 4: 1 })
  await settleRefcounts(found.state)
  t.is(found.state.counts.get(3), 1)
  t.is(found.state.counts.get(4), 0)
  t.is(found.backend.stats().dataWrites, 0)
})

test('repairing leaks lowers and never raises, repairing all does both', async (t) => {
  const leaks = await compared(emptyImage(), { 0: 2, 3: 0 }, 'leaks')
  await settleRefcounts(leaks.state)
  t.deepEqual(await storedIn(leaks, 4), [1, 1, 1, 0])
  const all = await compared(emptyImage(), { 0: 2, 3: 0 }, 'all')
  await settleRefcounts(all.state)
  t.deepEqual(await storedIn(all, 4), [2, 1, 1, 0])
  t.is(all.texts.at(-1), 'Repairing cluster 3 refcount=1 reference=0')
  t.is(all.state.counts.get(0), 2)
})

test('a block that is something else too is not written', async (t) => {
  const found = await compared(emptyImage(), { 3: 0 }, 'all')
  found.state.blocksShared = true
  await settleRefcounts(found.state)
  t.is(found.backend.stats().dataWrites, 0)
})

test('a block may be anywhere that a file can have, and keeps its alignment beyond our numbers', (t) => {
  const view = new DataView(new ArrayBuffer(8))
  const offsetOf = (entry: bigint): number => {
    view.setBigUint64(0, entry)
    return refcountBlockOffset(view, 0)
  }
  t.is(offsetOf(0x10001ffn), 0x1000000)
  t.true(isReadable(offsetOf(0x10000n), 65536))
  t.false(isReadable(offsetOf(0x10200n), 65536))
  t.false(isReadable(offsetOf(0x4c3dceb8fa010200n), 65536))
  t.true(isReadable(offsetOf(0x4c3dceb8fa010000n), 65536))
  t.false(isReadable(offsetOf(0x8000000000010000n), 65536))
})

test('of many clusters that are referred to once each, one that differs is found', async (t) => {
  // a block of 512 bytes counts 256 clusters
  const image = imageWith(...Array.from({ length: 252 }, () => ({})))
  for (let cluster = 0; cluster < 256; cluster++) image.writeUInt16BE(1, 1024 + 2 * cluster)
  const ones = Object.fromEntries(Array.from({ length: 256 }, (_, cluster) => [cluster, 1]))
  const same = await compared(image, ones)
  t.deepEqual(same.texts, [])
  t.is(same.state.result.imageEndOffset, 256 * 512)
  t.false(same.state.anyShared)
  const leaked = await compared(image, { ...ones, 200: 0 })
  t.deepEqual(leaked.texts, ['Leaked cluster 200 refcount=1 reference=0'])
  const twice = await compared(image, { ...ones, 255: 2 })
  t.deepEqual(twice.texts, ['ERROR cluster 255 refcount=1 reference=2'])
  const shared = Buffer.from(image)
  shared.writeUInt16BE(2, 1024 + 2 * 100)
  t.true((await compared(shared, { ...ones, 100: 2 })).state.anyShared)
  t.deepEqual((await compared(shared, ones)).texts, ['Leaked cluster 100 refcount=2 reference=1'])
})
