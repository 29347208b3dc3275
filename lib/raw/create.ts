import { Qcow2Error } from '../base/errors.js'
import { alignUp } from '../base/integers.js'
import { sectorSize } from '../base/units.js'
import type { BlockBackend } from '../queue/backend.js'

/** 'falloc' reserves the space on the host; 'full' writes zeros over all of it. */
export type RawPreallocation = 'off' | 'falloc' | 'full'

/** Bytes of zeros in one request of a full preallocation. */
const zeroRequestSize = 8 * 1024 * 1024

/**
 * Lay a raw image into an empty file; or make a device one, which keeps its length and, behind the first sector, what it holds.
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
  if (backend.isDevice === true) return createOnDevice(backend, size, options.onWritten)
  await backend.truncate(size)
  if (options.preallocation === 'off') options.onWritten?.(size)
  else await preallocateRaw(backend, { from: 0, to: size, ...options })
}

/** What was there must not be taken for an image of another format. */
async function createOnDevice(
  backend: BlockBackend,
  size: number,
  onWritten: ((bytes: number) => void) | undefined,
): Promise<void> {
  if (size > backend.length) {
    throw new Qcow2Error('ERR_NO_SPACE', 'Cannot grow device files', { path: backend.path })
  }
  await backend.write(new Uint8Array(Math.min(sectorSize, backend.length)), 0)
  await backend.flush()
  onWritten?.(size)
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
