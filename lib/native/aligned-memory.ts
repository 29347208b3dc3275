import { alignUp } from '../base/integers.js'
import { addon } from './addon.js'

/** What no disk and no file system asks more of. Bytes. */
const alignment = 4096

/** A large page. Of small ones a request of this size has 512, each to be pinned and to be told to the disk. Bytes. */
const largePage = 2 ** 21

/**
 * Memory for requests to an image that bypasses the host's page cache (`DiskImage.direct`): O_DIRECT wants it to begin at a multiple of some
 * power of two, and requests from other memory go by way of a copy, 256 KiB at a time. It is a view into an ordinary ArrayBuffer, which is
 * a little larger; those that a native library brings along are forbidden in Electron. Use it again and again: making it costs more than a request.
 * From 2 MiB on the host may back it with large pages, which makes large requests much faster.
 * @param length  bytes
 * @returns zeros, at an address that is a multiple of 4096
 * @throws RangeError  more than one array can hold, or than there is memory for
 */
export function alignedBytes(length: number): Uint8Array {
  if (length < largePage) return alignedTo(alignment, length)
  const bytes = alignedTo(largePage, length)
  addon().useLargePages(bytes)
  return bytes
}

function alignedTo(unit: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length + unit)
  const misalignment = addon().misalignment(bytes, unit)
  const skipped = alignUp(misalignment, unit) - misalignment
  return bytes.subarray(skipped, skipped + length)
}
