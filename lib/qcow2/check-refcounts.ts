import { isAligned } from '../base/integers.js'
import { addon } from '../native/addon.js'
import { ReferenceCounts, standsApart } from './check-counts.js'
import { findingsKept } from './check-result.js'
import type { CheckState } from './check-state.js'
import { type ReadTable, readEntries, readTables, TableChanges } from './check-tables.js'
import { entryBytes, type Geometry } from './geometry.js'
import { loadRefcount, storeRefcount } from './refcount-entry.js'

/** What to do about a difference. */
type Difference = (cluster: number, stored: number, counted: number, block: ReadTable | undefined) => void

/** Compare the stored refcounts of all clusters of the file with the references counted. */
export async function compareRefcounts(state: CheckState): Promise<void> {
  let highest = 0
  const used = (cluster: number): void => {
    highest = Math.max(highest, cluster)
  }
  await walkRefcounts(
    state,
    used,
    reportUnreadable,
    async () => {},
    (cluster, refcount, reference) => {
      state.refcountsDiffer = true
      const numbers = `cluster ${cluster} refcount=${refcount} reference=${reference}`
      if (refcount > reference) {
        state.leak(`Leaked ${numbers}`, { cluster, refcount, reference })
        return
      }
      state.corruption('refcount', `ERROR ${numbers}`, { cluster, refcount, reference })
      state.refcountCorruptions++
      // a count of 0 means that nobody ever took the cluster: its block may be missing, or be another's
      if (refcount === 0) state.needsRebuild = true
    },
  )
  state.result.imageEndOffset = (highest + 1) * state.geometry.clusterSize
}

/**
 * Put right what compareRefcounts found, as far as `state.options.repair` allows, and leave in `state.counts` what is
 * stored then: the flags of L1 and L2 entries go by that.
 */
export async function settleRefcounts(state: CheckState): Promise<void> {
  const { counts, geometry } = state
  const { repair } = state.options
  let changes: TableChanges | undefined
  let changed: ReadTable | undefined
  const written = async (): Promise<void> => {
    await changes?.write(state.backend)
    changes = undefined
    changed = undefined
  }
  await walkRefcounts(
    state,
    () => {},
    forgetCounts,
    written,
    (cluster, refcount, reference, block) => {
      const allowed = refcount > reference ? repair !== undefined : repair === 'all'
      const repairable = allowed && block !== undefined && !state.blocksShared
      if (repairable) {
        if (changed !== block || changes === undefined) {
          changed = block
          changes = new TableChanges(block, geometry.sliceSize)
        }
        const index = cluster % geometry.refcountsPerBlock
        storeRefcount(block.view, index, geometry, reference)
        changes.mark(Math.floor((index * geometry.refcountBits) / 8))
        const details = { cluster, refcount, reference, repaired: true }
        const text = `Repairing cluster ${cluster} refcount=${refcount} reference=${reference}`
        if (refcount > reference) state.leak(text, details)
        else state.corruption('refcount', text, details)
      }
      if (reference > 0) counts.set(cluster, repairable ? reference : refcount)
    },
  )
}

/**
 * Go through the refcounts of the file's clusters in order: block by block where there is one, and where there is none
 * through the clusters that are referred to. Never cluster by cluster through a hole.
 * @param used       called with clusters that have a refcount or a reference, the highest of them among these
 * @param unreadable called with runs of clusters whose block cannot be where its entry says
 * @param blockDone  called after each block's differences
 */
async function walkRefcounts(
  state: CheckState,
  used: (cluster: number) => void,
  unreadable: (state: CheckState, from: number, to: number) => void,
  blockDone: () => Promise<void>,
  difference: Difference,
): Promise<void> {
  const { geometry, counts, clusterCount } = state
  const perBlock = geometry.refcountsPerBlock
  let next = 0

  const withoutBlock = (to: number): void => {
    for (const cluster of counts.counted(next, to)) {
      used(cluster)
      difference(cluster, 0, counts.get(cluster), undefined)
    }
    next = to
  }

  for await (const piece of readRefcountTable(state)) {
    for await (const batch of readTables(state.backend, piece, geometry.clusterSize, state.tableMemory)) {
      state.step('refcounts', next * geometry.clusterSize, state.fileBytes)
      for (const block of batch) {
        const from = block.index * perBlock
        withoutBlock(from)
        const to = Math.min(from + perBlock, clusterCount)
        if (block.view.byteLength === 0 && isReadable(block.offset, geometry.clusterSize)) {
          withoutBlock(to)
          continue
        }
        next = to
        if (!isReadable(block.offset, geometry.clusterSize)) {
          unreadable(state, from, to)
          continue
        }
        compareBlock(state, block, { from, to }, used, difference)
        await blockDone()
      }
    }
  }
  withoutBlock(clusterCount)
  state.step('refcounts', state.fileBytes, state.fileBytes)
}

/** Compare the counts of one block, a chunk of those that were counted at a time. @param range  the clusters, from the block's first one on */
function compareBlock(
  state: CheckState,
  block: ReadTable,
  { from, to }: { readonly from: number; readonly to: number },
  used: (cluster: number) => void,
  difference: Difference,
): void {
  const { counts, geometry } = state
  const { perChunk } = ReferenceCounts
  // As far as clusters are referred to once.
  let onesEnd = from
  for (let first = from; first < to;) {
    if (first >= onesEnd) onesEnd = first + counts.onesFrom(first, to - first)
    // And counted so: most are.
    const alike = storedOnes(block, first - from, onesEnd - first, geometry)
    if (alike > 0) {
      first += alike
      used(first - 1)
      continue
    }
    const base = first - (first % perChunk)
    const end = Math.min(base + perChunk, to)
    const chunk = counts.chunkOf(first)
    let highest = -1
    for (let cluster = first; cluster < end; cluster++) {
      const stored = loadRefcount(block.view, cluster - from, geometry)
      const held = chunk[cluster - base] as number
      if (stored === 0 && held === 0) continue
      highest = cluster
      if (held > 1) state.anyShared = true
      if (stored === held && held < standsApart) continue
      const counted = counts.get(cluster)
      if (stored !== counted) difference(cluster, stored, counted, block)
    }
    if (highest >= 0) used(highest)
    first = end
  }
}

/**
 * How many of a block's refcounts are 1, from the first on, in whole words of 64 bits.
 * @param index  of the first, at the beginning of such a word
 */
function storedOnes({ view }: ReadTable, index: number, most: number, geometry: Geometry): number {
  const perWord = 64 / geometry.refcountBits
  const words = Math.floor(most / perWord)
  if (words === 0) return 0
  for (let entry = 0; entry < perWord; entry++)
    if (loadRefcount(view, index + entry, geometry) !== 1) return 0
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
  return addon().wordRun(bytes, (index * geometry.refcountBits) / 8, words, 0) * perWord
}

/** Whether a refcount block may stand there: aligned, and at an offset that a file can have (signed 64 bits). */
export function isReadable(offset: number, clusterSize: number): boolean {
  return isAligned(offset, clusterSize) && offset < 2 ** 63
}

/** The blocks that cover clusters of the file: pieces of the refcount table as lists of index and byte offset. */
async function* readRefcountTable(state: CheckState): AsyncGenerator<[index: number, offset: number][]> {
  const { header, geometry } = state
  const entries = (header.refcountTableClusters * geometry.clusterSize) / entryBytes
  const covered = Math.min(entries, Math.ceil(state.clusterCount / geometry.refcountsPerBlock))
  for await (const { first, count, view } of readEntries(
    state.backend,
    header.refcountTableOffset,
    covered,
  )) {
    const blocks: [number, number][] = []
    for (let index = 0; index < count; index++) {
      const offset = refcountBlockOffset(view, index)
      if (offset !== 0) blocks.push([first + index, offset])
    }
    yield blocks
  }
}

/**
 * The block that a refcount table entry points to; its reserved low bits are masked off. An offset that a number does not hold
 * becomes another one that no file has, with the same alignment.
 */
export function refcountBlockOffset(view: DataView, index: number): number {
  const high = view.getUint32(index * entryBytes)
  const low = view.getUint32(index * entryBytes + 4)
  const within = low - (low % 512)
  if (high < 2 ** 21) return high * 2 ** 32 + within
  return high < 2 ** 31 ? 2 ** 52 + within : 2 ** 63
}

/** What is stored for these clusters is not known. */
function forgetCounts({ counts }: CheckState, from: number, to: number): void {
  for (const cluster of counts.counted(from, to)) counts.set(cluster, 0)
}

function reportUnreadable(state: CheckState, from: number, to: number): void {
  state.refcountsDiffer = true
  for (let cluster = from; cluster < Math.min(to, from + findingsKept); cluster++) {
    state.checkError(`Can't get refcount for cluster ${cluster}: Input/output error`, { cluster })
  }
  // a wild entry may cover millions of clusters; they all count
  state.result.checkErrors += Math.max(0, to - from - findingsKept)
}
