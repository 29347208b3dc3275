import { alignUp } from '../base/integers.js'
import { parseHeader } from './header.js'
import { type Extension, scanExtensions, textUpToNul } from './header-extensions.js'
import {
  fieldsOf,
  type ImageStructure,
  numbersOf,
  problemOf,
  reasonOf,
  shownText,
} from './inspect-structure.js'
import {
  bitmapsExtensionWords,
  encryptionExtensionWords,
  extensionNames,
  headerV2Words,
  headerV3Words,
} from './inspect-words.js'
import {
  bitmapsExtension,
  compressionTypeAt,
  encryptionExtension,
  extensionHeader,
  extensionTypes,
  featureGroups,
  featureName,
  headerV2,
  headerV3,
  incompatible,
  limits,
} from './spec.js'

/** What the tables are read by. The numbers are as stored, and judged by whoever follows them. */
export type HeaderNumbers = {
  readonly version: 2 | 3
  /** 9 to 21. */
  readonly clusterBits: number
  /** As stored; more than 6 is no order. */
  readonly refcountOrder: number
  readonly extendedL2: boolean
  readonly hasDataFile: boolean
  readonly incompatibleFeatures: bigint
  readonly autoclearFeatures: bigint
  readonly cryptMethod: number
  readonly l1Offset: number | bigint
  readonly l1Entries: number
  readonly refcountTableOffset: number | bigint
  readonly refcountTableClusters: number
  readonly snapshotsOffset: number | bigint
  readonly snapshotCount: number
  readonly extensions: readonly Extension[]
}

/** The parts that stand in the first cluster, and what the tables are read by, where a size of clusters is known. */
export type InspectedHeader = {
  readonly parts: readonly ImageStructure[]
  readonly numbers: HeaderNumbers | undefined
}

/**
 * The header, its extensions, and the names in the first cluster. What is wrong is told at the part that it is about, and the rest is read all the same.
 * @param first  the first bytes of the file, all that the file has of its first 2 MiB; the magic number is there
 */
export function inspectHeader(first: Uint8Array, path: string): InspectedHeader {
  const { sizeBytes } = headerV2
  const base = fieldsOf('header field', headerV2, headerV2Words, first, 0, 0)
  const stored = numbersOf(headerV2, first, 0)
  const isKnown = stored.version === 2 || stored.version === 3
  const clusterBits = Number(stored.clusterBits)
  const hasClusters =
    isKnown && clusterBits >= limits.clusterBits.least && clusterBits <= limits.clusterBits.most
  const fixed = stored.version === 2 ? sizeBytes : sizeBytes + headerV3.sizeBytes
  if (first.length < fixed || !isKnown || !hasClusters) {
    // What another version has in its header is not known; of these the fields stand where they always do.
    const parts = isKnown ? [...base, ...versionThree(first, stored.version)] : base.slice(0, 2)
    const length = isKnown ? fixed : partsLength(parts)
    return { parts: [{ ...headerPart(parts, length), ...headerProblem(first, path) }], numbers: undefined }
  }
  const cluster = first.subarray(0, 2 ** clusterBits)
  const version = stored.version === 2 ? 2 : 3
  const three = numbersOf(headerV3, version === 2 ? noFeatures : cluster, version === 2 ? 0 : sizeBytes)
  const stated = version === 2 ? sizeBytes : Number(three.headerLength)
  const isPlausible = stated >= fixed && stated <= 2 ** clusterBits
  const length = isPlausible ? stated : fixed
  const parts = [...base, ...versionThree(cluster, version), ...behindFields(cluster, fixed, length)]
  const backing = backingName(cluster, stored.backingFileOffset, Number(stored.backingFileSize), clusterBits)
  const end = typeof backing?.offset === 'number' ? backing.offset : 2 ** clusterBits
  const scanned = isPlausible ? inspectExtensions(cluster, length, end, path) : { parts: [], found: [] }
  const features = BigInt(three.incompatibleFeatures)
  return {
    parts: [
      { ...headerPart(parts, length), ...headerProblem(cluster, path) },
      ...scanned.parts,
      ...(backing === undefined ? [] : [backing]),
    ],
    numbers: {
      version,
      clusterBits,
      refcountOrder: version === 2 ? 4 : Number(three.refcountOrder),
      extendedL2: (features & incompatible.extendedL2) !== 0n,
      hasDataFile: (features & incompatible.dataFile) !== 0n,
      incompatibleFeatures: features,
      autoclearFeatures: BigInt(three.autoclearFeatures),
      cryptMethod: Number(stored.cryptMethod),
      l1Offset: stored.l1Offset,
      l1Entries: Number(stored.l1Entries),
      refcountTableOffset: stored.refcountTableOffset,
      refcountTableClusters: Number(stored.refcountTableClusters),
      snapshotsOffset: stored.snapshotsOffset,
      snapshotCount: Number(stored.snapshotCount),
      extensions: scanned.found,
    },
  }
}

/** In place of what a version 2 header does not have. */
const noFeatures = new Uint8Array(headerV3.sizeBytes)

function headerPart(parts: readonly ImageStructure[], length: number): ImageStructure {
  return { structure: 'header', offset: 0, length, parts }
}

const partsLength = (parts: readonly ImageStructure[]): number =>
  parts.reduce((sum, { length = 0 }) => sum + length, 0)

/** The words of whoever opens such an image. */
function headerProblem(cluster: Uint8Array, path: string): { readonly problem?: string } {
  try {
    parseHeader(cluster, path)
    return {}
  } catch (error) {
    return { problem: reasonOf(error) }
  }
}

function versionThree(cluster: Uint8Array, version: number | bigint): ImageStructure[] {
  if (version === 2) return []
  const { sizeBytes } = headerV2
  return fieldsOf('header field', headerV3, headerV3Words, cluster, sizeBytes, sizeBytes)
}

/** What a header has behind the fields that each of its version has. */
function behindFields(cluster: Uint8Array, from: number, end: number): ImageStructure[] {
  const parts: ImageStructure[] = []
  const within = Math.min(end, cluster.length)
  if (from === compressionTypeAt && within > compressionTypeAt) {
    const value = cluster[compressionTypeAt] ?? 0
    const meaning = ['zlib', 'zstd'][value]
    parts.push({
      structure: 'header field',
      name: 'compression_type',
      offset: compressionTypeAt,
      length: 1,
      value,
      ...(meaning === undefined ? {} : { meaning }),
    })
  }
  const at = from + parts.length
  if (within > at) parts.push({ structure: 'header field', name: 'padding', offset: at, length: within - at })
  return parts
}

/** The name as it stands there; nobody looks for the file. */
function backingName(
  cluster: Uint8Array,
  offset: number | bigint,
  length: number,
  clusterBits: number,
): ImageStructure | undefined {
  if (offset === 0) return undefined
  const structure = 'backing file name'
  if (typeof offset === 'bigint') return { structure, length, problem: 'its offset is not below 2^53' }
  const place = { structure, offset, length }
  if (offset + length > 2 ** clusterBits) return { ...place, problem: 'it is not within the first cluster' }
  if (offset + length > cluster.length) return { ...place, problem: 'the file ends before it, or within' }
  const problem =
    length > limits.backingFileBytes
      ? `a name of ${length} bytes, at most ${limits.backingFileBytes} can be`
      : undefined
  return {
    ...place,
    value: shownText(cluster.subarray(offset, offset + length)),
    ...problemOf(problem),
  }
}

function inspectExtensions(
  cluster: Uint8Array,
  from: number,
  end: number,
  path: string,
): { readonly parts: readonly ImageStructure[]; readonly found: readonly Extension[] } {
  const { found, broken } = scanExtensions(cluster, from, Math.min(end, cluster.length), path)
  const parts = found.map((extension) => extensionPart(extension, cluster))
  const last = found.at(-1)
  const at =
    last === undefined ? from : alignUp(last.offset + extensionHeader.sizeBytes + last.data.length, 8)
  const head = fieldsOf('header extension field', extensionHeader, extensionWords, cluster, at, at)
  if (broken !== undefined) {
    const name = extensionNames[Number(head[0]?.value ?? 0)] ?? 'unknown'
    const length = extensionHeader.sizeBytes
    parts.push({
      structure: 'header extension',
      name,
      offset: at,
      length,
      parts: head,
      problem: broken.message,
    })
  } else if (at + extensionHeader.sizeBytes <= Math.min(end, cluster.length)) {
    const name = extensionNames[extensionTypes.end] ?? ''
    parts.push({
      structure: 'header extension',
      name,
      offset: at,
      length: extensionHeader.sizeBytes,
      parts: head,
    })
  }
  return { parts, found }
}

const extensionWords = { names: { type: 'type', length: 'length' } } as const

function extensionPart({ type, offset, data }: Extension, cluster: Uint8Array): ImageStructure {
  const at = offset + extensionHeader.sizeBytes
  const head = fieldsOf('header extension field', extensionHeader, extensionWords, cluster, offset, offset)
  const name = extensionNames[type]
  return {
    structure: 'header extension',
    name: name ?? 'unknown',
    offset,
    length: extensionHeader.sizeBytes + data.length,
    ...(type === extensionTypes.featureNames && data.length / featureName.sizeBytes > mostFeatureNames
      ? { notShown: Math.floor(data.length / featureName.sizeBytes) - mostFeatureNames }
      : {}),
    parts: [...head, ...extensionData(type, data, at)],
  }
}

function extensionData(type: number, data: Uint8Array, at: number): readonly ImageStructure[] {
  const field = 'header extension field'
  switch (type) {
    case extensionTypes.backingFormat:
    case extensionTypes.dataFileName:
      return [{ structure: field, name: 'data', offset: at, length: data.length, value: shownText(data) }]
    case extensionTypes.featureNames:
      return featureEntries(data, at)
    case extensionTypes.bitmaps:
      return fieldsOf(field, bitmapsExtension, bitmapsExtensionWords, data, 0, at)
    case extensionTypes.encryptionHeader:
      return fieldsOf(field, encryptionExtension, encryptionExtensionWords, data, 0, at)
    default:
      return data.length === 0 ? [] : [{ structure: field, name: 'data', offset: at, length: data.length }]
  }
}

/** One for each bit of the three masks. */
const mostFeatureNames = 3 * 64

function featureEntries(data: Uint8Array, at: number): ImageStructure[] {
  const entries: ImageStructure[] = []
  const count = Math.min(mostFeatureNames, Math.floor(data.length / featureName.sizeBytes))
  const groups = Object.fromEntries(Object.entries(featureGroups).map(([name, group]) => [group, name]))
  for (let index = 0; index < count; index++) {
    const from = index * featureName.sizeBytes
    const { group, bit, name } = featureName.decode(data, from, at + from)
    entries.push({
      structure: 'feature name',
      index,
      offset: at + from,
      length: featureName.sizeBytes,
      value: shownText(Buffer.from(textUpToNul(name))),
      meaning: `${groups[group] ?? `unknown type ${group}`}, bit ${bit}`,
    })
  }
  return entries
}
