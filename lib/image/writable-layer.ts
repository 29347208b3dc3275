import { assert } from '../base/assert.js'
import { notSupported, Qcow2Error } from '../base/errors.js'
import { escapeName } from '../qcow2/header-extensions.js'
import type { BlockBackend } from '../queue/backend.js'
import { RawImage } from '../raw/raw-image.js'
import { type ChainSettings, type Layers, openQcow2Layer } from './chain.js'
import { addDataFileLocks, dropDataFileLocks, type OpenDataFile } from './data-file.js'
import { DiskImage } from './disk-image.js'
import { identifyFile, openFile } from './image-file.js'
import type { Layer } from './layers.js'
import { addLocks, dropLocks, lockUse } from './locks.js'
import { openSuited } from './open-suited.js'

/**
 * Make a backing file of an open chain writable, as a disk of its own that stands on what is below. Its locks become a writer's, unless
 * somebody else uses the file: another overlay's user does.
 *
 * The chain's own view of the file is what it was: nothing may be read through that where this one has written. It keeps the locks, so that it is to
 * be closed after this one.
 * @param depth  of the file in `layers`; not 0
 * @throws ERR_IMAGE_LOCKED     somebody else uses it
 * @throws ERR_NOT_SUPPORTED    it is another disk that is open in this process
 * @throws ERR_READ_ONLY, ERR_PERMISSION, ERR_CORRUPT and others of openImage
 */
export async function openWritable(
  layers: Layers,
  depth: number,
  settings: Pick<ChainSettings, 'cache' | 'locking' | 'signal' | 'encryption'>,
): Promise<DiskImage> {
  const layer = layers[depth]
  assert(layer !== undefined && depth > 0, 'a backing file of the chain')
  const { backend: reader, identity } = layer
  const { path } = reader
  if (layer.isBorrowed === true) {
    throw notSupported(
      `'${escapeName(path)}' is open already, and would be written behind its owner's back`,
      {
        path,
      },
    )
  }
  const writing = lockUse(layer.format.format, { readOnly: false, forceShare: false })
  if (settings.locking) addLocks(reader, 'read-only', writing)
  let writer: BlockBackend | undefined
  let dataFile: OpenDataFile | undefined
  let dataIsLocked = false
  try {
    if (settings.locking) addDataFileLocks(layer.dataFile, 'read-write')
    dataIsLocked = settings.locking
    // The locks are on the file, whoever opens it: this descriptor takes none of its own.
    writer = await openSuited(path, { readOnly: false, cache: settings.cache })
    if (identity !== undefined && (await identifyFile(path)) !== identity) {
      throw new Qcow2Error('ERR_IMAGE_LOCKED', `'${escapeName(path)}' is another file now`, { path })
    }
    if (layer.dataFile !== undefined) dataFile = await openAgain(layer.dataFile, settings.cache)
    return await openOn(writer, { ...layer, dataFile }, layers.slice(depth + 1), { ...settings, depth })
  } catch (error) {
    await writer?.close().catch(() => undefined)
    await dataFile?.backend.close().catch(() => undefined)
    if (dataIsLocked) dropDataFileLocks(layer.dataFile, 'read-only')
    if (settings.locking) dropLocks(reader, writing, 'read-only')
    throw error
  }
}

/** For writing; as with the image's file, it is the reader that holds the locks. */
async function openAgain(file: OpenDataFile, cache: ChainSettings['cache']): Promise<OpenDataFile> {
  const { path } = file.backend
  const backend = await openFile(path, { readOnly: false, cache })
  try {
    if ((await identifyFile(path)) === file.identity) return { ...file, backend }
    throw new Qcow2Error('ERR_IMAGE_LOCKED', `'${escapeName(path)}' is another file now`, { path })
  } catch (error) {
    await backend.close().catch(() => undefined)
    throw error
  }
}

async function openOn(
  writer: BlockBackend,
  layer: Layer,
  [first, ...others]: readonly Layer[],
  settings: Pick<ChainSettings, 'cache' | 'signal' | 'encryption'> & { readonly depth: number },
): Promise<DiskImage> {
  const below: Layers | undefined = first && [first, ...others]
  const format =
    layer.format.format === 'raw'
      ? new RawImage(writer)
      : await openQcow2Layer(
          writer,
          below,
          { ...settings, readOnly: false, snapshot: undefined },
          layer.dataFile,
        )
  const writable = { ...layer, format, backend: writer }
  return new DiskImage({
    path: writer.path,
    readOnly: false,
    layers: [writable, ...(below ?? [])],
    owned: [writable],
    rawWasGuessed: layer.rawWasGuessed === true,
    failurePolicy: undefined,
  })
}
