import test from 'ava'
import { countReferences } from '../../lib/qcow2/check-references.js'
import { readSnapshotTable } from '../../lib/qcow2/snapshot-table.js'
import { at, checkStateOf, compressed, copied, emptyImage, imageWith } from '../support/check-state-of.js'

async function counted(image: Buffer) {
  const found = await checkStateOf(image)
  await countReferences(found.state, await readSnapshotTable(found.backend, found.state.header))
  const clusters = [...found.state.counts.counted(0, 1000)]
  return {
    ...found,
    counts: Object.fromEntries(clusters.map((cluster) => [cluster, found.state.counts.get(cluster)])),
  }
}

/** An L1 entry, written into the image. */
function withL1(image: Buffer, entries: Record<number, bigint>): Buffer {
  for (const [index, entry] of Object.entries(entries))
    image.writeBigUInt64BE(entry, 3 * 512 + 8 * Number(index))
  return image
}

test('an empty image refers to its header, table, block and L1', async (t) => {
  const { counts, found } = await counted(emptyImage())
  t.deepEqual(counts, { 0: 1, 1: 1, 2: 1, 3: 1 })
  t.deepEqual(found, [])
})

test('L2 tables, data and compressed payloads are counted, those across two clusters in both', async (t) => {
  // clusters of 512 bytes: the payload's extra sectors are counted from bit 61 on
  const across = compressed | (1n << 61n) | (at(6) + 100n)
  const image = withL1(
    imageWith({ 0: copied | at(5), 1: compressed | (at(6) + 8n), 2: across, 3: 1n }, {}, {}, {}),
    {
      0: copied | at(4),
    },
  )
  const { counts, state } = await counted(image)
  t.deepEqual(counts, { 0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 2, 7: 1 })
  t.like(state.result, { allocatedClusters: 3, compressedClusters: 2, fragmentedClusters: 2, corruptions: 0 })
  t.is(state.l2References.get(4), 1)
})

test('snapshots count as the active disk does, and their table too', async (t) => {
  const snapshot = { 0: at(6), 1: (32n << 32n) | 0x00010001n, 4: 16n, 5: 0n, 6: 0n, 7: 0x3161000000000000n }
  const image = withL1(imageWith({ 0: at(5) }, {}, { 0: at(4) }, snapshot), { 0: at(4) })
  image.writeUInt32BE(1, 60)
  image.writeBigUInt64BE(at(7), 64)
  const { counts, found } = await counted(image)
  t.deepEqual(found, [])
  t.deepEqual(counts, { 0: 1, 1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 1, 7: 1 })
})

test('a snapshot whose L1 cannot be is told, and not followed', async (t) => {
  const image = imageWith({ 0: 8n, 1: (1n << 32n) | 0x00010001n, 4: 16n, 7: 0x3161000000000000n })
  image.writeUInt32BE(1, 60)
  image.writeBigUInt64BE(at(4), 64)
  const { texts } = await counted(image)
  t.deepEqual(texts, [
    'ERROR snapshot 1 (a) l1_offset=0x8: L1 table is not cluster aligned; snapshot table entry corrupted',
  ])
})

test('refcount blocks that cannot be, or are something else, call for new ones', async (t) => {
  for (const [entry, text] of [
    [1025n, 'ERROR refcount table entry 1 has reserved bits set'],
    [at(2), 'ERROR refcount block 1 refcount=2'],
    [at(3), 'ERROR refcount block 1 refcount=2'],
    [at(900), 'ERROR refcount block 1 is outside image'],
  ] as const) {
    const image = emptyImage()
    image.writeBigUInt64BE(entry, 512 + 8)
    const { texts, state } = await counted(image)
    t.deepEqual(texts, [text])
    t.true(state.needsRebuild)
    t.is(state.blocksShared, text.endsWith('=2'))
  }
})

test('reserved bits and crooked offsets of L1 entries are told', async (t) => {
  const { texts } = await counted(withL1(imageWith({}), { 2: at(4) | 1n, 5: (1n << 56n) | at(4) }))
  t.deepEqual(texts, [
    'ERROR found L1 entry with reserved bits set: 801',
    'ERROR found L1 entry with reserved bits set: 100000000000800',
  ])
})
