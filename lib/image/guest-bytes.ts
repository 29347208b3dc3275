import { isUint8Array } from 'node:util/types'
import { invalid, outOfRange } from '../base/errors.js'
import { alignedBytes } from '../native/aligned-memory.js'

/** Past the page cache, reads that are shorter are cheaply copied. Bytes. */
const leastAligned = 64 * 1024

/** Memory for what is read. @throws ERR_OUT_OF_RANGE  more than one array can hold, or than there is memory for */
export function newBytes(length: number, direct: boolean): Uint8Array {
  try {
    return direct && length >= leastAligned ? alignedBytes(length) : new Uint8Array(length)
  } catch {
    throw outOfRange(`read: ${length} bytes do not fit into memory at once; read them in pieces`)
  }
}

/** Memory that stays where it is, and whose bytes nobody else changes, until a request has completed. @throws ERR_INVALID_ARGUMENT */
export function checkBytes(bytes: Uint8Array): void {
  if (!isUint8Array(bytes)) throw invalid('the bytes must be a Uint8Array')
  const { buffer } = bytes as { buffer: { resizable?: boolean } }
  if (buffer instanceof SharedArrayBuffer || buffer.resizable === true) {
    throw invalid('the bytes must not lie in a shared or resizable buffer')
  }
}
