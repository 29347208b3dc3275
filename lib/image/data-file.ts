import { Qcow2Error } from '../base/errors.js'
import type { Header } from '../qcow2/header.js'
import type { BlockBackend } from '../queue/backend.js'
import type { CacheSettings } from './cache-modes.js'
import { type DataFileGate, dataFileDenied, passDataFileGate } from './data-file-gate.js'
import { type FileIdentity, identifyFile, openFile } from './image-file.js'
import { addLocks, dropLocks, type LockUse, takeLocks } from './locks.js'

/** The external data file of an image of a chain. The image closes it. */
export type OpenDataFile = { readonly backend: BlockBackend; readonly identity: FileIdentity }

export type DataFileSettings = {
  readonly readOnly: boolean
  readonly forceShare: boolean
  readonly locking: boolean
  readonly cache: CacheSettings
  readonly dataGate: DataFileGate
}

/**
 * Open the data file of an image, if the gate lets it pass. Locked as QEMU locks one.
 * @param taken  the files of the chain: none of them can be it
 * @throws ERR_DATA_FILE_DENIED, ERR_IMAGE_LOCKED, and as openFile
 */
export async function openDataFile(
  header: Header,
  image: string,
  settings: DataFileSettings,
  taken: readonly (FileIdentity | undefined)[],
): Promise<OpenDataFile> {
  const reference = { name: header.dataFile, image }
  const path = await passDataFileGate(settings.dataGate, reference)
  try {
    const identity = await identifyFile(path)
    if (taken.includes(identity)) {
      throw dataFileDenied(reference, 'it is the image itself, or another file of its chain')
    }
    const backend = await openFile(path, settings)
    try {
      if (settings.locking) takeLocks(backend, dataFileUse(settings))
      return { backend, identity }
    } catch (error) {
      await backend.close().catch(() => undefined)
      throw error
    }
  } catch (error) {
    throw ofImage(image, error)
  }
}

/** What fails is the opening of the image: its data file is no file of the chain. The message names it. */
function ofImage(image: string, error: unknown): unknown {
  if (!(error instanceof Qcow2Error)) return error
  const { code, message, errno } = error
  return new Qcow2Error(code, message, {
    path: image,
    structure: 'external data file name extension',
    ...(errno === undefined ? {} : { errno }),
    cause: error,
  })
}

function dataFileUse(access: { readOnly: boolean; forceShare: boolean }): LockUse {
  if (access.forceShare) return 'force-share'
  return access.readOnly ? 'data file read-only' : 'data file read-write'
}

/** As `addLocks`, for an image that becomes writable or ceases to be. */
export function addDataFileLocks(file: OpenDataFile | undefined, to: 'read-only' | 'read-write'): void {
  const from = to === 'read-only' ? 'data file read-write' : 'data file read-only'
  if (file !== undefined) addLocks(file.backend, from, `data file ${to}`)
}

/** As `dropLocks`: from here on it is used as `to` says. */
export function dropDataFileLocks(file: OpenDataFile | undefined, to: 'read-only' | 'read-write'): void {
  const from = to === 'read-only' ? 'data file read-write' : 'data file read-only'
  if (file !== undefined) dropLocks(file.backend, from, `data file ${to}`)
}
