import { type LongWork, ProgressReporter } from '../base/abort.js'
import { invalid, notSupported, outOfRange } from '../base/errors.js'
import {
  booleanOption,
  checkOptions,
  enumOption,
  integerOption,
  longWorkSchema,
  required,
} from '../base/options.js'
import { makeDurable } from '../image/atomic-target.js'
import { type BackingGate, backingOption } from '../image/backing-gate.js'
import { type DataFileGate, dataFileOption } from '../image/data-file-gate.js'
import {
  cacheOption,
  type CacheMode,
  type CacheOptions,
  cacheOptionsOf,
  type CacheSettings,
} from '../image/cache-modes.js'
import { DiskImage } from '../image/disk-image.js'
import { encryptionOption } from '../image/encryption-option.js'
import { openImage, openToSalvage } from '../image/open.js'
import { checkForMemory, checkLocation, type ImageLocation, isInMemory, nameOf } from '../image/location.js'
import { type ImageFormat, imageFormats } from '../image/probe.js'
import { type NewEncryption, withNewEncryption } from '../image/new-encryption.js'
import { snapshotOption } from '../image/snapshots.js'
import type { Passphrase, PassphraseFor } from '../luks/passphrase.js'
import { compressionAndEncryption, type Encryption } from '../qcow2/encryption.js'
import { requireZstdWriter } from '../qcow2/zstd.js'
import type { SnapshotReference } from '../queue/format-image.js'
import { Concatenation } from './concatenation.js'
import { bitmapsToCopy, copyBitmaps } from './copy-bitmaps.js'
import { checkFileNames, writeImageTarget } from './data-file-target.js'
import { copyDisk } from './copy-disk.js'
import { syncEarly } from './early-sync.js'
import { rateLimitOf } from './rate-limit.js'
import { Losses, type LostRun, salvagedDisks } from './salvage.js'
import {
  type CheckedShape,
  checkShape,
  type ImageShape,
  layImageAt,
  resolveShape,
  type ResolvedShape,
  shapeSchema,
} from './create.js'

export type ConvertOptions = Omit<ImageShape, 'format'> &
  LongWork & {
    /** Of the target. */
    readonly format: ImageFormat
    /** Default: probed. */
    readonly sourceFormat?: ImageFormat
    /** Copy the disk as it is in this internal snapshot of the source, which must be one: an id or a name, or which of them. */
    readonly snapshot?: SnapshotReference
    /** Which files the sources may refer to. Default 'same-directory'. */
    readonly backing?: BackingGate
    /** Which files a target that exists may refer to. Default 'allow'. */
    readonly targetBacking?: BackingGate
    /** Whether external data files may be opened, of the sources and of an existing target. Default 'deny'. */
    readonly sourceDataFile?: DataFileGate
    /** Read sources that somebody writes to, at the caller's risk. */
    readonly forceShare?: boolean
    /** Replace a file that exists. */
    readonly overwrite?: boolean
    /** Write into an image that exists, as large as the sources or larger; its shape stays. */
    readonly existingTarget?: boolean
    /** With existingTarget: it reads as zeros already, so that zeros need not be written. */
    readonly targetIsZero?: boolean
    /** Runs of zeros of at least so many bytes become holes, 4096 by default; 0: everything is written. */
    readonly sparseSize?: number
    /** How the target is written; default 'unsafe', since it is synced as a whole at the end. */
    readonly cache?: CacheMode | CacheOptions
    /** How the sources are read; default 'writeback'. */
    readonly sourceCache?: CacheMode | CacheOptions
    /** Pieces in flight at a time; default 8. */
    readonly requests?: number
    /** The most bytes of data that are copied in a second; default, and 0: no limit. */
    readonly rateLimit?: number
    /** Compress every cluster of the target, which must be qcow2; with compressionType 'zstd' it takes Node.js 22.15 or newer, or for a file on Linux libzstd.so.1. */
    readonly compress?: boolean
    /** Copy the persistent bitmaps of the source, which must be one, into a target that can hold them. */
    readonly bitmaps?: boolean
    /** With bitmaps: leave out those that are inconsistent, instead of failing. */
    readonly skipBrokenBitmaps?: boolean
    /** Go on where a source cannot be read: what is damaged, or fails on the host's disk, becomes zeros. What was lost is told. */
    readonly salvage?: boolean
    readonly locking?: 'auto' | 'off'
    /** What opens the sources where they are encrypted, and the files that the target stands on. */
    readonly encryption?: Encryption
    /** What opens an existing target that is encrypted. */
    readonly targetEncryption?: Encryption
  }

export type ConvertedImage = {
  readonly path: string
  readonly format: ImageFormat
  /** Guest bytes. */
  readonly size: number
  /** Bytes that were written to the target as data. */
  readonly bytesWritten: number
  /** Names of bitmaps that were left out; with skipBrokenBitmaps. */
  readonly skippedBitmaps?: readonly string[]
  /** Guest bytes that could not be read and are zeros in the target; with salvage. */
  readonly bytesLost?: number
  /** Which they are, in order; of more than 10,000 runs those that were met first. */
  readonly lost?: readonly LostRun[]
}

const convertSchema = {
  ...shapeSchema,
  sourceFormat: enumOption(imageFormats),
  snapshot: snapshotOption,
  backing: backingOption,
  targetBacking: backingOption,
  sourceDataFile: dataFileOption,
  forceShare: booleanOption,
  overwrite: booleanOption,
  existingTarget: booleanOption,
  targetIsZero: booleanOption,
  sparseSize: integerOption({ min: 0, max: 2 ** 30 }),
  cache: cacheOption,
  sourceCache: cacheOption,
  requests: integerOption({ min: 1, max: 16 }),
  rateLimit: integerOption({ min: 0 }),
  compress: booleanOption,
  bitmaps: booleanOption,
  skipBrokenBitmaps: booleanOption,
  salvage: booleanOption,
  locking: enumOption(['auto', 'off']),
  encryption: encryptionOption,
  targetEncryption: encryptionOption,
  ...longWorkSchema,
}

const unsafeCache: CacheSettings = { direct: false, syncPolicy: 'never' }

/**
 * Copy a disk into an image of another format or shape. Holes and zeros take no space in the target. The target appears under its name
 * when it is complete and durable, or not at all.
 * @param source  a path or a file in memory, or several: their disks are put one behind the other
 * @throws ERR_EXISTS        there is a target, and `overwrite` is not set
 * @throws ERR_IMAGE_LOCKED  a source is being written, or the target is in use
 * @throws ERR_NOT_SUPPORTED  a target that cannot be compressed, or not here; one that cannot hold bitmaps
 * @throws ERR_BITMAP_INCONSISTENT  a bitmap that cannot be copied
 * @throws as openImage and createImage; the signal's reason
 */
export async function convertImage(
  source: ImageLocation | readonly ImageLocation[],
  target: ImageLocation,
  options: ConvertOptions,
): Promise<ConvertedImage> {
  const given = checkOptions('convertImage', options, convertSchema)
  const sources = sourcePaths(source)
  const location = checkLocation('convertImage', target)
  if (isInMemory(location)) checkForMemory('convertImage', given)
  const format = required('convertImage', 'format', given.format)
  if (given.compress === true && format !== 'qcow2') {
    throw notSupported(`convertImage: an image of format '${format}' cannot hold compressed clusters`)
  }
  const shape = resolveShape('convertImage', given)
  if (given.compress === true && shape.encrypting !== undefined) throw notSupported(compressionAndEncryption)
  if (given.compress === true && shape.compressionType === 'zstd') {
    await requireZstdWriter({ inMemory: isInMemory(location) })
  }
  if (given.compress === true && shape.dataFile !== undefined) {
    throw notSupported('convertImage: an image with an external data file cannot hold compressed clusters')
  }
  if (!isInMemory(location)) await checkFileNames('convertImage', location, shape)
  if (given.existingTarget === true) refuseShape(given)
  else if (given.targetIsZero === true) {
    throw invalid('convertImage: targetIsZero is for existingTarget', 'ERR_INVALID_OPTION')
  }
  if (given.snapshot !== undefined && sources.length > 1) {
    throw invalid('convertImage: option "snapshot" is for one source', 'ERR_INVALID_OPTION')
  }
  given.signal?.throwIfAborted()

  const disks: DiskImage[] = []
  try {
    for (const path of sources) {
      disks.push(
        await (given.salvage === true ? openToSalvage : openImage)(path, {
          readOnly: true,
          ...(given.sourceFormat === undefined ? {} : { format: given.sourceFormat }),
          ...(given.snapshot === undefined ? {} : { snapshot: given.snapshot }),
          ...(given.backing === undefined ? {} : { backing: given.backing }),
          ...(given.sourceDataFile === undefined ? {} : { dataFile: given.sourceDataFile }),
          ...(given.forceShare === undefined ? {} : { forceShare: given.forceShare }),
          ...(given.sourceCache === undefined ? {} : { cache: cacheOptionsOf(given.sourceCache) }),
          ...(given.locking === undefined ? {} : { locking: given.locking }),
          ...(given.signal === undefined ? {} : { signal: given.signal }),
          ...(given.encryption === undefined ? {} : { encryption: given.encryption }),
        }),
      )
    }
    const { copied, skipped } = await bitmapsToCopy(disks, format, given)
    const losses = new Losses()
    const input = new Concatenation(given.salvage === true ? salvagedDisks(disks, losses) : disks)
    const bitmaps = (image: DiskImage): Promise<void> => copyBitmaps(disks[0], copied, image)
    const work = { ...given, format, cache: given.cache ?? unsafeCache, bitmaps }
    const bytesWritten =
      given.existingTarget === true
        ? await copyInto(input, location, work)
        : await copyToNew(input, location, shape, work)
    return {
      path: nameOf(location),
      format,
      size: input.size,
      bytesWritten,
      ...(skipped.length === 0 ? {} : { skippedBitmaps: skipped }),
      ...(given.salvage === true ? { bytesLost: losses.bytes, lost: losses.runs } : {}),
    }
  } finally {
    for (const disk of disks) await disk.close()
  }
}

function sourcePaths(source: unknown): ImageLocation[] {
  const sources: unknown[] = Array.isArray(source) ? source : [source]
  if (sources.length === 0) throw invalid('convertImage: the source must be a path or paths')
  return sources.map((path) => checkLocation('convertImage', path))
}

type Work = LongWork & {
  /** Copies the bitmaps, when the disk is there. */
  readonly bitmaps: (image: DiskImage) => Promise<void>
  readonly format: ImageFormat
  readonly cache: CacheSettings
  readonly overwrite?: boolean
  readonly targetIsZero?: boolean
  readonly sparseSize?: number
  readonly compress?: boolean
  readonly requests?: number
  readonly rateLimit?: number
  readonly locking?: 'auto' | 'off'
  readonly targetBacking?: BackingGate
  readonly sourceDataFile?: DataFileGate
  readonly encryption?: Encryption
  readonly targetEncryption?: Encryption
}

async function copyToNew(
  input: Concatenation,
  target: ImageLocation,
  shape: ResolvedShape,
  work: Work,
): Promise<number> {
  checkShape(shape, input.size)
  const { overwrite = false, locking = 'auto', signal } = work
  const targetOptions = { overwrite, locking: locking !== 'off', signal }
  const fill = async (
    temporary: ImageLocation,
    dataFile: string | undefined,
    made: NewEncryption | undefined,
  ): Promise<number> => {
    await layImageAt(temporary, dataFile, shape, input.size, { signal, cache: unsafeCache, made })
    const encryption = encryptionOfTarget(made?.encryption, work.encryption)
    const image = await openImage(temporary, {
      format: shape.format,
      cache: cacheOptionsOf(work.cache),
      // The caller named the backing file.
      backing: 'allow',
      dataFile: () => dataFile,
      locking,
      ...(encryption === undefined ? {} : { encryption }),
    })
    // A raw device shows what it held.
    const isDevice = DiskImage.layersOf(image)[0].backend.isDevice === true
    const readsAsZeros = shape.backingFile === undefined && !(shape.format === 'raw' && isDevice)
    return copyAndClose(input, image, isInMemory(temporary) ? undefined : (dataFile ?? temporary), {
      ...work,
      readsAsZeros,
    })
  }
  return writeImageTarget(target, shape, targetOptions, (temporary, dataFile) =>
    withNewEncryption(shape.encrypting, nameOf(target), (made) => fill(temporary, dataFile, made)),
  )
}

/** Of a new image and of the files that it stands on: each may have its own. */
function encryptionOfTarget(
  own: Encryption | undefined,
  ofBacking: Encryption | undefined,
): Encryption | undefined {
  if (own === undefined || ofBacking === undefined) return own ?? ofBacking
  const answer = (passphrase: Passphrase, image: PassphraseFor): ReturnType<typeof ask> =>
    typeof passphrase === 'function' ? passphrase(image) : passphrase
  const ask = (image: PassphraseFor): string | Uint8Array | Promise<string | Uint8Array> =>
    answer(image.depth === 0 ? own.passphrase : ofBacking.passphrase, image)
  return { ...ofBacking, passphrase: ask }
}

async function copyInto(input: Concatenation, target: ImageLocation, work: Work): Promise<number> {
  const { locking = 'auto' } = work
  const image = await openImage(target, {
    format: work.format,
    cache: cacheOptionsOf(work.cache),
    backing: work.targetBacking ?? 'allow',
    ...(work.sourceDataFile === undefined ? {} : { dataFile: work.sourceDataFile }),
    locking,
    ...(work.targetEncryption === undefined ? {} : { encryption: work.targetEncryption }),
  })
  const data = DiskImage.layersOf(image)[0].dataFile?.backend.path
  if (image.size < input.size) {
    await image.close()
    throw outOfRange(
      `convertImage: the disk of the target has ${image.size} bytes, less than the ${input.size} of the source`,
    )
  }
  const copied = isInMemory(target) ? undefined : (data ?? target)
  const readsAsZeros = work.targetIsZero === true
  const written = await copyAndClose(input, image, copied, { ...work, readsAsZeros })
  if (isInMemory(target)) return written
  // With cache 'unsafe', closing does not make it durable.
  for (const path of data === undefined ? [target] : [data, target]) await makeDurable(path)
  return written
}

/** @param file  where the bytes go, if there is such a file: it is synced by the caller, after this */
async function copyAndClose(
  input: Concatenation,
  image: DiskImage,
  file: string | undefined,
  work: Work & { readonly readsAsZeros: boolean },
): Promise<number> {
  const { direct, syncPolicy } = work.cache
  const leavesMuch = !direct && syncPolicy !== 'write'
  try {
    const progress = new ProgressReporter(work.onProgress, 'copy', input.size)
    const bytesWritten = await syncEarly(leavesMuch ? file : undefined, (onWritten) =>
      copyDisk(input, image, {
        readsAsZeros: work.readsAsZeros,
        hasBacking: DiskImage.layersOf(image).length > 1,
        sparseSize: work.sparseSize ?? 4096,
        compress: work.compress ?? false,
        requests: work.requests ?? 8,
        limit: rateLimitOf(work.rateLimit),
        signal: work.signal,
        onCopied: (bytes) => progress.advance(bytes),
        onWritten,
      }),
    )
    await work.bitmaps(image)
    return bytesWritten
  } finally {
    await image.close()
  }
}

function refuseShape(given: CheckedShape): void {
  const { format: _, ...shape } = given
  for (const name of Object.keys(shapeSchema)) {
    if (name in shape) {
      throw invalid(
        `convertImage: option "${name}" is for a new target, not for existingTarget`,
        'ERR_INVALID_OPTION',
      )
    }
  }
}
