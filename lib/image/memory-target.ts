import type { MemoryFile } from '../queue/memory-file.js'
import { exists, type TargetOptions } from './atomic-target.js'
import { takeLocks } from './locks.js'

/**
 * As `writeTarget`, in memory: a file of its own is filled, and what it holds takes the place of what the target holds, or nothing does.
 * @param write  fills the given file, which is empty, and closes what it has opened
 * @throws ERR_EXISTS, ERR_IMAGE_LOCKED (the file to be replaced is in use), the signal's reason
 */
export async function writeMemoryTarget<T>(
  target: MemoryFile,
  options: TargetOptions,
  write: (temporary: MemoryFile) => Promise<T>,
): Promise<T> {
  const checkAbsent = (): void => {
    if (target.length > 0 && !options.overwrite) throw exists(target.name)
  }
  checkAbsent()
  const replaced = target.openBackend({ readOnly: false, syncPolicy: 'never' })
  try {
    if (options.locking) takeLocks(replaced, 'creation')
    const temporary = target.another()
    const result = await write(temporary)
    options.signal?.throwIfAborted()
    // Somebody else may have made one meanwhile.
    checkAbsent()
    target.become(temporary)
    return result
  } finally {
    await replaced.close()
  }
}
