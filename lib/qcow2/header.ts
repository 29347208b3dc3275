import { Qcow2Error, unsupported } from '../base/errors.js'
import { alignDown, alignUp, divideRoundingUp } from '../base/integers.js'
import { sectorSize } from '../base/units.js'
import {
  checkExtensions,
  describeIncompatible,
  type Extension,
  findExtension,
  headerError,
  scanExtensions,
  textUpToNul,
} from './header-extensions.js'
import {
  autoclear,
  compressionTypeAt,
  encryptionNames,
  extensionHeader,
  extensionTypes,
  headerV2,
  headerV3,
  incompatible,
  knownIncompatible,
  limits,
  magic,
} from './spec.js'

/** What the first cluster of an image says. qcow2 spec, "Header". */
export type Header = {
  readonly version: 2 | 3
  /** Guest bytes, floored to sectors of 512. */
  readonly size: number
  readonly clusterBits: number
  /** 0 none, 1 AES, 2 LUKS. */
  readonly cryptMethod: number
  readonly l1Entries: number
  readonly l1Offset: number
  readonly refcountTableOffset: number
  readonly refcountTableClusters: number
  readonly snapshotCount: number
  readonly snapshotsOffset: number
  readonly incompatibleFeatures: bigint
  readonly compatibleFeatures: bigint
  readonly autoclearFeatures: bigint
  readonly refcountOrder: number
  readonly headerLength: number
  readonly compressionType: 'zlib' | 'zstd'
  /** As stored: any text, not yet judged. */
  readonly backingFile: string | undefined
  readonly backingFormat: string | undefined
  /** As stored: any text, not yet judged. */
  readonly dataFile: string | undefined
  readonly extensions: readonly Extension[]
}

/**
 * The size of an image's clusters, from the first bytes of its file.
 * @param bytes  at least the first 24 bytes, or all the file has
 * @returns log2 of bytes, 9 to 21
 * @throws ERR_NOT_AN_IMAGE, ERR_UNSUPPORTED_FEATURE (version), ERR_CORRUPT
 */
export function parseClusterBits(bytes: Uint8Array, path: string): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (bytes.length < 4 || view.getUint32(0) !== magic) {
    throw new Qcow2Error('ERR_NOT_AN_IMAGE', 'Image is not in qcow2 format', {
      path,
      offset: 0,
      structure: 'header',
    })
  }
  if (bytes.length < headerV2.sizeBytes) throw truncated(path, bytes.length)
  const version = view.getUint32(headerV2.offsets.version)
  if (version !== 2 && version !== 3) {
    throw unsupported(`Unsupported qcow2 version ${version}`, {
      path,
      offset: headerV2.offsets.version,
      structure: 'header',
    })
  }
  const clusterBits = view.getUint32(headerV2.offsets.clusterBits)
  if (clusterBits < limits.clusterBits.least || clusterBits > limits.clusterBits.most) {
    throw headerError(path, headerV2.offsets.clusterBits, `Unsupported cluster size: 2^${clusterBits}`)
  }
  return clusterBits
}

/**
 * Where the header's fields, its extensions and the backing file's name end, in bytes, as far as the beginning of the first cluster shows it. What it does
 * not show, or what cannot be, has no end.
 * @param start  as parseClusterBits has accepted it
 */
export function headerEnd(start: Uint8Array): number {
  const view = new DataView(start.buffer, start.byteOffset, start.byteLength)
  const { offsets } = headerV2
  const isShort = view.getUint32(offsets.version) === 2
  if (!isShort && start.length < headerV2.sizeBytes + headerV3.sizeBytes) return Infinity
  let at = isShort ? headerV2.sizeBytes : view.getUint32(headerV2.sizeBytes + headerV3.offsets.headerLength)
  const nameAt =
    view.getUint32(offsets.backingFileOffset) * 2 ** 32 + view.getUint32(offsets.backingFileOffset + 4)
  const nameEnd = nameAt + (nameAt === 0 ? 0 : view.getUint32(offsets.backingFileSize))
  while (nameAt === 0 || at + extensionHeader.sizeBytes <= nameAt) {
    if (at + extensionHeader.sizeBytes > start.length) return Infinity
    const type = view.getUint32(at)
    const length = view.getUint32(at + 4)
    at += extensionHeader.sizeBytes
    if (type === extensionTypes.end) break
    at = alignUp(at + length, 8)
  }
  return Math.max(at, nameEnd)
}

/**
 * Read the header: every check that needs nothing but the first cluster, in QEMU's order. An image that passes may still
 * have features that contradict each other: see refuseContradiction.
 *
 * @param bytes      the first cluster, or what the file has of it; of a longer one it may be the beginning: see `headerEnd`
 * @param available  how much of it the file has
 * @throws ERR_NOT_AN_IMAGE         no magic
 * @throws ERR_UNSUPPORTED_FEATURE  version, unknown incompatible bits (by the image's own names for them), compression type
 * @throws ERR_CORRUPT              a field that no image can have, or the file ends within
 */
export function parseHeader(bytes: Uint8Array, path: string, available = bytes.length): Header {
  const clusterBits = parseClusterBits(bytes, path)
  const clusterSize = 2 ** clusterBits
  const fixed = headerV2.decode(bytes, 0, 0)
  const version = fixed.version === 2 ? 2 : 3
  const features = version === 2 ? featuresOfV2 : parseV3(bytes, clusterSize, path)

  if (fixed.backingFileOffset > clusterSize) {
    throw headerError(path, headerV2.offsets.backingFileOffset, 'Invalid backing file offset')
  }
  const extensionsEnd = fixed.backingFileOffset === 0 ? clusterSize : fixed.backingFileOffset
  if (available < extensionsEnd) throw truncated(path, available)
  const scanned = scanExtensions(bytes, features.headerLength, extensionsEnd, path)

  const unknown = features.incompatibleFeatures & ~knownIncompatible
  if (unknown !== 0n) {
    throw unsupported(`Unsupported qcow2 feature(s): ${describeIncompatible(unknown, scanned.found)}`, {
      path,
      offset: headerV2.sizeBytes + headerV3.offsets.incompatibleFeatures,
      structure: 'header',
    })
  }
  const extendedL2 = (features.incompatibleFeatures & incompatible.extendedL2) !== 0n
  if (extendedL2 && clusterBits < limits.extendedL2ClusterBits) {
    throw headerError(
      path,
      headerV2.offsets.clusterBits,
      'Extended L2 entries need clusters of at least 16 KiB',
    )
  }
  if (features.refcountOrder > limits.refcountOrder) {
    const what = 'Reference count entry width too large; may not exceed 64 bits'
    throw headerError(path, headerV2.sizeBytes + headerV3.offsets.refcountOrder, what)
  }
  if (fixed.cryptMethod >= encryptionNames.length) {
    throw headerError(
      path,
      headerV2.offsets.cryptMethod,
      `Unsupported encryption method ${fixed.cryptMethod}`,
    )
  }
  if (fixed.l1Entries > limits.l1Entries)
    throw headerError(path, headerV2.offsets.l1Entries, 'Active L1 table too large')
  const size = checkSize(fixed.size, fixed.l1Entries, clusterSize, extendedL2, path)
  if (scanned.broken !== undefined) throw scanned.broken
  checkExtensions(scanned.found, { clusterSize, cryptMethod: fixed.cryptMethod, ...features }, path)

  const format = findExtension(scanned.found, extensionTypes.backingFormat)
  const dataFile = findExtension(scanned.found, extensionTypes.dataFileName)
  return {
    version,
    size: alignDown(size, sectorSize),
    clusterBits,
    cryptMethod: fixed.cryptMethod,
    l1Entries: fixed.l1Entries,
    l1Offset: fixed.l1Offset,
    refcountTableOffset: fixed.refcountTableOffset,
    refcountTableClusters: fixed.refcountTableClusters,
    snapshotCount: fixed.snapshotCount,
    snapshotsOffset: fixed.snapshotsOffset,
    ...features,
    backingFile: parseBackingFile(bytes, fixed.backingFileOffset, fixed.backingFileSize, clusterSize, path),
    backingFormat: format === undefined ? undefined : textUpToNul(format.data),
    dataFile: dataFile === undefined ? undefined : textUpToNul(dataFile.data),
    extensions: scanned.found,
  }
}

type Features = Pick<
  Header,
  | 'incompatibleFeatures'
  | 'compatibleFeatures'
  | 'autoclearFeatures'
  | 'refcountOrder'
  | 'headerLength'
  | 'compressionType'
>

/** What a version 2 header implies. qcow2 spec, "Header": "For version 2, ...". */
const featuresOfV2: Features = {
  incompatibleFeatures: 0n,
  compatibleFeatures: 0n,
  autoclearFeatures: 0n,
  refcountOrder: 4,
  headerLength: headerV2.sizeBytes,
  compressionType: 'zlib',
}

function parseV3(bytes: Uint8Array, clusterSize: number, path: string): Features {
  const fixedBytes = headerV2.sizeBytes + headerV3.sizeBytes
  if (bytes.length < fixedBytes) throw truncated(path, bytes.length)
  const fields = headerV3.decode(bytes, headerV2.sizeBytes, headerV2.sizeBytes)
  const lengthAt = headerV2.sizeBytes + headerV3.offsets.headerLength
  if (fields.headerLength < fixedBytes) throw headerError(path, lengthAt, 'qcow2 header too short')
  if (fields.headerLength > clusterSize)
    throw headerError(path, lengthAt, 'qcow2 header exceeds cluster size')
  if (bytes.length < fields.headerLength) throw truncated(path, bytes.length)

  const compressionType = fields.headerLength > compressionTypeAt ? (bytes[compressionTypeAt] ?? 0) : 0
  if (compressionType > 1) {
    throw unsupported(`qcow2: unknown compression type: ${compressionType}`, {
      path,
      offset: compressionTypeAt,
      structure: 'header',
    })
  }
  const announced = (fields.incompatibleFeatures & incompatible.compressionType) !== 0n
  if (announced !== (compressionType !== 0)) {
    const must = announced ? 'must not be set' : 'must be set'
    throw headerError(path, compressionTypeAt, `qcow2: Compression type incompatible feature bit ${must}`)
  }
  return { ...fields, compressionType: compressionType === 0 ? 'zlib' : 'zstd' }
}

/** @returns the size in bytes as stored. The comparison with the L1 is exact: bigint. */
function checkSize(
  size: bigint,
  l1Entries: number,
  clusterSize: number,
  extendedL2: boolean,
  path: string,
): number {
  const at = headerV2.offsets.size
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw headerError(path, at, `Image is too big: ${size} bytes, at most 2^53 - 1 are supported`)
  }
  const entryBytes = extendedL2 ? 16 : 8
  const needed = divideRoundingUp(Number(size), (clusterSize / entryBytes) * clusterSize)
  if (needed > l1Entries) {
    throw headerError(
      path,
      at,
      `L1 table is too small: ${l1Entries} entries where ${size} bytes need ${needed}`,
    )
  }
  return Number(size)
}

function parseBackingFile(
  bytes: Uint8Array,
  offset: number,
  length: number,
  clusterSize: number,
  path: string,
): string | undefined {
  if (offset === 0) return undefined
  if (length > Math.min(limits.backingFileBytes, clusterSize - offset)) {
    throw headerError(path, headerV2.offsets.backingFileSize, 'Backing file name too long')
  }
  if (bytes.length < offset + length) throw truncated(path, bytes.length)
  const name = textUpToNul(bytes.subarray(offset, offset + length))
  return name === '' ? undefined : name
}

function truncated(path: string, length: number): Qcow2Error {
  return headerError(path, length, `The file is truncated: it ends after ${length} bytes, within the header`)
}

/**
 * Refuse a header whose features contradict each other.
 * @throws ERR_CORRUPT
 */
export function refuseContradiction(header: Header, path: string): void {
  const isRaw = (header.autoclearFeatures & autoclear.dataFileRaw) !== 0n
  if (!isRaw || (header.incompatibleFeatures & incompatible.dataFile) !== 0n) return
  throw headerError(
    path,
    headerV2.sizeBytes + headerV3.offsets.autoclearFeatures,
    'data-file-raw requires a data file',
  )
}

/** A change of the fields that are switched while an image is in use. */
export type HeaderChange = {
  /** Guest bytes. */
  readonly size?: number
  readonly l1?: { readonly offset: number; readonly entries: number }
  readonly refcountTable?: { readonly offset: number; readonly clusters: number }
  readonly snapshots?: { readonly offset: number; readonly count: number }
  /** Version 3 only, as the other masks. */
  readonly incompatibleFeatures?: bigint
  readonly autoclearFeatures?: bigint
  readonly compatibleFeatures?: bigint
  /** Version 3 only: with the refcount table that has counts of that width. */
  readonly refcountOrder?: number
}

/**
 * Change these fields in a first cluster and nothing else: unknown fields and extensions stay to the byte. All that
 * changes lies in the first sector of 512 bytes, so that writing it is an atomic switch.
 */
export function patchHeader(cluster: Uint8Array, change: HeaderChange): void {
  headerV2.patch(cluster, 0, {
    ...(change.size === undefined ? {} : { size: BigInt(change.size) }),
    ...(change.l1 === undefined ? {} : { l1Offset: change.l1.offset, l1Entries: change.l1.entries }),
    ...(change.refcountTable === undefined
      ? {}
      : {
          refcountTableOffset: change.refcountTable.offset,
          refcountTableClusters: change.refcountTable.clusters,
        }),
    ...(change.snapshots === undefined
      ? {}
      : { snapshotsOffset: change.snapshots.offset, snapshotCount: change.snapshots.count }),
  })
  const { incompatibleFeatures, autoclearFeatures, compatibleFeatures, refcountOrder } = change
  const ofVersion3 = { incompatibleFeatures, autoclearFeatures, compatibleFeatures, refcountOrder }
  const given = Object.entries(ofVersion3).filter(([, value]) => value !== undefined)
  if (given.length > 0) headerV3.patch(cluster, headerV2.sizeBytes, Object.fromEntries(given))
}
