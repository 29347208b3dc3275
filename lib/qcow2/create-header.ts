import { invalid } from '../base/errors.js'
import { alignUp } from '../base/integers.js'
import {
  autoclear,
  compatible,
  compressionTypeAt,
  encryptionExtension,
  extensionHeader,
  extensionTypes,
  featureName,
  featureNames,
  headerLengthV3,
  headerV2,
  headerV3,
  incompatible,
  limits,
  magic,
} from './spec.js'

/** What a new image's header says. */
export type NewHeader = {
  readonly version: 2 | 3
  /** Guest bytes, a multiple of 512. */
  readonly size: number
  readonly clusterBits: number
  readonly refcountOrder: number
  readonly lazyRefcounts: boolean
  readonly compressionType: 'zlib' | 'zstd'
  readonly extendedL2?: boolean
  readonly l1Offset: number
  readonly l1Entries: number
  readonly refcountTableOffset: number
  readonly refcountTableClusters: number
  readonly backingFile: string | undefined
  readonly backingFormat: string | undefined
  readonly dataFile?: string | undefined
  readonly dataFileRaw?: boolean
  /** Where the LUKS header of an encrypted image stands. Bytes. */
  readonly encryption?: { readonly offset: number; readonly length: number } | undefined
}

/** Clusters up to this size get no feature name table: it would leave no room for a backing file's name in the smallest. */
export const largestWithoutFeatureNames = 4096

/**
 * The first cluster of a new image, as QEMU 7.2 lays it out: fixed fields, extensions (backing format, encryption, feature names), the
 * end marker, the backing file's name. qcow2 spec, "Header" and "Header extensions".
 * @throws ERR_INVALID_OPTION  the backing file's name or format does not fit
 */
export function encodeHeader(header: NewHeader): Uint8Array {
  const clusterSize = 2 ** header.clusterBits
  const cluster = new Uint8Array(clusterSize)
  let at: number = header.version === 2 ? headerV2.sizeBytes : headerLengthV3
  const append = (type: number, data: Uint8Array): void => {
    cluster.set(extensionHeader.encode({ type, length: data.length }), at)
    cluster.set(data, at + extensionHeader.sizeBytes)
    at += extensionHeader.sizeBytes + alignUp(data.length, 8)
  }
  if (header.backingFormat !== undefined)
    append(extensionTypes.backingFormat, encodeFormat(header.backingFormat))
  if (header.dataFile !== undefined)
    append(extensionTypes.dataFileName, encodeDataFile(header.dataFile, clusterSize - at))
  if (header.encryption !== undefined)
    append(extensionTypes.encryptionHeader, encryptionExtension.encode(header.encryption))
  if (header.version === 3 && clusterSize > largestWithoutFeatureNames) {
    append(extensionTypes.featureNames, encodeFeatureNames())
  }
  at += extensionHeader.sizeBytes // the end marker: type 0, length 0

  const name = Buffer.from(header.backingFile ?? '', 'utf8')
  const room = Math.min(limits.backingFileBytes, clusterSize - at)
  if (name.length > room) {
    const what = `Backing file name has ${name.length} bytes, at most ${room} fit`
    throw invalid(`${what} with clusters of ${clusterSize} bytes`, 'ERR_INVALID_OPTION')
  }
  cluster.set(name, at)
  putFields(cluster, header, name.length === 0 ? 0 : at, name.length)
  return cluster
}

function putFields(
  cluster: Uint8Array,
  header: NewHeader,
  backingFileOffset: number,
  backingFileSize: number,
): void {
  const { version, clusterBits, l1Entries, l1Offset, refcountTableOffset, refcountTableClusters } = header
  headerV2.patch(cluster, 0, {
    magic,
    version,
    backingFileOffset,
    backingFileSize,
    clusterBits,
    size: BigInt(header.size),
    cryptMethod: header.encryption === undefined ? 0 : 2,
    l1Entries,
    l1Offset,
    refcountTableOffset,
    refcountTableClusters,
  })
  if (version === 2) return
  const zstd = header.compressionType === 'zstd'
  headerV3.patch(cluster, headerV2.sizeBytes, {
    incompatibleFeatures:
      (zstd ? incompatible.compressionType : 0n) |
      (header.extendedL2 === true ? incompatible.extendedL2 : 0n) |
      (header.dataFile === undefined ? 0n : incompatible.dataFile),
    autoclearFeatures: header.dataFileRaw === true ? autoclear.dataFileRaw : 0n,
    compatibleFeatures: header.lazyRefcounts ? compatible.lazyRefcounts : 0n,
    refcountOrder: header.refcountOrder,
    headerLength: headerLengthV3,
  })
  cluster[compressionTypeAt] = zstd ? 1 : 0
}

/** @throws ERR_INVALID_OPTION  no room for it */
function encodeDataFile(name: string, room: number): Uint8Array {
  const bytes = Buffer.from(name, 'utf8')
  // Two extensions' heads: its own and the end marker.
  const most = Math.min(limits.dataFileBytes, room - 2 * extensionHeader.sizeBytes)
  if (alignUp(bytes.length, 8) <= most) return bytes
  throw invalid(`Data file name has ${bytes.length} bytes, at most ${most} fit`, 'ERR_INVALID_OPTION')
}

/** @throws ERR_INVALID_OPTION  it is longer than any format's name */
export function encodeFormat(format: string): Uint8Array {
  const bytes = Buffer.from(format, 'utf8')
  if (bytes.length > limits.backingFormatBytes) {
    const what = `Backing format '${format}' has ${bytes.length} bytes`
    throw invalid(`${what}, at most ${limits.backingFormatBytes} are possible`, 'ERR_INVALID_OPTION')
  }
  return bytes
}

export function encodeFeatureNames(): Uint8Array {
  const table = new Uint8Array(featureNames.length * featureName.sizeBytes)
  for (const [index, [group, bit, text]] of featureNames.entries()) {
    const name = new Uint8Array(featureName.sizeBytes - featureName.offsets.name)
    name.set(Buffer.from(text, 'utf8'))
    featureName.patch(table, index * featureName.sizeBytes, { group, bit, name })
  }
  return table
}
