import { stat } from 'node:fs/promises'
import { Qcow2Error } from '../base/errors.js'
import { alignUp } from '../base/integers.js'
import { booleanOption, checkOptions, checkPath, enumOption, signalOption } from '../base/options.js'
import { sectorSize } from '../base/units.js'
import { type BackingGate, backingOption, maxBackingDepth, passGate } from '../image/backing-gate.js'
import { defaultCache } from '../image/cache-modes.js'
import { identifyFile, openFile } from '../image/image-file.js'
import { takeLocks } from '../image/locks.js'
import { openFailure } from '../image/open-failure.js'
import { besideImage } from '../image/path-names.js'
import { checkLocation, type ImageLocation, nameOf } from '../image/location.js'
import { type ImageFormat, imageFormats, probeFormat } from '../image/probe.js'
import type { Header } from '../qcow2/header.js'
import { findExtension, textUpToNul } from '../qcow2/header-extensions.js'
import { readHeader } from '../qcow2/open-metadata.js'
import { autoclear, compatible, extensionTypes, incompatible } from '../qcow2/spec.js'
import type { BlockBackend } from '../queue/backend.js'
import type { Snapshot } from '../queue/format-image.js'
import { encryptInfo, type EncryptInfo } from './encrypt-info.js'
import { type BitmapInfo, listBitmaps, listSnapshots } from './info-tables.js'

/** What an image says about itself. Names in it are as stored: a stranger's text, to be escaped before it is shown. */
export type ImageInfo = {
  readonly path: string
  readonly format: ImageFormat
  /** Guest bytes. */
  readonly virtualSize: number
  /** Bytes that the file takes on the host: less than its length if it has holes. */
  readonly actualSize: number
  /** The rest is qcow2's. */
  readonly clusterSize?: number
  /** Not closed by a writer of lazy refcounts: repaired when it is opened for writing. */
  readonly dirty?: boolean
  readonly encrypted?: boolean
  readonly backingFile?: string
  /** backingFile as seen from where `path` is relative to; of an image in memory there is no such place. */
  readonly fullBackingFile?: string
  readonly backingFormat?: string
  readonly snapshots?: readonly Snapshot[]
  readonly qcow2?: Qcow2Info
}

export type Qcow2Info = {
  readonly compat: '1.1' | '0.10'
  readonly compressionType: 'zlib' | 'zstd'
  readonly lazyRefcounts: boolean
  readonly refcountBits: number
  /** Marked as damaged: it can be read, and be written after a repair. */
  readonly corrupt: boolean
  readonly extendedL2: boolean
  readonly encrypt?: EncryptInfo
  readonly dataFile?: string
  readonly dataFileRaw?: boolean
  readonly bitmaps?: readonly BitmapInfo[]
  /** The image has bitmaps, but a program that knows none has written it: nobody believes them any more, and they are not listed. */
  readonly staleBitmaps?: true
}

export type InfoOptions = {
  /** Default: probed. */
  readonly format?: ImageFormat
  /** Look at an image that somebody writes to. */
  readonly forceShare?: boolean
  readonly locking?: 'auto' | 'off'
  readonly signal?: AbortSignal
}

export type InfoChainOptions = InfoOptions & {
  /** Which backing files are looked at. Default 'same-directory'. */
  readonly backing?: BackingGate
}

const infoSchema = {
  format: enumOption(imageFormats),
  forceShare: booleanOption,
  locking: enumOption(['auto', 'off']),
  signal: signalOption,
}

/**
 * What an image says about itself. Nothing it refers to is opened, nothing is written.
 * @throws as openImage, apart from what its data needs: images with features that are not supported are told about too
 */
export async function imageInfo(source: ImageLocation, options?: InfoOptions): Promise<ImageInfo> {
  const location = checkLocation('imageInfo', source)
  const given = checkOptions('imageInfo', options, infoSchema)
  given.signal?.throwIfAborted()
  if (typeof location === 'string') await identifyFile(location)
  return lookAt(location, given.format, given)
}

/**
 * The same of an image and of all its backing files, from the top, as far as the gate lets pass.
 * @throws ERR_BACKING_DENIED, ERR_BACKING_LOOP
 */
export async function imageInfoChain(path: string, options?: InfoChainOptions): Promise<ImageInfo[]> {
  checkPath('imageInfoChain', path)
  const given = checkOptions('imageInfoChain', options, { ...infoSchema, backing: backingOption })
  const chain: ImageInfo[] = []
  const seen: string[] = []
  let next: { path: string; format: ImageFormat | undefined } | undefined = { path, format: given.format }
  while (next !== undefined) {
    given.signal?.throwIfAborted()
    const identity = await identifyFile(next.path)
    if (seen.includes(identity) || seen.length > maxBackingDepth) {
      throw new Qcow2Error('ERR_BACKING_LOOP', `Backing file '${next.path}' creates an infinite loop.`, {
        path,
      })
    }
    seen.push(identity)
    const info: ImageInfo = await lookAt(next.path, next.format, given)
    chain.push(info)
    next = await nextOf(info, given.backing ?? 'same-directory')
  }
  return chain
}

/** What to look at after an image of a chain: under the name that the image gives it. */
async function nextOf(
  info: ImageInfo,
  gate: BackingGate,
): Promise<{ path: string; format: ImageFormat | undefined } | undefined> {
  if (info.backingFile === undefined) return undefined
  const backing = await passGate(gate, {
    name: info.backingFile,
    format: info.backingFormat,
    image: info.path,
  })
  if (backing.type === 'image') return { path: backing.image.path, format: backing.image.format }
  const path = typeof gate === 'function' ? backing.path : (info.fullBackingFile ?? backing.path)
  return { path, format: backing.format }
}

async function lookAt(
  location: ImageLocation,
  format: ImageFormat | undefined,
  options: { forceShare?: boolean; locking?: 'auto' | 'off' },
): Promise<ImageInfo> {
  const path = nameOf(location)
  try {
    const backend = await openFile(location, { readOnly: true, cache: defaultCache })
    try {
      const found = format ?? (await probeFormat(backend))
      const common = { path, format: found, actualSize: await sizeOnHost(location) }
      if (found === 'raw') return { ...common, virtualSize: alignUp(backend.length, sectorSize) }
      if (options.forceShare !== true && options.locking !== 'off') takeLocks(backend, 'metadata only')
      return { ...common, ...(await qcow2Facts(backend, location)) }
    } finally {
      await backend.close()
    }
  } catch (error) {
    throw openFailure(path, error)
  }
}

/** Bytes that a file takes. */
async function sizeOnHost(location: ImageLocation): Promise<number> {
  if (typeof location !== 'string') return location.heldBytes
  const { blocks } = await stat(location)
  return blocks * sectorSize
}

async function qcow2Facts(
  backend: BlockBackend,
  location: ImageLocation,
): Promise<Omit<ImageInfo, 'path' | 'format' | 'actualSize'>> {
  const { header } = await readHeader(backend)
  const { backingFile, backingFormat } = header
  const snapshots = await listSnapshots(backend, header)
  return {
    virtualSize: header.size,
    clusterSize: 2 ** header.clusterBits,
    dirty: has(header.incompatibleFeatures, incompatible.dirty),
    encrypted: header.cryptMethod !== 0,
    ...(backingFile === undefined ? {} : { backingFile }),
    ...(backingFile === undefined || typeof location !== 'string'
      ? {}
      : { fullBackingFile: besideImage(location, backingFile) }),
    ...(backingFormat === undefined ? {} : { backingFormat }),
    ...(snapshots.length === 0 ? {} : { snapshots }),
    qcow2: await formatSpecific(backend, header),
  }
}

async function formatSpecific(backend: BlockBackend, header: Header): Promise<Qcow2Info> {
  const encrypt = await encryptInfo(backend, header)
  const dataFile = findExtension(header.extensions, extensionTypes.dataFileName)
  const bitmaps = await listBitmaps(backend, header)
  const areStale =
    findExtension(header.extensions, extensionTypes.bitmaps) !== undefined &&
    !has(header.autoclearFeatures, autoclear.bitmaps)
  return {
    compat: header.version === 2 ? '0.10' : '1.1',
    compressionType: header.compressionType,
    lazyRefcounts: has(header.compatibleFeatures, compatible.lazyRefcounts),
    refcountBits: 2 ** header.refcountOrder,
    corrupt: has(header.incompatibleFeatures, incompatible.corrupt),
    extendedL2: has(header.incompatibleFeatures, incompatible.extendedL2),
    ...(encrypt === undefined ? {} : { encrypt }),
    ...(dataFile === undefined ? {} : { dataFile: textUpToNul(dataFile.data) }),
    ...(has(header.incompatibleFeatures, incompatible.dataFile)
      ? { dataFileRaw: has(header.autoclearFeatures, autoclear.dataFileRaw) }
      : {}),
    ...(bitmaps.length === 0 ? {} : { bitmaps }),
    ...(areStale ? { staleBitmaps: true } : {}),
  }
}

const has = (mask: bigint, bit: bigint): boolean => (mask & bit) !== 0n
