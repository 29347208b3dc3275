import type { LongWork } from '../base/abort.js'
import { corrupt, notSupported } from '../base/errors.js'
import type { BlockBackend } from '../queue/backend.js'
import { countReferences } from './check-references.js'
import { refcountBlockOffset } from './check-refcounts.js'
import { type CheckOptions, CheckState } from './check-state.js'
import { readEntries } from './check-tables.js'
import { entryBytes } from './geometry.js'
import type { Header } from './header.js'
import { readFirstCluster, readHeader } from './open-metadata.js'
import { RepairOrdering } from './repair-ordering.js'
import { rebuildRefcounts } from './repair-rebuild.js'
import { readSnapshotTable } from './snapshot-table.js'
import { limits } from './spec.js'

/**
 * Give an image refcounts of another width. All references are counted; new blocks and a new table that say so are written behind everything, where
 * nothing refers to them; when they are durable the header is switched to table and width in one write; then the old ones, which nothing counts any
 * more, are given back to the host. Nothing else uses the image meanwhile.
 *
 * A crash or an abort before the switch leaves bytes behind the end of what the old counts count, which nothing takes for anything.
 * @param order  log2 of bits, 0 to 6. Version 3 only, but for 4
 * @throws ERR_NOT_SUPPORTED  a cluster has more references than a count of that width can say
 * @throws ERR_CORRUPT        the image is damaged: a repair comes first
 */
export async function changeRefcountWidth(
  backend: BlockBackend,
  order: number,
  { signal, onProgress }: LongWork,
): Promise<void> {
  const { header, firstCluster } = await readFirstCluster(backend)
  if (header.refcountOrder === order) return
  const options: CheckOptions = { signal, onProgress }
  await checkCounts(backend, header, order, options)
  const old = await structuresOf(backend, header)
  const before = backend.length
  try {
    const table = await rebuildRefcounts(backend, { ...header, refcountOrder: order }, options)
    signal?.throwIfAborted()
    await new RepairOrdering(backend).switchRefcounts(firstCluster, table, order)
  } catch (error) {
    const { header: now } = await readHeader(backend)
    if (now.refcountOrder === header.refcountOrder && backend.poisoned === undefined)
      await backend.truncate(before).catch(() => undefined)
    throw error
  }
  // The header that names others is durable. What the host cannot give back stays: the clusters are free all the same.
  for (const { offset, length } of old) await backend.punch(offset, length).catch(() => undefined)
}

/** See that the image is sound, and that its counts fit, before anything is written. */
async function checkCounts(
  backend: BlockBackend,
  header: Header,
  order: number,
  options: CheckOptions,
): Promise<void> {
  const widest: Header = { ...header, refcountOrder: limits.refcountOrder }
  const state = new CheckState(backend, widest, options, {
    countsRefcountStructures: false,
    fileBytes: backend.length,
  })
  await countReferences(state, await readSnapshotTable(backend, header))
  const [found] = state.result.findings
  if (state.result.corruptions > 0 || state.result.checkErrors > 0) {
    const what = `the image is damaged, check and repair it first: ${found?.text ?? 'no finding'}`
    throw corrupt('image', found?.offset ?? 0, what)
  }
  const bits = 2 ** order
  for (const cluster of state.counts.counted(0, Number.POSITIVE_INFINITY)) {
    const references = state.counts.get(cluster)
    if (references < 2 ** bits) continue
    const offset = cluster * state.geometry.clusterSize
    throw notSupported(
      `Cannot decrease refcount entry width to ${bits} bits: Cluster at offset 0x${offset.toString(16)} has a refcount of ${references}`,
      { path: backend.path, offset, structure: 'refcount block' },
    )
  }
}

/** Where the refcount table and its blocks stand. */
async function structuresOf(
  backend: BlockBackend,
  header: Header,
): Promise<{ offset: number; length: number }[]> {
  const clusterSize = 2 ** header.clusterBits
  const length = header.refcountTableClusters * clusterSize
  const places = [{ offset: header.refcountTableOffset, length }]
  for await (const piece of readEntries(backend, header.refcountTableOffset, length / entryBytes)) {
    for (let index = 0; index < piece.count; index++) {
      const offset = refcountBlockOffset(piece.view, index)
      if (offset !== 0) places.push({ offset, length: clusterSize })
    }
  }
  return places
}
