import { alignUp } from '../base/integers.js'
import { sectorSize } from '../base/units.js'
import type { BlockBackend } from '../queue/backend.js'

/** 'falloc' reserves the space on the host; 'full' writes zeros over all of it. */
export type RawPreallocation = 'off' | 'falloc' | 'full'

/** Bytes of zeros in one request of a full preallocation. */
const zeroRequestSize = 8 * 1024 * 1024

/**
 * Lay a raw image into an empty file.
 * @param options.size        bytes, rounded up to whole sectors
 * @param options.onWritten   told of every piece that is reserved or written: bytes
 */
export async function createRaw(
  backend: BlockBackend,
  options: {
    size: number
    preallocation: RawPreallocation
    signal?: AbortSignal | undefined
    onWritten?: ((bytes: number) => void) | undefined
  },
): Promise<void> {
  const size = alignUp(options.size, sectorSize)
  await backend.truncate(size)
  if (options.preallocation === 'off') {
    options.onWritten?.(size)
    return
  }
  const zeros = options.preallocation === 'full' ? new Uint8Array(Math.min(zeroRequestSize, size)) : undefined
  for (let offset = 0; offset < size; offset += zeroRequestSize) {
    options.signal?.throwIfAborted()
    const length = Math.min(zeroRequestSize, size - offset)
    if (zeros) await backend.write(zeros.subarray(0, length), offset)
    else await backend.allocate(offset, length)
    options.onWritten?.(length)
  }
}
