import { alignDown, divideRoundingUp } from '../base/integers.js'
import { type GuestOffset, type HostOffset, hostOffset } from '../base/units.js'
import { incompatible } from './spec.js'

/** The largest piece of metadata that is cached, dirtied and written as one. */
const largestSliceBytes = 4096

/** L1, refcount table and standard L2 entries are 64 bits wide. */
export const entryBytes = 8

/** With extended L2 entries a cluster has this many subclusters. */
export const subclustersPerCluster = 32

/**
 * The sizes that follow from an image's header, and all index arithmetic.
 *
 * A *slice* is the part of a table (L2 table, refcount block, L1, refcount table) that is cached and written as one:
 * min(4096, cluster size) bytes, aligned to that in the file. qcow2 spec, "Cluster mapping" and "Host cluster management".
 */
export type Geometry = {
  readonly clusterBits: number
  /** Bytes. */
  readonly clusterSize: number
  /** Bytes. */
  readonly sliceSize: number
  /** L2 entries have a second word, which says for each subcluster what there is. */
  readonly extendedL2: boolean
  /** 8, extended 16. */
  readonly l2EntryBytes: number
  /** Bytes; without extended L2 entries that of a cluster. */
  readonly subclusterSize: number
  readonly l2EntriesPerTable: number
  readonly l2EntriesPerSlice: number
  /** Guest bytes that one L2 table maps. */
  readonly l2TableCoverage: number
  readonly refcountOrder: number
  readonly refcountBits: number
  /** 2^refcountBits - 1, or 2^53 - 1 where that is less: no image has more references to a cluster. */
  readonly refcountMax: number
  readonly refcountsPerBlock: number
  readonly refcountsPerSlice: number
}

/** @param clusterBits 9 to 21, with extended L2 entries from 14 on  @param refcountOrder 0 to 6 */
export function makeGeometry(clusterBits: number, refcountOrder: number, extendedL2 = false): Geometry {
  const clusterSize = 2 ** clusterBits
  const sliceSize = Math.min(largestSliceBytes, clusterSize)
  const refcountBits = 2 ** refcountOrder
  const l2EntryBytes = extendedL2 ? 2 * entryBytes : entryBytes
  return {
    clusterBits,
    clusterSize,
    sliceSize,
    extendedL2,
    l2EntryBytes,
    subclusterSize: extendedL2 ? clusterSize / subclustersPerCluster : clusterSize,
    l2EntriesPerTable: clusterSize / l2EntryBytes,
    l2EntriesPerSlice: sliceSize / l2EntryBytes,
    l2TableCoverage: (clusterSize / l2EntryBytes) * clusterSize,
    refcountOrder,
    refcountBits,
    refcountMax: Math.min(2 ** refcountBits - 1, Number.MAX_SAFE_INTEGER),
    refcountsPerBlock: (clusterSize * 8) / refcountBits,
    refcountsPerSlice: (sliceSize * 8) / refcountBits,
  }
}

/** Of the image with this header. */
export function geometryOf(header: {
  readonly clusterBits: number
  readonly refcountOrder: number
  readonly incompatibleFeatures: bigint
}): Geometry {
  const extendedL2 = (header.incompatibleFeatures & incompatible.extendedL2) !== 0n
  return makeGeometry(header.clusterBits, header.refcountOrder, extendedL2)
}

/** Where a guest byte's entry stands. */
export function l1Index(geometry: Geometry, guest: GuestOffset): number {
  return Math.floor(guest / geometry.l2TableCoverage)
}

/** The index within its L2 table of the entry that maps `guest`. */
export function l2Index(geometry: Geometry, guest: GuestOffset): number {
  return Math.floor(guest / geometry.clusterSize) % geometry.l2EntriesPerTable
}

/** The slice of the table at `table` that holds its entry number `index`. */
export function l2SliceOffset(geometry: Geometry, table: HostOffset, index: number): HostOffset {
  return hostOffset(table + alignDown(index * geometry.l2EntryBytes, geometry.sliceSize))
}

/** L1 entries it takes to map `size` guest bytes. */
export function l1EntriesFor(geometry: Geometry, size: number): number {
  return divideRoundingUp(size, geometry.l2TableCoverage)
}

/** The number of the host cluster that holds a byte of the file. */
export function clusterOf(geometry: Geometry, host: number): number {
  return Math.floor(host / geometry.clusterSize)
}
