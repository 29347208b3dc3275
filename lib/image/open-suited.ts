import { parseClusterBits } from '../qcow2/header.js'
import type { BlockBackend } from '../queue/backend.js'
import { openFile } from './image-file.js'

/** The largest unit of metadata that is written at a time, in bytes; smaller clusters are written whole. */
const largestUnit = 4096

/** The bytes of a header that say how large the clusters are, and more than those. */
const headerBytes = 512

/**
 * Open an image's file as asked for; but with the page cache where it is bypassed in units that are larger than those of the
 * image's metadata: one unit would then hold bytes of several owners, whose writes would undo one another.
 * The backend's `direct` says what became of it.
 */
export async function openSuited(
  path: string,
  options: Parameters<typeof openFile>[1],
): Promise<BlockBackend> {
  const backend = await openFile(path, options)
  try {
    if (options.readOnly || !backend.direct || (await hasRoomForUnits(backend))) return backend
  } catch (error) {
    await backend.close().catch(() => undefined)
    throw error
  }
  await backend.close()
  return openFile(path, { ...options, cache: { ...options.cache, direct: false } })
}

async function hasRoomForUnits(backend: BlockBackend): Promise<boolean> {
  const start = new Uint8Array(Math.min(headerBytes, backend.length))
  await backend.read(start, 0)
  let clusterBits: number
  try {
    clusterBits = parseClusterBits(start, backend.path)
  } catch {
    // Raw, or no image at all: whoever opens it finds out.
    return true
  }
  return Math.min(largestUnit, 2 ** clusterBits) >= backend.alignment
}
