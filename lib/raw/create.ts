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
  if (options.preallocation === 'off') options.onWritten?.(size)
  else await preallocateRaw(backend, { from: 0, to: size, ...options })
}

/** Reserve or write the bytes between two places of a file that reaches behind them. */
export async function preallocateRaw(
  backend: BlockBackend,
  options: {
    from: number
    to: number
    preallocation: RawPreallocation
    signal?: AbortSignal | undefined
    onWritten?: ((bytes: number) => void) | undefined
  },
): Promise<void> {
  const { from, to, preallocation } = options
  if (preallocation === 'off') return
  const zeros =
    preallocation === 'full' ? new Uint8Array(Math.min(zeroRequestSize, Math.max(0, to - from))) : undefined
  for (let offset = from; offset < to; offset += zeroRequestSize) {
    options.signal?.throwIfAborted()
    const length = Math.min(zeroRequestSize, to - offset)
    if (zeros) await backend.write(zeros.subarray(0, length), offset)
    else await backend.allocate(offset, length)
    options.onWritten?.(length)
  }
}
