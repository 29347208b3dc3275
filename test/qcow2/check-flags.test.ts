import test from 'ava'
import { checkCopiedFlags } from '../../lib/qcow2/check-flags.js'
import { StoredRefcounts } from '../../lib/qcow2/stored-refcounts.js'
import { at, checkStateOf, compressed, copied, imageWith } from '../support/check-state-of.js'

/** An image with one L2 table at cluster 4 and data at 5 and 6; the counts given are taken as stored. */
async function check(
  l1: bigint,
  l2: Record<number, bigint>,
  counts: Record<number, number>,
  repair: boolean,
) {
  const image = imageWith(l2, {}, {})
  image.writeBigUInt64BE(l1, 3 * 512)
  const found = await checkStateOf(image)
  const { state } = found
  for (const [cluster, count] of Object.entries(counts)) state.counts.set(Number(cluster), count)
  state.counts.set(3, 1)
  state.l2References.set(4, counts[4] ?? 0)
  state.findOverlaps()
  await checkCopiedFlags(state, new StoredRefcounts(state), { repair })
  const entry = async (offset: number): Promise<bigint> => {
    const bytes = Buffer.alloc(8)
    await found.backend.read(bytes, offset)
    return bytes.readBigUInt64BE(0)
  }
  return { ...found, l1: await entry(3 * 512), l2: await entry(4 * 512) }
}

test('flags that agree with counts are no findings', async (t) => {
  const entries = { 0: copied | at(5), 1: at(6), 2: copied | at(5) | 1n, 3: 1n, 4: compressed | at(6) }
  const { texts } = await check(copied | at(4), entries, { 4: 1, 5: 1, 6: 2 }, false)
  t.deepEqual(texts, [])
})

test('a flag too many and a flag too few are corruptions, in L1 and L2', async (t) => {
  const { texts, state, backend } = await check(
    at(4),
    { 0: copied | at(5), 1: at(6) },
    { 4: 1, 5: 2, 6: 1 },
    false,
  )
  t.deepEqual(texts, [
    'ERROR OFLAG_COPIED L2 cluster: l1_index=0 l1_entry=800 refcount=1',
    'ERROR OFLAG_COPIED data cluster: l2_entry=8000000000000a00 refcount=2',
    'ERROR OFLAG_COPIED data cluster: l2_entry=c00 refcount=1',
  ])
  t.is(state.result.corruptions, 3)
  t.is(backend.stats().dataWrites, 0)
})

test('repair makes them agree', async (t) => {
  const { texts, state, l1, l2 } = await check(at(4), { 0: copied | at(5) }, { 4: 1, 5: 2 }, true)
  t.deepEqual([l1, l2], [copied | at(4), at(5)])
  t.is(texts[0], 'Repairing OFLAG_COPIED L2 cluster: l1_index=0 l1_entry=800 refcount=1')
  t.like(state.result, { corruptions: 0, corruptionsFixed: 2 })
})

test('a table that is something else too is told about and not written', async (t) => {
  const image = imageWith({ 0: copied | at(5) }, {}, {})
  image.writeBigUInt64BE(copied | at(4), 3 * 512)
  const { state, backend, texts } = await checkStateOf(image)
  for (const [cluster, count] of [
    [3, 1],
    [4, 2],
    [5, 2],
  ] as const)
    state.counts.set(cluster, count)
  state.l2References.set(4, 1)
  state.findOverlaps()
  state.counts.set(4, 1)
  await checkCopiedFlags(state, new StoredRefcounts(state), { repair: true })
  t.deepEqual(texts, ['ERROR OFLAG_COPIED data cluster: l2_entry=8000000000000a00 refcount=2'])
  t.is(backend.stats().dataWrites, 0)
})
