import { Qcow2Error } from '../base/errors.js'
import { escapeName } from './header-extensions.js'
import { SparseBits } from './bitmap-bits.js'
import { nameOf } from './bitmap-directory.js'
import { bitsFor, onePage, type StoredBitmap, tableEntriesFor, zeroPage } from './bitmap-table.js'
import type { Geometry } from './geometry.js'
import { bitmapFlags } from './spec.js'

/**
 * A bitmap of an open image. What it says is what `pages` say, and what it has gained since: guests' writes only ever set bits, so that those need not be
 * read for it. Objects are not changed but for `changes` and `pages` of one that is resized: an operation makes new ones, which count when they are stored.
 */
export type Bitmap = {
  readonly name: string
  readonly nameBytes: Uint8Array
  readonly extra: Uint8Array
  readonly isExtraCompatible: boolean
  readonly granularityBits: number
  /** Follows the changes of the disk. */
  readonly enabled: boolean
  /** Its last writer has not stored it: what it says means nothing, and it can only be removed. */
  readonly isInconsistent: boolean
  /** By page: zeroPage, onePage, or the host offset of a cluster of `stored`. */
  pages: Float64Array
  readonly changes: SparseBits
  /** The last page may hold bits behind the end of the disk. */
  isCut: boolean
  /** What the file holds of it; undefined while it is new. */
  readonly stored: { readonly host: number; readonly pages: Float64Array } | undefined
}

/** Chunks of bits in memory: what a page is a multiple of. */
export function newBits(geometry: Geometry): SparseBits {
  return new SparseBits(geometry.sliceSize)
}

export function bitmapOf(stored: StoredBitmap, geometry: Geometry): Bitmap {
  const { nameBytes, extra, flags, granularityBits, tableOffset, pages } = stored
  return {
    name: nameOf(stored),
    nameBytes,
    extra,
    isExtraCompatible: (flags & bitmapFlags.extraCompatible) !== 0,
    granularityBits,
    enabled: (flags & bitmapFlags.auto) !== 0,
    isInconsistent: (flags & bitmapFlags.inUse) !== 0,
    pages,
    changes: newBits(geometry),
    isCut: false,
    stored: { host: tableOffset, pages },
  }
}

/** A bitmap in which no bit is set. */
export function emptyBitmap(
  geometry: Geometry,
  size: number,
  given: { name: string; granularityBits: number; enabled: boolean },
): Bitmap {
  const { name, granularityBits, enabled } = given
  return {
    name,
    nameBytes: Buffer.from(name, 'utf8'),
    extra: new Uint8Array(0),
    isExtraCompatible: false,
    granularityBits,
    enabled,
    isInconsistent: false,
    pages: new Float64Array(tableEntriesFor(geometry.clusterSize, size, granularityBits)),
    changes: newBits(geometry),
    isCut: false,
    stored: undefined,
  }
}

/** With extra data that nobody here understands, and that says of itself that it must be understood. */
export function isForeign({ extra, isExtraCompatible }: Bitmap): boolean {
  return extra.length > 0 && !isExtraCompatible
}

/** Whether the disk's changes are marked in it. */
export function isRunning(bitmap: Bitmap): boolean {
  return bitmap.enabled && !bitmap.isInconsistent && !isForeign(bitmap)
}

/** @throws ERR_BITMAP_NOT_FOUND */
export function findBitmap(list: readonly Bitmap[], name: string, path: string): Bitmap {
  const found = list.find((bitmap) => bitmap.name === name)
  if (found !== undefined) return found
  throw new Qcow2Error('ERR_BITMAP_NOT_FOUND', `Dirty bitmap '${escapeName(name)}' not found`, {
    path,
    structure: 'bitmap directory',
  })
}

/** @throws ERR_BITMAP_INCONSISTENT  what it says means nothing, or nobody knows what it means */
export function refuseUnusable(bitmap: Bitmap, path: string): void {
  if (!bitmap.isInconsistent && !isForeign(bitmap)) return
  const name = escapeName(bitmap.name)
  const what = bitmap.isInconsistent
    ? `Bitmap '${name}' is inconsistent and cannot be used`
    : `Bitmap '${name}' has extra data that is not understood, and cannot be used`
  throw new Qcow2Error('ERR_BITMAP_INCONSISTENT', what, { path, structure: 'bitmap directory entry' })
}

/** The disk gets another size. What it grows by is marked where changes are: a disk that was cut off before shows zeros there, where it had bytes. */
export function resizeBitmap(bitmap: Bitmap, geometry: Geometry, from: number, to: number): void {
  if (bitmap.isInconsistent || isForeign(bitmap)) return
  const { granularityBits, changes } = bitmap
  const before = bitmap.pages
  const pages = new Float64Array(tableEntriesFor(geometry.clusterSize, to, granularityBits))
  pages.set(before.subarray(0, pages.length))
  bitmap.pages = pages
  if (to > from) {
    if (bitmap.enabled) changes.set(Math.floor(from / 2 ** granularityBits), bitsFor(to, granularityBits) - 1)
    return
  }
  const bits = bitsFor(to, granularityBits)
  changes.truncate(bits)
  const last = pages.length - 1
  const pageBits = geometry.clusterSize * 8
  if (bits === pages.length * pageBits) return
  if (pages[last] === onePage) {
    pages[last] = zeroPage
    changes.set(last * pageBits, bits - 1)
  } else if (pages[last] !== zeroPage) bitmap.isCut = true
}
