import { corrupt } from '../base/errors.js'
import { subclustersPerCluster } from './geometry.js'
import { decodeL2Entry, type L2Entry, type L2EntryRules } from './l2-entry.js'

/**
 * Extended L2 entries: a standard or compressed descriptor, and behind it a word with two bits for each of the cluster's 32 subclusters:
 * bits 32 to 63 say that it reads as zeros, bits 0 to 31 that its bytes stand in the cluster. Neither: the backing file shows. qcow2 spec, "Extended L2 Entries".
 *
 * Sets of subclusters are unsigned 32-bit numbers here; bit 0 is the first subcluster.
 */
export const allSubclusters = 0xffffffff

/** Where the bitmap's halves stand in an entry, bytes. */
const zeroAt = 8
const allocatedAt = 12

/** What an extended entry says about a cluster and its parts. */
export type ExtendedEntry = {
  /** 'unallocated', 'normal' or 'compressed'. */
  readonly cluster: L2Entry
  /** Subclusters whose bytes stand in the cluster; of a compressed one all. */
  readonly allocated: number
  /** Subclusters that read as zeros. */
  readonly zero: number
}

/** What there is where no table is. */
export const emptyEntry: ExtendedEntry = { cluster: { type: 'unallocated' }, allocated: 0, zero: 0 }

/** Subclusters `first` to `last` of a cluster, 0 to 31. */
export function subclusterMask(first: number, last: number): number {
  return ((allSubclusters << first) & (allSubclusters >>> (subclustersPerCluster - 1 - last))) >>> 0
}

/** The subclusters that bytes `start` to, not with, `end` of a cluster touch. */
export function touchedSubclusters(start: number, end: number, subclusterSize: number): number {
  return subclusterMask(Math.floor(start / subclusterSize), Math.ceil(end / subclusterSize) - 1)
}

/** Whether a bitmap, as its halves, says of all of `wanted` that their bytes stand in the cluster, and is sound. */
export function isAllAllocated(view: DataView, byteOffset: number, wanted: number): boolean {
  const allocated = view.getUint32(byteOffset + allocatedAt)
  return (wanted & ~allocated) === 0 && (allocated & view.getUint32(byteOffset + zeroAt)) === 0
}

/**
 * Decode an extended L2 entry.
 * @param at  byte offset of the entry in the file, for the message
 * @throws ERR_CORRUPT  as decodeL2Entry; a subcluster that is in two states, or one in a cluster that is not there
 */
export function decodeExtended(
  view: DataView,
  byteOffset: number,
  rules: L2EntryRules,
  at: number,
): ExtendedEntry {
  const cluster = decodeL2Entry(view.getUint32(byteOffset), view.getUint32(byteOffset + 4), rules, at)
  // Its bitmap must be 0; QEMU reads the cluster whatever it is, and a check tells.
  if (cluster.type === 'compressed') return { cluster, allocated: allSubclusters, zero: 0 }
  const { allocated, zero } = loadSubclusters(view, byteOffset)
  if (cluster.type === 'unallocated' && allocated !== 0)
    throw corrupt('L2 entry', at, 'subclusters are allocated in a cluster that is not')
  if ((allocated & zero) !== 0)
    throw corrupt('L2 entry', at, 'a subcluster is both allocated and marked as zeros')
  return { cluster, allocated, zero }
}

/** An entry's second word, as it is. */
export function loadSubclusters(view: DataView, byteOffset: number): { allocated: number; zero: number } {
  return { allocated: view.getUint32(byteOffset + allocatedAt), zero: view.getUint32(byteOffset + zeroAt) }
}

/** Store an entry's second word. */
export function storeSubclusters(view: DataView, byteOffset: number, allocated: number, zero: number): void {
  view.setUint32(byteOffset + zeroAt, zero)
  view.setUint32(byteOffset + allocatedAt, allocated)
}

/** The bytes of these subclusters stand in the cluster from now on. */
export function allocateSubclusters(view: DataView, byteOffset: number, touched: number): void {
  const { allocated, zero } = loadSubclusters(view, byteOffset)
  storeSubclusters(view, byteOffset, (allocated | touched) >>> 0, (zero & ~touched) >>> 0)
}

/** What one subcluster is, as if it were an entry of its own. `host`: of its cluster. @param index  0 to 31 */
export function subclusterEntry({ cluster, allocated, zero }: ExtendedEntry, index: number): L2Entry {
  if (cluster.type !== 'normal') {
    return isIn(zero, index) ? { type: 'zero', host: undefined, copied: false } : cluster
  }
  if (isIn(allocated, index)) return cluster
  const { host, copied } = cluster
  return isIn(zero, index) ? { type: 'zero', host, copied } : { type: 'unallocated', host }
}

/** How many subclusters from `index` on are in the same state. */
export function alikeFrom({ allocated, zero }: ExtendedEntry, index: number): number {
  if (isIn(allocated, index)) return onesFrom(allocated, index)
  if (isIn(zero, index)) return onesFrom(zero, index)
  return onesFrom(~(allocated | zero), index)
}

/** The runs of a set: first and behind last, in order. */
export function* runsOf(set: number): Generator<readonly [first: number, end: number]> {
  for (let index = 0; index < subclustersPerCluster;) {
    if (isIn(set, index)) {
      const end = index + onesFrom(set, index)
      yield [index, end]
      index = end
    } else index += onesFrom(~set, index)
  }
}

function isIn(set: number, index: number): boolean {
  return ((set >>> index) & 1) === 1
}

/** How many bits in a row are set from `index` on. */
function onesFrom(set: number, index: number): number {
  const clear = ~(set >> index)
  // Shifted in from above is the topmost bit: ones there mean that the run reaches the end.
  if (clear === 0) return subclustersPerCluster - index
  return Math.min(31 - Math.clz32(clear & -clear), subclustersPerCluster - index)
}
