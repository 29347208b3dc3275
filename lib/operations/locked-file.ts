import { identifyFile, openFile } from '../image/image-file.js'
import { lockUse, takeLocks } from '../image/locks.js'
import { openFailure } from '../image/open-failure.js'
import { type ImageFormat, probeFormat } from '../image/probe.js'
import type { BlockBackend } from '../queue/backend.js'

/**
 * Open the file of a qcow2 image, with locks on it, without opening what it refers to: for work on its metadata.
 * @param format  undefined: probed
 * @returns undefined for a raw image
 * @throws as openImage
 */
export async function openLocked(
  path: string,
  format: ImageFormat | undefined,
  settings: Parameters<typeof openFile>[1] & { readonly forceShare: boolean; readonly locking: boolean },
): Promise<BlockBackend | undefined> {
  try {
    await identifyFile(path)
    const backend = await openFile(path, settings)
    try {
      const found = format ?? (await probeFormat(backend))
      if (found === 'qcow2') {
        if (settings.locking) takeLocks(backend, lockUse(found, settings))
        return backend
      }
    } catch (error) {
      await backend.close()
      throw error
    }
    await backend.close()
    return undefined
  } catch (error) {
    throw openFailure(path, error)
  }
}
