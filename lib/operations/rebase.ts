import { type LongWork, ProgressReporter } from '../base/abort.js'
import { invalid, notSupported, Qcow2Error } from '../base/errors.js'
import { booleanOption, checkOptions, checkPath, enumOption, stringOption } from '../base/options.js'
import { passGate } from '../image/backing-gate.js'
import {
  cacheOption,
  type CacheMode,
  type CacheOptions,
  cacheOptionsOf,
  type CacheSettings,
  defaultCache,
} from '../image/cache-modes.js'
import type { Layer } from '../image/layers.js'
import { openChain } from '../image/chain.js'
import { DiskImage } from '../image/disk-image.js'
import { openFailure } from '../image/open-failure.js'
import { openImage } from '../image/open.js'
import { type ImageFormat, imageFormats } from '../image/probe.js'
import { belowTop } from '../qcow2/encryption.js'
import { escapeName } from '../qcow2/header-extensions.js'
import { Qcow2Image } from '../qcow2/image.js'
import {
  type ChainWork,
  type ChainWorkOptions,
  chainWorkOf,
  chainWorkSchema,
  openForWork,
} from './chain-work.js'
import { copyDifferences } from './copy-differences.js'

/** `backing` is about the present chain: the new backing file is the caller's own word, and opened wherever it is. */
export type FlattenOptions = ChainWorkOptions

export type RebaseOptions = FlattenOptions & {
  /** Stored as given; a relative name is relative to the image's folder. null: none, the image then stands alone. */
  readonly backingFile: string | null
  /** Must be given with backingFile: a guess could be wrong for ever. */
  readonly backingFormat?: ImageFormat
  /** Only change what the header says, for a backing file that has moved: nothing is opened or compared, and the guest sees what the new one holds. */
  readonly unsafe?: boolean
  /** Read a new backing file that somebody writes to, at the caller's risk. */
  readonly forceShare?: boolean
  /** How the new backing file is read; default 'writeback'. */
  readonly sourceCache?: CacheMode | CacheOptions
}

export type RebasedImage = {
  /** Guest bytes that were copied into the image. */
  readonly bytesWritten: number
}

const rebaseSchema = {
  ...chainWorkSchema,
  backingFile: (value: unknown, name: string): string | null =>
    value === null ? null : stringOption(value, name),
  backingFormat: enumOption(imageFormats),
  unsafe: booleanOption,
  forceShare: booleanOption,
  sourceCache: cacheOption,
}

/** What is to be done, all choices made. */
type Work = ChainWork & {
  readonly sourceCache: CacheSettings
  readonly forceShare: boolean
  /** Undefined: none. */
  readonly target: { readonly file: string; readonly format: ImageFormat } | undefined
}

/**
 * Put an image on another backing file, or on none. The guest sees what it saw: whatever differs between the two is copied into the image, and durable
 * there before the header names the new one. If this fails or is aborted, the image is as it was, but for copies that it may hold already.
 * @throws TypeError ERR_INVALID_OPTION  a backing file without its format
 * @throws ERR_NOT_SUPPORTED  the name does not fit the header, or a raw image
 * @throws ERR_BACKING_LOOP   the new chain holds the image itself
 * @throws as openImage, for both chains; ERR_NO_SPACE, ERR_IO; the signal's reason
 */
export async function rebaseImage(path: string, options: RebaseOptions): Promise<RebasedImage> {
  checkPath('rebaseImage', path)
  const given = checkOptions('rebaseImage', options, rebaseSchema)
  const { backingFile, backingFormat, unsafe = false } = given
  if (backingFile === undefined) {
    throw invalid('rebaseImage: option "backingFile" is required; null is for none', 'ERR_INVALID_OPTION')
  }
  if (backingFile !== null && backingFormat === undefined) {
    throw invalid(
      'rebaseImage: option "backingFile" needs "backingFormat": what a file looks like may be a guest\'s work',
      'ERR_INVALID_OPTION',
    )
  }
  const target =
    backingFile === null || backingFormat === undefined
      ? undefined
      : { file: backingFile, format: backingFormat }
  const work: Work = {
    ...chainWorkOf(given),
    sourceCache: given.sourceCache ?? defaultCache,
    forceShare: given.forceShare === true,
    target,
  }
  work.signal?.throwIfAborted()
  if (unsafe) {
    await renameBacking(path, work)
    return { bytesWritten: 0 }
  }
  return rebase(path, work)
}

/** Copy everything into an image that its backing files hold, so that it stands alone. @throws as rebaseImage */
export async function flattenImage(path: string, options?: FlattenOptions): Promise<RebasedImage> {
  checkOptions('flattenImage', options, chainWorkSchema)
  return rebaseImage(path, { ...options, backingFile: null })
}

/** The header alone. */
async function renameBacking(path: string, work: Work): Promise<void> {
  const { format, cache, locking, signal, dataGate } = work
  const { layers } = await openChain(path, format, {
    readOnly: false,
    forceShare: false,
    gate: 'ignore',
    dataGate,
    snapshot: undefined,
    encryption: work.encryption,
    cache,
    locking,
    signal,
  }).catch((error: unknown) => {
    throw openFailure(path, error)
  })
  const [{ format: image }] = layers
  try {
    await switchHeader(image, path, work)
  } finally {
    await image.close()
  }
}

async function switchHeader(image: unknown, path: string, { target }: Pick<Work, 'target'>): Promise<void> {
  const what = `Could not change the backing file to '${escapeName(target?.file ?? '')}'`
  if (!(image instanceof Qcow2Image)) throw notSupported(`${what}: Operation not supported`, { path })
  await image.rewriteBacking(target).catch((error: unknown) => {
    const isAboutName = error instanceof Qcow2Error && error.code === 'ERR_NOT_SUPPORTED'
    throw isAboutName ? notSupported(`${what}: ${error.message}`, { path, cause: error }) : error
  })
}

async function rebase(path: string, work: Work): Promise<RebasedImage> {
  const image = await openForWork(path, work)
  try {
    const [{ format: top }] = DiskImage.layersOf(image)
    const source = await openTarget(path, image, work)
    try {
      // Nothing is copied into what has no header to switch.
      if (!(top instanceof Qcow2Image)) await switchHeader(top, path, work)
      return { bytesWritten: await moveOnto(image, source, work) }
    } finally {
      await source?.close()
    }
  } finally {
    await image.close()
  }
}

/**
 * Put an open qcow2 image on another chain.
 * @param source  what the target shows; undefined: zeros
 * @returns guest bytes that were copied into the image
 */
export async function moveOnto(
  image: DiskImage,
  source: DiskImage | undefined,
  work: LongWork & Pick<Work, 'target'>,
): Promise<number> {
  const progress = new ProgressReporter(work.onProgress, 'rebase', image.size)
  const bytesWritten = await copyDifferences(image, source, {
    signal: work.signal,
    onDone: (bytes) => progress.advance(bytes),
  })
  await switchHeader(DiskImage.layersOf(image)[0].format, image.path, work)
  return bytesWritten
}

/** Open what the image is to stand on. */
async function openTarget(path: string, image: DiskImage, work: Work): Promise<DiskImage | undefined> {
  const { target, gate, dataGate } = work
  if (target === undefined) return undefined
  const found = await passGate('allow', { name: target.file, format: target.format, image: path })
  if (found.type === 'image') return undefined
  const source = await openImage(found.path, {
    readOnly: true,
    format: target.format,
    forceShare: work.forceShare,
    // What it refers to in its turn is not the caller's word.
    backing: gate,
    dataFile: dataGate,
    cache: cacheOptionsOf(work.sourceCache),
    locking: work.locking ? 'auto' : 'off',
    ...(work.signal === undefined ? {} : { signal: work.signal }),
    ...(work.encryption === undefined ? {} : { encryption: belowTop(work.encryption, 1) }),
  }).catch((error: unknown) => {
    throw newBackingFailure(target.file, error)
  })
  const [{ identity }] = DiskImage.layersOf(image)
  const isInChain = ({ identity: own, dataFile }: Layer): boolean =>
    own === identity || dataFile?.identity === identity
  if (DiskImage.layersOf(source).some(isInChain)) {
    await source.close()
    throw new Qcow2Error(
      'ERR_BACKING_LOOP',
      `Backing file '${escapeName(target.file)}' creates an infinite loop.`,
      { path },
    )
  }
  return source
}

/** @returns the error to throw instead: it says what the image was to stand on */
function newBackingFailure(name: string, error: unknown): unknown {
  if (!(error instanceof Qcow2Error)) return error
  const message = error.message.replace(/^Could not open '[^']*': (?=Could not open|Failed|Image)/, '')
  return new Qcow2Error(error.code, `Could not open new backing file '${escapeName(name)}': ${message}`, {
    ...(error.path === undefined ? {} : { path: error.path }),
    ...(error.errno === undefined ? {} : { errno: error.errno }),
    cause: error,
  })
}
