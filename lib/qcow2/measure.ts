import { outOfRange } from '../base/errors.js'
import { alignUp, divideRoundingUp } from '../base/integers.js'
import { entryBytes } from './geometry.js'
import { bitmapEntry, limits } from './spec.js'

/** What the size of an image depends on, apart from its disk. */
export type MeasuredShape = {
  /** Bytes. */
  readonly clusterSize: number
  readonly refcountBits: number
  /** Entries of L2 tables are twice as long. */
  readonly extendedL2: boolean
}

/**
 * Bytes of all metadata of an image whose clusters are all allocated: header, L1, L2 tables, refcount table and blocks.
 * @param size  guest bytes
 * @throws ERR_OUT_OF_RANGE  the L1 table would be larger than an image may have
 */
export function metadataBytes(shape: MeasuredShape, size: number): number {
  const { clusterSize, refcountBits, extendedL2 } = shape
  const dataClusters = divideRoundingUp(size, clusterSize)
  const l2Tables = divideRoundingUp(dataClusters * (extendedL2 ? 2 * entryBytes : entryBytes), clusterSize)
  if (l2Tables > limits.l1Entries) {
    throw outOfRange('The image size is too large (try using a larger cluster size)')
  }
  const l1Clusters = divideRoundingUp(l2Tables * entryBytes, clusterSize)
  const mapping = 1 + l1Clusters + l2Tables
  return (mapping + refcountClusters(mapping + dataClusters, clusterSize, refcountBits)) * clusterSize
}

/** Clusters of the refcount table and blocks that count so many others, and themselves. */
function refcountClusters(others: number, clusterSize: number, refcountBits: number): number {
  const countsPerBlock = (clusterSize * 8) / refcountBits
  for (let found = 0; ;) {
    const blocks = divideRoundingUp(others + found, countsPerBlock)
    const needed = blocks + divideRoundingUp(blocks * entryBytes, clusterSize)
    if (needed === found) return found
    found = needed
  }
}

/** Bytes that persistent bitmaps take in an image: their bits, a table for each, and the directory. @param size  guest bytes */
export function bitmapBytes(
  bitmaps: readonly { readonly name: string; readonly granularity: number }[],
  size: number,
  clusterSize: number,
): number {
  let clusters = 0
  let directoryBytes = 0
  for (const { name, granularity } of bitmaps) {
    const bits = divideRoundingUp(size, granularity)
    const dataClusters = divideRoundingUp(divideRoundingUp(bits, 8), clusterSize)
    clusters += dataClusters + divideRoundingUp(dataClusters * entryBytes, clusterSize)
    directoryBytes += alignUp(bitmapEntry.sizeBytes + Buffer.byteLength(name), 8)
  }
  return (clusters + divideRoundingUp(directoryBytes, clusterSize)) * clusterSize
}
