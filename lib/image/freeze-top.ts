import { addDataFileLocks, dropDataFileLocks } from './data-file.js'
import type { Layer } from './layers.js'
import { addLocks, dropLocks, lockUse } from './locks.js'

/**
 * Make the top of a disk what a backing file is: all its changes ended and durable, nothing left of a writer's session. The caller lets no change begin.
 * If this fails, the layer and its locks are as before.
 * @returns lets go of a writer's locks, when nothing can go wrong any more; a reader's are held
 */
export async function freezeTop({ format, backend, dataFile }: Layer, locking: boolean): Promise<() => void> {
  const writing = lockUse(format.format, { readOnly: false, forceShare: false })
  await format.changesEnded()
  if (locking) addLocks(backend, writing, 'read-only')
  let dataIsLocked = false
  try {
    if (locking) addDataFileLocks(dataFile, 'read-only')
    dataIsLocked = locking
    await format.freeze()
  } catch (error) {
    if (dataIsLocked) dropDataFileLocks(dataFile, 'read-write')
    if (locking) dropLocks(backend, 'read-only', writing)
    throw error
  }
  return () => {
    if (!locking) return
    dropLocks(backend, writing, 'read-only')
    dropDataFileLocks(dataFile, 'read-only')
  }
}
