import { Qcow2Error } from '../base/errors.js'
import type { BlockBackend } from '../queue/backend.js'
import type { SnapshotReference } from '../queue/format-image.js'
import { belowTop, type Encryption } from '../qcow2/encryption.js'
import type { Header } from '../qcow2/header.js'
import { escapeName } from '../qcow2/header-extensions.js'
import { openQcow2, type Qcow2Image } from '../qcow2/image.js'
import { readHeader } from '../qcow2/open-metadata.js'
import { incompatible } from '../qcow2/spec.js'
import { RawImage } from '../raw/raw-image.js'
import { type BackingGate, maxBackingDepth, passGate } from './backing-gate.js'
import { hasDataFile } from '../qcow2/data-file.js'
import type { CacheSettings } from './cache-modes.js'
import { type OpenDataFile, openDataFile } from './data-file.js'
import type { DataFileGate } from './data-file-gate.js'
import { DiskImage } from './disk-image.js'
import { type FileIdentity, identifyFile, openFile } from './image-file.js'
import { type Layer, LayersBelow } from './layers.js'
import { lockUse, takeLocks } from './locks.js'
import { openSuited } from './open-suited.js'
import { type ImageFormat, probeFormat } from './probe.js'

/** How the images of a chain are opened. */
export type ChainSettings = {
  /** Of the first; the backing files are read-only always. */
  readonly readOnly: boolean
  /** Beside a writer. Read-only images alone. */
  readonly forceShare: boolean
  readonly locking: boolean
  /** Open a qcow2 file that was cut short, to read what is left. Read-only images alone. */
  readonly salvaging?: boolean
  readonly cache: CacheSettings
  /** 'ignore': the backing file is not even asked for; the image shows zeros in its place. For work on the header alone. */
  readonly gate: BackingGate | 'ignore'
  readonly dataGate: DataFileGate
  readonly signal: AbortSignal | undefined
  /** Of all that are encrypted. */
  readonly encryption?: Encryption | undefined
  /** Of the first. */
  readonly snapshot: SnapshotReference | undefined
}

/** An image and what it stands on, from the top. */
export type Layers = readonly [Layer, ...Layer[]]

export type Chain = {
  readonly layers: Layers
  /** Those opened here: to be closed by their owner. */
  readonly owned: readonly Layer[]
  /** The format of the first was not given, and nothing but the lack of a magic said raw. */
  readonly rawWasGuessed: boolean
}

/**
 * Open an image and, where it refers to backing files that the gate lets pass, those too. All locks are taken before what
 * they guard is read. What was opened is closed again if it fails.
 * @param source  a path, or a file that is open already: it is owned from here on
 * @param format  undefined: probe
 */
export async function openChain(
  source: string | BlockBackend,
  format: ImageFormat | undefined,
  settings: ChainSettings,
): Promise<Chain> {
  if (typeof source === 'string') {
    const identity = await identifyFile(source)
    const backend = await openSuited(source, { readOnly: settings.readOnly, cache: settings.cache })
    return openLayers(backend, format, settings, {
      above: [identity],
      depth: 0,
      reference: undefined,
      wasGuessed: format === undefined,
    })
  }
  return openLayers(source, format, settings, {
    above: [],
    depth: 0,
    reference: undefined,
    wasGuessed: format === undefined,
  })
}

/** How a file of a chain was come by. */
type Origin = {
  /** The files from the top to this one, which is the last. */
  readonly above: readonly FileIdentity[]
  /** 0: the top. */
  readonly depth: number
  /** Undefined: the top. */
  readonly reference: string | undefined
  /** Its format is what it looks like, since nobody has named one. */
  readonly wasGuessed: boolean
}

async function openLayers(
  backend: BlockBackend,
  format: ImageFormat | undefined,
  settings: ChainSettings,
  origin: Origin,
): Promise<Chain> {
  const common = { backend, identity: origin.above.at(-1), reference: origin.reference }
  let below: Chain | undefined
  let dataFile: OpenDataFile | undefined
  try {
    const found = await lockAndProbe(backend, format, settings)
    settings.signal?.throwIfAborted()
    if (found === 'raw') {
      if (settings.snapshot !== undefined) {
        throw new Qcow2Error('ERR_SNAPSHOT_NOT_FOUND', 'A raw image has no snapshots', { path: backend.path })
      }
      const layer = { ...common, format: new RawImage(backend), rawWasGuessed: origin.wasGuessed }
      return { layers: [layer], owned: [layer], rawWasGuessed: origin.wasGuessed }
    }
    const { header } = await readHeader(backend)
    if (header.backingFile !== undefined && settings.gate !== 'ignore') {
      below = await openBacking(header, header.backingFile, backend.path, {
        ...settings,
        gate: settings.gate,
        above: origin.above,
        depth: origin.depth + 1,
      })
    }
    if (hasDataFile(header)) {
      const taken = (below?.layers ?? []).flatMap((layer) => [layer.identity, layer.dataFile?.identity])
      dataFile = await openDataFile(header, backend.path, settings, [...origin.above, ...taken])
    }
    const image = await openQcow2Layer(backend, below?.layers, { ...settings, depth: origin.depth }, dataFile)
    const layer = { ...common, format: image, dataFile }
    return {
      layers: [layer, ...(below?.layers ?? [])],
      owned: [layer, ...(below?.owned ?? [])],
      rawWasGuessed: false,
    }
  } catch (error) {
    // The first failure is the one to tell.
    await backend.close().catch(() => undefined)
    await dataFile?.backend.close().catch(() => undefined)
    for (const { format: image } of below?.owned ?? []) await image.close().catch(() => undefined)
    throw error
  }
}

/**
 * Open the qcow2 image in a file that is locked as it must be.
 * @param below  what it stands on, from its backing file down
 */
export async function openQcow2Layer(
  backend: BlockBackend,
  below: Layers | undefined,
  settings: Pick<ChainSettings, 'readOnly' | 'cache' | 'signal' | 'snapshot' | 'encryption' | 'salvaging'> & {
    /** Of its place in the chain; default 0: the top. */
    readonly depth?: number
  },
  dataFile?: OpenDataFile,
): Promise<Qcow2Image> {
  if (!settings.readOnly && isDirty((await readHeader(backend)).header)) {
    await repairDirty(backend, settings.signal)
  }
  const { l2CacheBytes, refcountCacheBytes, reservation, preallocation } = settings.cache
  return openQcow2(backend, {
    readOnly: settings.readOnly,
    salvaging: settings.salvaging === true,
    backing: below && new LayersBelow(below),
    snapshot: settings.snapshot,
    dataFile: dataFile?.backend,
    encryption: settings.encryption && belowTop(settings.encryption, settings.depth ?? 0),
    ...(l2CacheBytes === undefined ? {} : { l2CacheBytes }),
    ...(refcountCacheBytes === undefined ? {} : { refcountCacheBytes }),
    ...(reservation === undefined ? {} : { reservation }),
    ...(preallocation === undefined ? {} : { preallocation }),
  })
}

/** Lock for what the file looks like, then make sure that it was that under the lock. */
async function lockAndProbe(
  backend: BlockBackend,
  format: ImageFormat | undefined,
  settings: ChainSettings,
): Promise<ImageFormat> {
  const found = format ?? (await probeFormat(backend))
  if (settings.locking) takeLocks(backend, lockUse(found, settings))
  if (format === undefined && (await probeFormat(backend)) !== found) {
    throw new Qcow2Error('ERR_IMAGE_LOCKED', 'The file changed while it was being opened', {
      path: backend.path,
    })
  }
  return found
}

const isDirty = (header: Header): boolean => (header.incompatibleFeatures & incompatible.dirty) !== 0n

/** Its refcounts were written lazily, and it was not closed: they must be right before anything is allocated. */
async function repairDirty(backend: BlockBackend, signal: AbortSignal | undefined): Promise<void> {
  // Loaded when it is needed, which is seldom: opening must be quick.
  const { checkQcow2 } = await import('../qcow2/check.js')
  const result = await checkQcow2(backend, { repair: 'all', ...(signal === undefined ? {} : { signal }) })
  if (result.corruptions > 0 || result.checkErrors > 0) {
    throw new Qcow2Error('ERR_CORRUPT', 'The image was not closed cleanly, and repairing it failed', {
      path: backend.path,
    })
  }
}

async function openBacking(
  header: Header,
  name: string,
  image: string,
  settings: ChainSettings & {
    readonly gate: BackingGate
    readonly above: readonly FileIdentity[]
    readonly depth: number
  },
): Promise<Chain> {
  const { above } = settings
  const reference = { name, format: header.backingFormat, image }
  const backing = await passGate(settings.gate, reference)
  settings.signal?.throwIfAborted()
  if (backing.type === 'image') {
    const [first, ...others] = DiskImage.layersOf(backing.image)
    const borrowed = (layer: Layer): Layer => ({ ...layer, isBorrowed: true })
    return { layers: [borrowed(first), ...others.map(borrowed)], owned: [], rawWasGuessed: false }
  }
  if (above.length >= maxBackingDepth) {
    throw new Qcow2Error('ERR_BACKING_LOOP', `The backing chain is longer than ${maxBackingDepth} files`, {
      path: image,
    })
  }
  const identity = await identifyFile(backing.path)
  if (above.includes(identity)) {
    throw new Qcow2Error('ERR_BACKING_LOOP', `Backing file '${escapeName(name)}' creates an infinite loop.`, {
      path: image,
      structure: 'backing file name',
    })
  }
  const readOnly = { ...settings, readOnly: true, snapshot: undefined }
  const backend = await openFile(backing.path, readOnly)
  let { format } = backing
  if (format === undefined) {
    format = await probeBacking(backend, name).catch(async (error: unknown) => {
      await backend.close()
      throw error
    })
  }
  return openLayers(backend, format, readOnly, {
    above: [...above, identity],
    depth: settings.depth,
    reference: name,
    wasGuessed: backing.format === undefined,
  })
}

/**
 * The image does not say its backing file's format. What the file looks like may be a former guest's work, so that it is believed only
 * where nothing follows from it: raw, or a qcow2 image that refers to nothing.
 */
async function probeBacking(backend: BlockBackend, name: string): Promise<ImageFormat> {
  const format = await probeFormat(backend)
  if (format === 'raw') return format
  const { header } = await readHeader(backend)
  if (header.backingFile === undefined && (header.incompatibleFeatures & incompatible.dataFile) === 0n)
    return format
  throw new Qcow2Error(
    'ERR_BACKING_DENIED',
    `Backing file '${escapeName(name)}' is not opened: the image does not say its format, and it refers to further files`,
    { path: backend.path, structure: 'backing file format' },
  )
}
