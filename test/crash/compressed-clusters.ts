import { inflateRawSync, constants } from 'node:zlib'
import { sectorSize } from '../../lib/base/units.js'
import { garbageValue, readPayload, valueAt } from './payload.js'

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

/**
 * What the sectors of a compressed cluster show.
 * @param file      up to its end
 * @param firstLba  of the guest cluster that it is mapped at
 */
export function compressedValues(
  file: Uint8Array,
  { offset, length }: CompressedRange,
  clusterSize: number,
  firstLba: number,
): Int32Array {
  const values = new Int32Array(clusterSize / sectorSize).fill(garbageValue)
  let bytes: Uint8Array
  try {
    const payload = file.subarray(offset, offset + length)
    bytes = inflateRawSync(payload, { finishFlush: constants.Z_SYNC_FLUSH, maxOutputLength: clusterSize })
  } catch {
    return values
  }
  if (bytes.length !== clusterSize) return values
  for (let step = 0; step < values.length; step++) {
    const payload = readPayload(bytes, step * sectorSize)
    values[step] = valueAt(firstLba + step, payload.lba, payload.generation)
  }
  return values
}
