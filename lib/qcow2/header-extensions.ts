import { isAligned } from '../base/integers.js'
import { Qcow2Error } from '../base/errors.js'
import {
  autoclear,
  bitmapsExtension,
  encryptionExtension,
  extensionHeader,
  extensionTypes,
  featureGroups,
  featureName,
  limits,
} from './spec.js'

/** One header extension as it stands in the file. */
export type Extension = {
  readonly type: number
  /** Where its 8-byte head begins, in bytes from the start of the file. */
  readonly offset: number
  /** A copy, without padding. */
  readonly data: Uint8Array
}

/** The extensions up to the end marker, or up to one that cannot be: `broken` says why. */
export type ScannedExtensions = { readonly found: readonly Extension[]; readonly broken: Error | undefined }

/** An error about the header or an extension. @param offset where in the file it stands */
export function headerError(path: string, offset: number, what: string, structure = 'header'): Qcow2Error {
  const message = `${what} (${structure} at offset ${offset})`
  return new Qcow2Error('ERR_CORRUPT', message, { path, offset, structure })
}

/**
 * Cut the extension area into extensions. qcow2 spec, "Header extensions".
 * @param cluster  the first cluster
 * @param from     first byte of the area
 * @param end      the area's end: the backing file's name, or the end of the cluster
 */
export function scanExtensions(
  cluster: Uint8Array,
  from: number,
  end: number,
  path: string,
): ScannedExtensions {
  const found: Extension[] = []
  let at = from
  while (at + extensionHeader.sizeBytes <= end) {
    const { type, length } = extensionHeader.decode(cluster, at, at)
    if (type === extensionTypes.end) break
    const dataAt = at + extensionHeader.sizeBytes
    if (length > end - dataAt) {
      const broken = headerError(path, at, 'Header extension too large', nameOf(type))
      return { found, broken }
    }
    if (found.some((earlier) => earlier.type === type)) {
      return { found, broken: headerError(path, at, 'Header extension occurs twice', nameOf(type)) }
    }
    found.push({ type, offset: at, data: Uint8Array.from(cluster.subarray(dataAt, dataAt + length)) })
    at = dataAt + length + ((8 - (length % 8)) % 8)
  }
  return { found, broken: undefined }
}

/** How messages call an extension. */
function nameOf(type: number): string {
  switch (type) {
    case extensionTypes.backingFormat:
      return 'backing format extension'
    case extensionTypes.featureNames:
      return 'feature name table'
    case extensionTypes.bitmaps:
      return 'bitmaps extension'
    case extensionTypes.encryptionHeader:
      return 'full disk encryption header pointer'
    case extensionTypes.dataFileName:
      return 'external data file name extension'
    default:
      return `header extension 0x${type.toString(16).padStart(8, '0')}`
  }
}

export function findExtension(extensions: readonly Extension[], type: number): Extension | undefined {
  return extensions.find((extension) => extension.type === type)
}

/** What the checks of the extensions' contents must know of the header. */
type HeaderFacts = { clusterSize: number; cryptMethod: number; autoclearFeatures: bigint }

/**
 * Check what the known extensions say. Unknown ones are the business of others, and kept.
 * @throws ERR_CORRUPT
 */
export function checkExtensions(extensions: readonly Extension[], facts: HeaderFacts, path: string): void {
  for (const { type, offset, data } of extensions) {
    const fail = (what: string): never => {
      throw headerError(path, offset, what, nameOf(type))
    }
    if (type === extensionTypes.backingFormat && data.length > limits.backingFormatBytes) {
      fail(`The backing format's name has ${data.length} bytes, at most ${limits.backingFormatBytes} can be`)
    }
    if (type === extensionTypes.encryptionHeader) {
      if (facts.cryptMethod !== 2) fail('CRYPTO header extension only expected with LUKS encryption method')
      if (data.length !== encryptionExtension.sizeBytes) {
        fail(`CRYPTO header extension has ${data.length} bytes, not ${encryptionExtension.sizeBytes}`)
      }
      const pointer = encryptionExtension.decode(data, 0, offset + extensionHeader.sizeBytes)
      if (!isAligned(pointer.offset, facts.clusterSize))
        fail('Encryption header offset is not cluster aligned')
    }
    // without its autoclear bit the extension is out of date and means nothing
    if (type === extensionTypes.bitmaps && (facts.autoclearFeatures & autoclear.bitmaps) !== 0n) {
      checkBitmapsExtension(data, offset, facts.clusterSize, fail)
    }
  }
}

function checkBitmapsExtension(
  data: Uint8Array,
  offset: number,
  clusterSize: number,
  fail: (what: string) => never,
): void {
  if (data.length !== bitmapsExtension.sizeBytes) {
    fail(`bitmaps_ext: Invalid extension length ${data.length}, not ${bitmapsExtension.sizeBytes}`)
  }
  const bitmaps = bitmapsExtension.decode(data, 0, offset + extensionHeader.sizeBytes)
  if (bitmaps.reserved !== 0) fail('bitmaps_ext: Reserved field is not zero')
  if (bitmaps.count > limits.bitmaps)
    fail(`bitmaps_ext: ${bitmaps.count} bitmaps, at most ${limits.bitmaps} can be`)
  if (bitmaps.count === 0) fail('bitmaps_ext: found bitmaps extension with zero bitmaps')
  if (!isAligned(bitmaps.directoryOffset, clusterSize)) fail('bitmaps_ext: invalid bitmap directory offset')
  if (bitmaps.directoryBytes > limits.bitmapDirectoryBytes) {
    fail(
      `bitmaps_ext: bitmap directory size (${bitmaps.directoryBytes}) exceeds ${limits.bitmapDirectoryBytes}`,
    )
  }
}

/**
 * The names that the image's own table gives to incompatible bits, escaped: they come from a stranger and go to a terminal.
 * Bits without a name are told as a mask. The words are QEMU's.
 */
export function describeIncompatible(bits: bigint, extensions: readonly Extension[]): string {
  const parts: string[] = []
  let unnamed = bits
  const table = findExtension(extensions, extensionTypes.featureNames)?.data ?? new Uint8Array()
  for (let at = 0; at + featureName.sizeBytes <= table.length; at += featureName.sizeBytes) {
    const entry = featureName.decode(table, at, at)
    if (entry.group !== featureGroups.incompatible || entry.bit > 63) continue
    const bit = 1n << BigInt(entry.bit)
    if ((unnamed & bit) === 0n) continue
    parts.push(escapeName(textUpToNul(entry.name)))
    unnamed &= ~bit
  }
  if (unnamed !== 0n) parts.push(`Unknown incompatible feature: ${unnamed.toString(16)}`)
  return parts.join(', ')
}

/** Text that an image holds, up to its first NUL. */
export function textUpToNul(bytes: Uint8Array): string {
  const end = bytes.indexOf(0)
  return Buffer.from(bytes.subarray(0, end === -1 ? bytes.length : end)).toString('utf8')
}

/** Make a stranger's text safe to print: control characters, and what reorders text, become escapes. */
export function escapeName(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (found) => `\\u{${(found.codePointAt(0) ?? 0).toString(16)}}`,
  )
}
