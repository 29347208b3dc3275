import type { Geometry } from './geometry.js'

/**
 * One entry of a refcount block. Widths below 8 bits are packed from the least significant bit of a byte upwards; wider
 * ones are big-endian. qcow2 spec, "Host cluster management".
 *
 * @param view   the block or a slice of it
 * @param index  entry number within the view
 * @returns the count; a 64-bit one beyond 2^53 is returned as 2^53 - 1 (it can only be corrupt)
 */
export function loadRefcount(view: DataView, index: number, geometry: Geometry): number {
  switch (geometry.refcountOrder) {
    case 3:
      return view.getUint8(index)
    case 4:
      return view.getUint16(index * 2)
    case 5:
      return view.getUint32(index * 4)
    case 6: {
      const high = view.getUint32(index * 8)
      return high > 0x1fffff ? Number.MAX_SAFE_INTEGER : high * 2 ** 32 + view.getUint32(index * 8 + 4)
    }
    default: {
      const { bits, shift, byte } = packed(index, geometry)
      return (view.getUint8(byte) >>> shift) & (2 ** bits - 1)
    }
  }
}

/** @param count  0 to geometry.refcountMax */
export function storeRefcount(view: DataView, index: number, geometry: Geometry, count: number): void {
  switch (geometry.refcountOrder) {
    case 3:
      view.setUint8(index, count)
      return
    case 4:
      view.setUint16(index * 2, count)
      return
    case 5:
      view.setUint32(index * 4, count)
      return
    case 6:
      view.setUint32(index * 8, Math.floor(count / 2 ** 32))
      view.setUint32(index * 8 + 4, count % 2 ** 32)
      return
    default: {
      const { bits, shift, byte } = packed(index, geometry)
      const others = view.getUint8(byte) & ~((2 ** bits - 1) << shift)
      view.setUint8(byte, others | (count << shift))
    }
  }
}

/** The lowest run of at most `most` entries that are 0, at or behind entry `from` of a slice. */
export function freeRun(
  view: DataView,
  from: number,
  most: number,
  geometry: Geometry,
): { index: number; length: number } | undefined {
  const end = geometry.refcountsPerSlice
  let index = from
  while (index < end && loadRefcount(view, index, geometry) !== 0) index++
  if (index === end) return undefined
  let length = 1
  while (length < most && index + length < end && loadRefcount(view, index + length, geometry) === 0) length++
  return { index, length }
}

function packed(index: number, geometry: Geometry): { bits: number; shift: number; byte: number } {
  const bits = geometry.refcountBits
  const perByte = 8 / bits
  return { bits, shift: (index % perByte) * bits, byte: Math.floor(index / perByte) }
}
