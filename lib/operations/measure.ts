import { invalid, outOfRange } from '../base/errors.js'
import { alignDown, alignUp } from '../base/integers.js'
import {
  booleanOption,
  checkOptions,
  enumOption,
  integerOption,
  powerOfTwoOption,
  required as requiredOption,
  signalOption,
  stringOption,
} from '../base/options.js'
import { sectorSize } from '../base/units.js'
import { type BackingGate, backingOption } from '../image/backing-gate.js'
import { type DataFileGate, dataFileOption } from '../image/data-file-gate.js'
import { DiskImage } from '../image/disk-image.js'
import { encryptionOption } from '../image/encryption-option.js'
import { type EncryptOptions, encryptShapeOption } from '../image/encrypt-option.js'
import { checkLocation, type ImageLocation, isInMemory } from '../image/location.js'
import { openImage, type OpenOptions } from '../image/open.js'
import { type ImageFormat, imageFormats } from '../image/probe.js'
import { snapshotOption } from '../image/snapshots.js'
import { volumeHeaderBytes } from '../luks/new-volume.js'
import type { Encryption } from '../qcow2/encryption.js'
import { bitmapBytes, type MeasuredShape, metadataBytes } from '../qcow2/measure.js'
import { readHeader } from '../qcow2/open-metadata.js'
import type { SnapshotReference } from '../queue/format-image.js'
import type { ImageShape } from './create.js'
import { listBitmaps } from './info-tables.js'

/** The image that is to be made: what of its shape its size depends on. */
export type MeasureOptions = Pick<
  ImageShape,
  'format' | 'clusterSize' | 'compat' | 'refcountBits' | 'preallocation' | 'backingFile'
> & {
  readonly extendedL2?: boolean
  /** Of the source. Default: probed. */
  readonly sourceFormat?: ImageFormat
  /** Which files the source may refer to. Default 'same-directory'. */
  readonly backing?: BackingGate
  /** Whether external data files of the source may be opened. Default 'deny'. */
  readonly sourceDataFile?: DataFileGate
  readonly forceShare?: boolean
  /** The source's disk as it is in this internal snapshot: see OpenOptions. */
  readonly snapshot?: SnapshotReference
  readonly locking?: 'auto' | 'off'
  readonly signal?: AbortSignal
  /** What opens the source where it is encrypted. */
  readonly encryption?: Encryption
  /** The new image is to be encrypted; no passphrase is needed. */
  readonly encrypt?: Omit<EncryptOptions, 'passphrase'> & Partial<Pick<EncryptOptions, 'passphrase'>>
}

/** Bytes of the file. */
export type Measurement = {
  /** When the source has been converted into it. */
  readonly required: number
  /** When every cluster of the disk is allocated. */
  readonly fullyAllocated: number
  /** What the source's persistent bitmaps take beside that; undefined where source or target cannot have any. */
  readonly bitmaps?: number
}

const measureSchema = {
  format: enumOption(imageFormats),
  clusterSize: powerOfTwoOption({ min: 512, max: 2 * 1024 * 1024 }),
  compat: enumOption(['1.1', '0.10']),
  refcountBits: powerOfTwoOption({ min: 1, max: 64 }),
  preallocation: enumOption(['off', 'metadata', 'falloc', 'full']),
  backingFile: stringOption,
  extendedL2: booleanOption,
  sourceFormat: enumOption(imageFormats),
  backing: backingOption,
  sourceDataFile: dataFileOption,
  forceShare: booleanOption,
  snapshot: snapshotOption,
  locking: enumOption(['auto', 'off']),
  signal: signalOption,
  encryption: encryptionOption,
  encrypt: encryptShapeOption,
}

/** Smallest clusters that extended L2 entries can have: 32 subclusters of 512 bytes. */
const leastExtendedClusterSize = 16384

/**
 * How large an image would become, before it is made. Nothing is written. Sizes are upper bounds, as those of `qemu-img measure`: data that holds
 * zeros counts as data, compression is not looked at.
 * @param source   an image to be converted, or the guest bytes of an empty disk
 * @param options  the image that is to be made
 * @throws as openImage; ERR_OUT_OF_RANGE  no image can be that large
 */
export async function measureImage(
  source: ImageLocation | { readonly size: number },
  options?: MeasureOptions,
): Promise<Measurement> {
  const given = checkOptions('measureImage', options, measureSchema)
  const { clusterSize = 65536, refcountBits = 16, extendedL2 = false } = given
  if (extendedL2 && clusterSize < leastExtendedClusterSize) {
    throw invalid(
      `Extended L2 entries are only supported with cluster sizes of at least ${leastExtendedClusterSize} bytes`,
      'ERR_INVALID_OPTION',
    )
  }
  if (refcountBits !== 16 && given.compat === '0.10') {
    throw invalid(
      'Different refcount widths than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)',
      'ERR_INVALID_OPTION',
    )
  }
  const target = {
    ...given,
    shape: { clusterSize, refcountBits, extendedL2 },
    encryptionBytes: given.encrypt === undefined ? 0 : alignUp(volumeHeaderBytes(given.encrypt), clusterSize),
    hasBacking: given.backingFile !== undefined,
  }
  if (typeof source === 'object' && source !== null && !isInMemory(source)) {
    const { size } = checkOptions('measureImage', source, { size: integerOption({ min: 0 }) })
    // An empty disk takes nothing of its own, with or without a backing file.
    return sizesOf(requiredOption('measureImage', 'size', size), 0, { ...target, hasBacking: false })
  }
  checkLocation('measureImage', source)
  given.signal?.throwIfAborted()
  const image = await openImage(source, { readOnly: true, ...sourceOptions(given) })
  try {
    if (given.format === 'raw') return sizesOf(image.size, 0, target)
    const data = await dataBytes(image, clusterSize, given.signal)
    const bitmaps = given.compat === '0.10' ? undefined : await bitmapsOf(image, clusterSize)
    return { ...sizesOf(image.size, data, target), ...(bitmaps === undefined ? {} : { bitmaps }) }
  } finally {
    await image.close()
  }
}

function sourceOptions({
  sourceFormat,
  backing,
  sourceDataFile,
  forceShare,
  snapshot,
  locking,
  signal,
  encryption,
}: Omit<MeasureOptions, 'encrypt'>): OpenOptions {
  return {
    ...(sourceFormat === undefined ? {} : { format: sourceFormat }),
    ...(backing === undefined ? {} : { backing }),
    ...(sourceDataFile === undefined ? {} : { dataFile: sourceDataFile }),
    ...(forceShare === undefined ? {} : { forceShare }),
    ...(snapshot === undefined ? {} : { snapshot }),
    ...(locking === undefined ? {} : { locking }),
    ...(signal === undefined ? {} : { signal }),
    ...(encryption === undefined ? {} : { encryption }),
  }
}

type Target = Pick<MeasureOptions, 'format' | 'preallocation'> & {
  readonly shape: MeasuredShape
  /** Of a LUKS header with its key slots, in whole clusters. */
  readonly encryptionBytes: number
  readonly hasBacking: boolean
}

/** @param data  bytes of the target's clusters that the source has data for */
function sizesOf(size: number, data: number, target: Target): Measurement {
  const { format = 'qcow2', preallocation = 'off', shape, hasBacking, encryptionBytes } = target
  if (format === 'raw') {
    const length = checkedLength(alignUp(size, sectorSize))
    return { required: length, fullyAllocated: length }
  }
  const metadata = metadataBytes(shape, size) + encryptionBytes
  const fullyAllocated = checkedLength(metadata + alignUp(size, shape.clusterSize))
  // Nobody knows what a backing file spares.
  const takesAll = preallocation === 'falloc' || preallocation === 'full' || hasBacking
  return { required: takesAll ? fullyAllocated : metadata + data, fullyAllocated }
}

function checkedLength(bytes: number): number {
  if (bytes <= Number.MAX_SAFE_INTEGER) return bytes
  throw outOfRange(`An image of ${bytes} bytes is larger than the 8 PiB that are supported`)
}

/** Bytes of the clusters, of the target's size, that hold any data of the source. */
async function dataBytes(
  image: DiskImage,
  clusterSize: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  let bytes = 0
  let counted = 0
  for await (const extent of image.extents()) {
    signal?.throwIfAborted()
    if (!extent.data || extent.zero) continue
    const start = Math.max(counted, alignDown(extent.offset, clusterSize))
    const end = alignUp(extent.offset + extent.length, clusterSize)
    if (end > start) bytes += end - start
    counted = Math.max(counted, end)
  }
  return bytes
}

async function bitmapsOf(image: DiskImage, clusterSize: number): Promise<number | undefined> {
  const [{ format, backend }] = DiskImage.layersOf(image)
  if (format.format !== 'qcow2') return undefined
  const { header } = await readHeader(backend)
  if (header.version < 3) return undefined
  return bitmapBytes(await listBitmaps(backend, header), image.size, clusterSize)
}
