import { dirname, resolve } from 'node:path'
import { type LongWork, ProgressReporter } from '../base/abort.js'
import { invalid, Qcow2Error } from '../base/errors.js'
import { alignUp } from '../base/integers.js'
import {
  booleanOption,
  checkOptions,
  enumOption,
  integerOption,
  longWorkSchema,
  powerOfTwoOption,
  required,
  stringOption,
} from '../base/options.js'
import { sectorSize } from '../base/units.js'
import { type CacheSettings, defaultCache } from '../image/cache-modes.js'
import { identifyFile, openFile } from '../image/image-file.js'
import { checkForMemory, checkLocation, type ImageLocation, isInMemory, nameOf } from '../image/location.js'
import { openFailure } from '../image/open-failure.js'
import { type ImageFormat, imageFormats, probeFormat } from '../image/probe.js'
import { checkCreateOptions, createQcow2 } from '../qcow2/create.js'
import { openQcow2 } from '../qcow2/image.js'
import { readHeader } from '../qcow2/open-metadata.js'
import type { BlockBackend } from '../queue/backend.js'
import type { PreallocationMode } from '../queue/format-image.js'
import { createRaw } from '../raw/create.js'
import { checkFileNames, writeImageTarget } from './data-file-target.js'
import { type Encrypting, encryptOption, type EncryptOptions } from '../image/encrypt-option.js'
import { type NewEncryption, withNewEncryption } from '../image/new-encryption.js'
import { volumeHeaderBytes } from '../luks/new-volume.js'

/** What an image is to be like. */
export type ImageShape = {
  /** Default 'qcow2'. */
  readonly format?: ImageFormat
  /** Bytes, a power of two from 512 to 2 MiB. Default 65536. */
  readonly clusterSize?: number
  /** '1.1' is version 3 of the format, '0.10' version 2. Default '1.1'. */
  readonly compat?: '1.1' | '0.10'
  /** 1, 2, 4, ... 64; default 16. */
  readonly refcountBits?: number
  readonly lazyRefcounts?: boolean
  /** Each cluster has 32 subclusters, which are allocated by themselves; compat 1.1, clusters of at least 16 KiB. Default false. */
  readonly extendedL2?: boolean
  /** What compressed clusters of the image are packed with. 'zstd' is read by every Node.js, and written by 22.15, 23.8 and newer, into files on Linux also where there is libzstd.so.1. Default 'zlib'. */
  readonly compressionType?: 'zlib' | 'zstd'
  readonly preallocation?: PreallocationMode
  /** Stored as given; a relative name is relative to the new image's folder. */
  readonly backingFile?: string
  /** Must be given with backingFile: a guess could be wrong for ever. */
  readonly backingFormat?: ImageFormat
  /** A file beside the image for the guest's data, made with it. Stored as given; a relative name is relative to the new image's folder. */
  readonly dataFile?: string
  /** The data file can be read as the disk itself, always; implies preallocation 'metadata'. Not over a backing file. */
  readonly dataFileRaw?: boolean
  /** The image is encrypted. */
  readonly encrypt?: EncryptOptions
}

export type CreateOptions = ImageShape &
  LongWork & {
    /** Guest bytes, rounded up to whole sectors of 512. Default: the backing file's. */
    readonly size?: number
    /** Replace a file that exists. */
    readonly overwrite?: boolean
    /** Do not look at the backing file, which may not exist yet; then `size` must be given. */
    readonly unsafe?: boolean
    readonly locking?: 'auto' | 'off'
  }

/** What was created, with every default filled in. */
export type CreatedImage = {
  /** In memory: the name of the file there. */
  readonly path: string
  readonly format: ImageFormat
  /** Guest bytes. */
  readonly size: number
}

export const shapeSchema = {
  format: enumOption(imageFormats),
  clusterSize: powerOfTwoOption({ min: 512, max: 2 * 1024 * 1024 }),
  compat: enumOption(['1.1', '0.10']),
  refcountBits: powerOfTwoOption({ min: 1, max: 64 }),
  lazyRefcounts: booleanOption,
  extendedL2: booleanOption,
  compressionType: enumOption(['zlib', 'zstd']),
  preallocation: enumOption(['off', 'metadata', 'falloc', 'full']),
  backingFile: stringOption,
  backingFormat: enumOption(imageFormats),
  dataFile: stringOption,
  dataFileRaw: booleanOption,
  encrypt: encryptOption,
}

const createSchema = {
  ...shapeSchema,
  size: integerOption({ min: 0 }),
  overwrite: booleanOption,
  unsafe: booleanOption,
  locking: enumOption(['auto', 'off']),
  ...longWorkSchema,
}

/**
 * Create a disk image, in a file or in memory. It appears under its name when it is complete and durable, or not at all.
 *
 * A block device, for which `overwrite` must be set, is written in place: the image is laid over what it holds, and never gets larger than the device. One
 * that fails leaves it without an image; a raw one clears the first sector only.
 * @throws TypeError ERR_INVALID_OPTION, RangeError ERR_OUT_OF_RANGE  options that no image can have
 * @throws ERR_EXISTS        there is a file, and `overwrite` is not set
 * @throws ERR_IMAGE_LOCKED  the file to be replaced is in use
 * @throws ERR_NOT_FOUND and others of openImage, for the backing file
 * @throws ERR_NO_SPACE, ERR_IO, the signal's reason: nothing is left behind
 */
export async function createImage(target: ImageLocation, options: CreateOptions): Promise<CreatedImage> {
  const location = checkLocation('createImage', target)
  const path = nameOf(location)
  const given = checkOptions('createImage', options, createSchema)
  given.signal?.throwIfAborted()
  const shape = resolveShape('createImage', given)
  const { backingFile } = shape
  if (isInMemory(location)) checkForMemory('createImage', given)
  else await checkFileNames('createImage', path, shape)
  let { size } = given
  if (backingFile !== undefined && given.unsafe !== true) {
    const backingSize = await sizeOfBacking(path, backingFile, shape.backingFormat)
    size ??= backingSize
  }
  const wanted = alignUp(required('createImage', 'size', size), sectorSize)
  checkShape(shape, wanted)
  await writeImageTarget(
    location,
    shape,
    { overwrite: given.overwrite === true, locking: given.locking !== 'off', signal: given.signal },
    (temporary, dataFile) =>
      withNewEncryption(shape.encrypting, path, (made) =>
        layImageAt(temporary, dataFile, shape, wanted, { ...given, cache: defaultCache, made }),
      ),
  )
  return { path, format: shape.format, size: wanted }
}

/** An image's shape with the defaults filled in. */
export type ResolvedShape = {
  readonly format: ImageFormat
  readonly clusterSize: number
  readonly version: 2 | 3
  readonly refcountBits: number
  readonly lazyRefcounts: boolean
  readonly compressionType: 'zlib' | 'zstd'
  readonly extendedL2: boolean
  readonly preallocation: PreallocationMode
  readonly backingFile: string | undefined
  readonly backingFormat: ImageFormat | undefined
  readonly dataFile: string | undefined
  readonly dataFileRaw: boolean
  readonly encrypting: Encrypting | undefined
}

/** Options that only qcow2 has. */
const qcow2Only = [
  'clusterSize',
  'compat',
  'refcountBits',
  'lazyRefcounts',
  'extendedL2',
  'compressionType',
  'backingFile',
  'backingFormat',
  'dataFile',
  'dataFileRaw',
  'encrypt',
] as const

/** A shape whose options have been checked one by one. */
export type CheckedShape = Omit<ImageShape, 'encrypt'> & { readonly encrypt?: Encrypting }

/** @throws TypeError ERR_INVALID_OPTION  options that do not go together */
export function resolveShape(where: string, given: CheckedShape): ResolvedShape {
  const { format = 'qcow2', dataFileRaw = false, preallocation: asked = 'off' } = given
  // The tables of a raw data file map all of it.
  const preallocation = dataFileRaw && asked === 'off' ? 'metadata' : asked
  if (format === 'raw') {
    const useless = qcow2Only.find((name) => given[name] !== undefined)
    if (useless !== undefined) {
      throw invalid(
        `${where}: option "${useless}" is for format 'qcow2', a raw image has none`,
        'ERR_INVALID_OPTION',
      )
    }
    if (preallocation === 'metadata') {
      throw invalid(`${where}: preallocation 'metadata' is for format 'qcow2'`, 'ERR_INVALID_OPTION')
    }
  }
  if (given.backingFile !== undefined && given.backingFormat === undefined) {
    throw invalid(
      `${where}: option "backingFile" needs "backingFormat": what a file looks like may be a guest's work`,
      'ERR_INVALID_OPTION',
    )
  }
  const mayPreallocate = dataFileRaw || given.extendedL2 === true
  if (given.backingFile !== undefined && preallocation !== 'off' && !mayPreallocate) {
    throw invalid(
      `${where}: preallocation is for images without a backing file, which it would hide, unless "extendedL2" is set`,
      'ERR_INVALID_OPTION',
    )
  }
  return {
    format,
    preallocation,
    clusterSize: given.clusterSize ?? 65536,
    version: given.compat === '0.10' ? 2 : 3,
    refcountBits: given.refcountBits ?? 16,
    lazyRefcounts: given.lazyRefcounts ?? false,
    compressionType: given.compressionType ?? 'zlib',
    extendedL2: given.extendedL2 ?? false,
    backingFile: given.backingFile,
    backingFormat: given.backingFormat,
    dataFile: given.dataFile,
    dataFileRaw,
    encrypting: given.encrypt,
  }
}

/** All that the format refuses, before a file is touched. @param size  guest bytes */
export function checkShape(shape: ResolvedShape, size: number): void {
  if (shape.format !== 'qcow2') return
  const { encrypting } = shape
  const luksHeader = encrypting && new Uint8Array(volumeHeaderBytes(encrypting.spec))
  checkCreateOptions({ ...shape, size, luksHeader })
}

/**
 * Lay an empty image into an empty file, and an empty disk into that of its data.
 * @param size  guest bytes, whole sectors
 * @param work  `made`: the encryption, if the image is to be encrypted
 */
export async function layImageAt(
  location: ImageLocation,
  dataFile: string | undefined,
  shape: ResolvedShape,
  size: number,
  { cache, ...work }: LongWork & { readonly cache: CacheSettings; readonly made?: NewEncryption | undefined },
): Promise<void> {
  const backend = await openFile(location, { readOnly: false, cache })
  let data: BlockBackend | undefined
  try {
    if (dataFile !== undefined) {
      data = await openFile(dataFile, { readOnly: false, cache })
      await data.truncate(size)
    }
  } catch (error) {
    await data?.close().catch(() => undefined)
    await backend.close()
    throw error
  }
  await layImage(backend, data, shape, size, work)
}

/** Closes both files. */
async function layImage(
  backend: BlockBackend,
  data: BlockBackend | undefined,
  shape: ResolvedShape,
  size: number,
  { signal, onProgress, made }: LongWork & { readonly made?: NewEncryption | undefined },
): Promise<void> {
  const { preallocation } = shape
  const progress = new ProgressReporter(onProgress, 'create', preallocation === 'off' ? 0 : size)
  if (shape.format === 'raw') {
    try {
      const mode = preallocation === 'metadata' ? 'off' : preallocation
      await createRaw(backend, {
        size,
        preallocation: mode,
        signal,
        onWritten: (bytes) => progress.advance(bytes),
      })
    } finally {
      await backend.close()
    }
    return
  }
  let closing: { close(): Promise<void> } = {
    close: () => backend.close().finally(() => data?.close()),
  }
  try {
    await createQcow2(backend, { ...shape, size, luksHeader: made?.luksHeader })
    if (preallocation === 'off') return
    const image = await openQcow2(backend, {
      readOnly: false,
      reservation: 0,
      dataFile: data,
      encryption: made?.encryption,
    })
    closing = image
    const onBytes = (done: number): void => progress.reach(done)
    await image.preallocate(preallocation, { signal, onBytes })
  } finally {
    await closing.close()
  }
}

/** Guest bytes of the file that a new image will refer to. It is only looked at: it may be in use. */
async function sizeOfBacking(
  path: string,
  backingFile: string,
  format: ImageFormat | undefined,
): Promise<number> {
  const backing = resolve(dirname(path), backingFile)
  try {
    await identifyFile(backing)
    const backend = await openFile(backing, { readOnly: true, cache: defaultCache })
    try {
      const looksLike = await probeFormat(backend)
      if (format === 'raw') return alignUp(backend.length, sectorSize)
      if (looksLike === 'raw') {
        throw new Qcow2Error('ERR_NOT_AN_IMAGE', 'Image is not in qcow2 format', { path: backing, offset: 0 })
      }
      return (await readHeader(backend)).header.size
    } finally {
      await backend.close()
    }
  } catch (error) {
    throw openFailure(backing, error)
  }
}
