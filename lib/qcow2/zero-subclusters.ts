import { assert } from '../base/assert.js'
import { alignDown } from '../base/integers.js'
import { type GuestOffset, guestOffset, type Section } from '../base/units.js'
import { punchDropped, unlinkTable, zeroRaw } from './data-file.js'
import { type L2Entry, storeCopied, storeUnallocated } from './l2-entry.js'
import { changingSlice, type Parts } from './parts.js'
import { refuseMetadata } from './replaced-clusters.js'
import { allSubclusters, type ExtendedEntry, storeSubclusters, touchedSubclusters } from './subclusters.js'
import type { MappingChange } from './zero-discard.js'

/** What an entry becomes. `host`: the cluster that it keeps. */
type Changed = { readonly host: number | undefined; readonly allocated: number; readonly zero: number }

/**
 * Change what extended L2 entries map, slice by slice, with the guest clusters of each locked. Clusters that are covered as a whole are changed as
 * standard ones are; of others the covered subclusters become zeros, and their clusters stay: they hold other things too. What is compressed cannot be changed in part, and stays.
 * @param guest  aligned to subclusters, as is the end; both to clusters, unless the range is to become zeros
 */
export async function changeSubclusters(
  parts: Parts,
  guest: GuestOffset,
  length: number,
  change: MappingChange,
): Promise<void> {
  const coverage = parts.geometry.l2EntriesPerSlice * parts.geometry.clusterSize
  for (let done = 0; done < length;) {
    const at = guestOffset(guest + done)
    const skipped = alikeAndRight(parts, at, length - done, change)
    if (skipped > 0) {
      // Nothing to do here, possibly for a whole table's worth: no lock, no table.
      done += skipped
      continue
    }
    const piece = Math.min(length - done, coverage - (at % coverage))
    const { clusterSize } = parts.geometry
    const first = Math.floor(at / clusterSize)
    const last = Math.floor((at + piece - 1) / clusterSize)
    await changingSlice(parts, { first, last }, () => changeEntries(parts, at, piece, change))
    done += piece
  }
}

/** Bytes at the start of a range that are mapped alike, to no cluster, and may stay so: whole clusters. */
function alikeAndRight(parts: Parts, guest: GuestOffset, length: number, change: MappingChange): number {
  const run = parts.l2.lookup(guest, length)
  if ('load' in run || run.entry.host !== undefined) return 0
  const zero = run.entry.type === 'zero' ? allSubclusters : 0
  const entry: ExtendedEntry = { cluster: { type: 'unallocated' }, allocated: 0, zero }
  if (changed(parts, entry, guest, allSubclusters, change) !== undefined) return 0
  if (run.length === length) return length
  return Math.max(0, alignDown(guest + run.length, parts.geometry.clusterSize) - guest)
}

/** Change the entries in one slice, if any has to be. */
async function changeEntries(
  parts: Parts,
  guest: GuestOffset,
  length: number,
  change: MappingChange,
): Promise<void> {
  const { l2, ordering, geometry } = parts
  if (parts.dataFile?.isRaw === true) {
    await zeroAllocated(parts, guest, length, change)
    if (change !== 'unallocate') return
  }
  for (;;) {
    const found = l2.clusterEntry(guest)
    if ('load' in found) await parts.l2Cache.load(found.load)
    else if ([...changesIn(parts, guest, length, change)].length === 0) return
    else if (l2.writablePlace(guest) === undefined) await l2.prepareWritable(guest)
    else break
  }
  // No await from here on until all of them are changed.
  const dropped: Dropped[] = []
  const place = l2.writablePlace(guest)
  assert(place !== undefined, 'found just now')
  const { view } = place.slice
  for (const { step, old, next } of changesIn(parts, guest, length, change)) {
    refuseMetadata(parts, old.cluster, geometry.clusterSize)
    const at = place.at + step * geometry.l2EntryBytes
    if (next.host === undefined) storeUnallocated(view, at)
    // A cluster that is shared goes on being so: its flag stays as it is.
    else if (old.cluster.type === 'normal' && old.cluster.copied) storeCopied(view, at, next.host)
    storeSubclusters(view, at, next.allocated, next.zero)
    const start = guest - (guest % geometry.clusterSize) + step * geometry.clusterSize
    if (next.host === undefined) dropped.push({ cluster: old.cluster, start })
  }
  const removal = unlinkTable(parts, place.slice)
  if (parts.dataFile === undefined) free(parts, dropped, removal)
  else if (change === 'discard' || change === 'zero-unmap') {
    for (const { cluster, start } of dropped) {
      if (cluster.host !== undefined)
        await punchDropped(parts, { start, length: geometry.clusterSize }, removal)
    }
  }
  await ordering.completed(removal)
}

/** An entry that keeps no cluster. `start`: of the guest's. */
type Dropped = { readonly cluster: L2Entry; readonly start: number }

function free({ frees, geometry }: Parts, dropped: readonly Dropped[], removal: Section): void {
  for (const { cluster } of dropped) {
    if (cluster.host === undefined) continue
    const bytes = cluster.type === 'compressed' ? cluster.bytes : geometry.clusterSize
    frees.add(cluster.host, bytes, { removal, punch: true, wasTable: false })
  }
}

/** Of a raw data file zeros come before the entries that say so; what goes on being mapped shows them at once. */
async function zeroAllocated(
  parts: Parts,
  guest: GuestOffset,
  length: number,
  change: MappingChange,
): Promise<void> {
  for (let done = 0; done < length;) {
    const at = guestOffset(guest + done)
    const run = await parts.l2.find(at, length - done)
    if (run.entry.type === 'normal') await zeroRaw(parts, at, run.length, { unmap: change !== 'zero' })
    done += run.length
  }
  await parts.ordering.dataWritten()
}

/** The entries of a range within one slice that have to be changed. `step`: clusters behind the first. */
function* changesIn(
  parts: Parts,
  guest: GuestOffset,
  length: number,
  change: MappingChange,
): Generator<{ readonly step: number; readonly old: ExtendedEntry; readonly next: Changed }> {
  const { clusterSize, subclusterSize } = parts.geometry
  const first = alignDown(guest, clusterSize)
  for (let cluster = first; cluster < guest + length; cluster += clusterSize) {
    const old = parts.l2.clusterEntry(guestOffset(cluster))
    assert(!('load' in old), 'the slice is in memory')
    const start = Math.max(guest, cluster) - cluster
    const end = Math.min(guest + length - cluster, clusterSize)
    const covered = touchedSubclusters(start, end, subclusterSize)
    const next = changed(parts, old, cluster, covered, change)
    if (next !== undefined) yield { step: (cluster - first) / clusterSize, old, next }
  }
}

/** What an entry becomes, or undefined when it may stay as it is. @param guest  of its cluster's start, or behind */
function changed(
  parts: Parts,
  old: ExtendedEntry,
  guest: number,
  covered: number,
  change: MappingChange,
): Changed | undefined {
  const { cluster, allocated, zero } = old
  const isMapped = cluster.type !== 'unallocated'
  if (change === 'unallocate') {
    return isMapped || zero !== 0 ? { host: undefined, allocated: 0, zero: 0 } : undefined
  }
  const isWhole = covered === allSubclusters
  const hidesAll = zero === allSubclusters
  // Beyond the backing file an unallocated subcluster reads as zeros as it is; but not on every backing file.
  const showsBacking = change === 'zero-over' || (parts.backing !== undefined && guest < parts.backing.size)
  const isRight = (covered & (allocated | (showsBacking ? ~zero : 0))) === 0
  if (!isWhole) {
    const isZeroing = change === 'zero' || change === 'zero-unmap' || change === 'zero-over'
    assert(isZeroing, 'parts of clusters are only made zeros')
    if (isRight || cluster.type === 'compressed') return undefined
    return { host: cluster.host, allocated: (allocated & ~covered) >>> 0, zero: (zero | covered) >>> 0 }
  }
  if (change === 'zero') {
    if (isRight) return undefined
    const kept = cluster.type === 'normal' && cluster.copied ? cluster.host : undefined
    return { host: kept, allocated: 0, zero: allSubclusters }
  }
  if (!isMapped && (hidesAll || isRight)) return undefined
  return { host: undefined, allocated: 0, zero: allSubclusters }
}
