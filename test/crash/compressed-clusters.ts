import { sectorSize } from '../../lib/base/units.js'

/** A compressed cluster of a start image. Nothing is compressed later, so it shows what it showed at first, or it is broken. */
export type CompressedCluster = {
  /** The guest cluster that it belongs to. */
  readonly guest: number
  /** Of the host's bytes that its descriptor names. */
  readonly offset: number
  readonly bytes: Uint8Array
  /** What each of its sectors shows. */
  readonly values: Int32Array
}

/** What a descriptor names: bytes of the file. qcow2 spec, "Compressed Clusters Descriptor". */
export type CompressedRange = { readonly offset: number; readonly length: number }

/** @param high, low  the L2 entry, with bit 62 set */
export function compressedRange(high: number, low: number, clusterSize: number): CompressedRange {
  // Of the high word's 30 bits so many are of the offset, the others count sectors behind the first.
  const offsetBits = 30 - (Math.log2(clusterSize) - 8)
  const offset = (high & (2 ** offsetBits - 1)) * 2 ** 32 + low
  const sectors = ((high & 0x3fffffff) >>> offsetBits) + 1
  return { offset, length: sectors * sectorSize - (offset % sectorSize) }
}

/** Whether all bytes of it are there. */
export function isWhole({ offset, bytes }: CompressedCluster, file: Uint8Array): boolean {
  return Buffer.compare(bytes, file.subarray(offset, offset + bytes.length)) === 0
}
