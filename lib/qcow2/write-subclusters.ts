import { assert } from '../base/assert.js'
import { type GuestOffset, guestOffset, noSection, type Section } from '../base/units.js'
import { clustersInDataFile } from './data-file.js'
import { storeCopied } from './l2-entry.js'
import type { EntryPlace } from './l2-tables.js'
import type { Parts } from './parts.js'
import { readGuest } from './read.js'
import type { Allocation } from './refcount-parts.js'
import { freeReplaced, refuseMetadata } from './replaced-clusters.js'
import {
  allocateSubclusters,
  allSubclusters,
  type ExtendedEntry,
  runsOf,
  touchedSubclusters,
} from './subclusters.js'

/** Clusters that a write treats alike. Byte ranges in a plan are counted from the start of the first of them. */
type Plan = {
  /** What there was of the first cluster. */
  readonly old: ExtendedEntry
  readonly clusters: number
  /** The guest's bytes. */
  readonly start: number
  readonly end: number
  /** What has to be written: the guest's bytes, and what must stand around them in their subclusters and, in a new cluster, elsewhere. */
  readonly pieces: readonly Piece[]
  /** Whether all that the entries will show for the first time reads as zeros now. */
  readonly showsZeros: boolean
}

type Piece = { readonly start: number; readonly end: number }

/**
 * Write the first of `bytes` under extended L2 entries: as many as one kind of cluster takes. What is copied is only the rest of subclusters that had no bytes
 * of their own, and of a cluster that is shared or compressed what it holds. The clusters are locked, and the request has a ticket.
 * @returns how many bytes it was
 */
export async function writeSubclusters(
  parts: Parts,
  place: EntryPlace,
  bytes: Uint8Array,
  guest: GuestOffset,
): Promise<number> {
  const { allocator, data, geometry, ordering } = parts
  // The lock keeps the entries as they are, the pin their slice, until they are linked.
  place.slice.pins++
  try {
    const wanted = planWrite(parts, guest, bytes.byteLength)
    const { cluster } = wanted.old
    refuseMetadata(parts, cluster, wanted.clusters * geometry.clusterSize)
    const kept = keptClusters(parts, wanted, guest)
    if (kept !== undefined && isInPlace(parts, wanted, guest)) {
      await data.write(bytes.subarray(0, wanted.end - wanted.start), kept.host + wanted.start, guest)
      await ordering.dataWritten()
      return wanted.end - wanted.start
    }
    const allocation =
      kept ?? allocator.tryAllocate(wanted.clusters) ?? (await allocator.allocate(wanted.clusters))
    const plan =
      allocation.clusters === wanted.clusters
        ? wanted
        : planWrite(parts, guest, allocation.clusters * geometry.clusterSize - wanted.start)
    const isBlank = allocation.blank && plan.showsZeros
    try {
      await writePieces(parts, plan, allocation, bytes, guest)
      if (!isBlank) await ordering.dataWritten()
    } catch (error) {
      if (kept === undefined) await allocator.cancel(allocation)
      throw error
    }
    const linked = link(parts, place, plan, allocation, isBlank)
    if (kept === undefined) freeReplaced(parts, cluster, 1, linked)
    await ordering.completed(linked)
    return plan.end - plan.start
  } finally {
    place.slice.pins--
  }
}

/** The clusters that are there already and may be written in place, if they are; in a data file always. */
function keptClusters(
  { dataFile }: Pick<Parts, 'dataFile'>,
  { old: { cluster }, clusters, start }: Plan,
  guest: GuestOffset,
): Allocation | undefined {
  if (dataFile !== undefined) return clustersInDataFile(dataFile, guest - start, clusters)
  if (cluster.type !== 'normal' || !cluster.copied) return undefined
  return { host: cluster.host, clusters, after: noSection, fresh: false, blank: false }
}

/** What the write is, for as many clusters from its first on as are alike. */
function planWrite(parts: Parts, guest: GuestOffset, length: number): Plan {
  const { clusterSize, subclusterSize } = parts.geometry
  const start = guest % clusterSize
  const old = entryOf(parts, guest)
  const clusters = alikeClusters(parts, old, guest, Math.ceil((start + length) / clusterSize))
  const end = Math.min(start + length, clusters * clusterSize)
  const isCopied = old.cluster.type === 'compressed' || (old.cluster.type === 'normal' && !old.cluster.copied)
  if (isCopied) {
    const there = (old.allocated | touchedSubclusters(start, end, subclusterSize)) >>> 0
    const pieces = [...runsOf(there)].map(([first, behind]) => ({
      start: first * subclusterSize,
      end: behind * subclusterSize,
    }))
    return { old, clusters, start, end, pieces, showsZeros: false }
  }
  const last = clusters === 1 ? old : entryOf(parts, guestOffset(guest - start + end - 1))
  const isThere = (entry: ExtendedEntry, at: number): boolean =>
    (entry.allocated & touchedSubclusters(at % clusterSize, (at % clusterSize) + 1, subclusterSize)) !== 0
  const piece = {
    start: isThere(old, start) ? start : start - (start % subclusterSize),
    end: isThere(last, end - 1) ? end : Math.ceil(end / subclusterSize) * subclusterSize,
  }
  const showsZeros = readsAsZeros(parts, old, guest - start, clusters, start, end)
  return { old, clusters, start, end, pieces: [piece], showsZeros }
}

/** How many clusters, up to `most`, are as the first: without a cluster of the host's, or with the one behind the last. */
function alikeClusters(parts: Parts, first: ExtendedEntry, guest: GuestOffset, most: number): number {
  const { clusterSize } = parts.geometry
  const { cluster } = first
  let count = 1
  if (cluster.type === 'compressed' || (cluster.type === 'normal' && !cluster.copied)) return count
  for (; count < most; count++) {
    const next = entryOf(parts, guestOffset(guest + count * clusterSize)).cluster
    if (cluster.type === 'unallocated' && next.type === 'unallocated') continue
    const follows = cluster.type === 'normal' && next.type === 'normal' && next.copied
    if (!follows || next.host !== cluster.host + count * clusterSize) break
  }
  return count
}

function entryOf(parts: Parts, guest: GuestOffset): ExtendedEntry {
  const entry = parts.l2.clusterEntry(guest)
  assert(!('load' in entry), 'the slice is pinned')
  return entry
}

/** Whether all subclusters that are written have bytes of their own already. */
function isInPlace(parts: Parts, { clusters, start, end }: Plan, guest: GuestOffset): boolean {
  return eachTouched(parts, guest, { clusters, start, end }, ({ allocated }, touched) => {
    return (touched & ~allocated) === 0
  })
}

/** Whether all subclusters that are written read as zeros, judged by their marks and by where the backing file ends. */
function readsAsZeros(
  parts: Parts,
  first: ExtendedEntry,
  from: number,
  clusters: number,
  start: number,
  end: number,
): boolean {
  // What a new cluster of an encrypted image holds does not decrypt to zeros.
  if (first.cluster.type !== 'unallocated' || parts.data.encrypted === true) return false
  const { backing } = parts
  if (backing === undefined || from + start - (start % parts.geometry.subclusterSize) >= backing.size)
    return true
  return eachTouched(parts, guestOffset(from), { clusters, start, end }, ({ zero }, touched) => {
    return (touched & ~zero) === 0
  })
}

function eachTouched(
  parts: Parts,
  guest: GuestOffset,
  { clusters, start, end }: Pick<Plan, 'clusters' | 'start' | 'end'>,
  holds: (entry: ExtendedEntry, touched: number) => boolean,
): boolean {
  for (let step = 0; step < clusters; step++) {
    const at = guest - (guest % parts.geometry.clusterSize) + step * parts.geometry.clusterSize
    if (!holds(entryOf(parts, guestOffset(at)), touchedIn(parts, step, start, end))) return false
  }
  return true
}

/** What a write of bytes `start` to `end` touches of cluster number `step`. */
function touchedIn(parts: Parts, step: number, start: number, end: number): number {
  const { clusterSize, subclusterSize } = parts.geometry
  const base = step * clusterSize
  return touchedSubclusters(Math.max(0, start - base), Math.min(end - base, clusterSize), subclusterSize)
}

/** Write all pieces. Resolves when none is under way any more: then they may be linked. */
async function writePieces(
  parts: Parts,
  plan: Plan,
  allocation: Allocation,
  bytes: Uint8Array,
  guest: GuestOffset,
): Promise<void> {
  const written = plan.pieces.map(async (piece) => {
    // Nothing but zeros is there, before and after.
    const isBare = allocation.fresh && plan.showsZeros
    const { start, end } = isBare ? plan : piece
    if (start === plan.start && end === plan.end) {
      await parts.data.write(bytes.subarray(0, end - start), allocation.host + start, guest)
      return
    }
    const base = guest - plan.start
    const filled = new Uint8Array(end - start)
    // Before the guest's bytes, and behind them; of a piece without any, all of it.
    const headEnd = Math.min(Math.max(plan.start, start), end)
    const tailStart = Math.max(Math.min(plan.end, end), headEnd)
    await readGuest(parts, filled.subarray(0, headEnd - start), guestOffset(base + start))
    await readGuest(parts, filled.subarray(tailStart - start), guestOffset(base + tailStart))
    if (tailStart > headEnd)
      filled.set(bytes.subarray(headEnd - plan.start, tailStart - plan.start), headEnd - start)
    await parts.data.write(filled, allocation.host + start, base + start)
  })
  for (const outcome of await Promise.allSettled(written)) {
    if (outcome.status === 'rejected') throw outcome.reason
  }
}

/** Map what was written: from here on readers see it. No await in here. */
function link(
  parts: Parts,
  place: EntryPlace,
  plan: Plan,
  allocation: Allocation,
  isBlank: boolean,
): Section {
  const { geometry, ordering, unsyncedData } = parts
  const { view } = place.slice
  for (let step = 0; step < plan.clusters; step++) {
    const at = place.at + step * geometry.l2EntryBytes
    const touched = touchedIn(parts, step, plan.start, plan.end)
    storeCopied(view, at, allocation.host + step * geometry.clusterSize)
    // What was compressed has been copied as a whole.
    allocateSubclusters(view, at, plan.old.cluster.type === 'compressed' ? allSubclusters : touched)
  }
  if (isBlank) return ordering.linkBlankData(place.slice, allocation.after)
  const linked = ordering.linkData(place.slice, allocation.after)
  for (const { start, end } of plan.pieces) unsyncedData.add(allocation.host + start, end - start, linked)
  return linked
}
