import { corrupt, notSupported, type Qcow2Error, unsupported } from '../base/errors.js'
import { alignUp } from '../base/integers.js'
import { type GuestOffset, hostOffset, noSection, type Section } from '../base/units.js'
import type { BlockBackend } from '../queue/backend.js'
import { cryptMethods } from './encryption.js'
import type { Header } from './header.js'
import { type L2Entry, storeCopied } from './l2-entry.js'
import type { EntryPlace, MappedRun } from './l2-tables.js'
import type { Parts } from './parts.js'
import type { Allocation } from './refcount-parts.js'
import { autoclear, incompatible } from './spec.js'
import { allocateSubclusters, touchedSubclusters } from './subclusters.js'
import type { TableBytes } from './write-ordering.js'

/**
 * The external data file of an open image. A guest's cluster stands where the guest has it (host offset == guest offset) and belongs to it for
 * good: it is neither counted nor given out, and its entry is always COPIED. Tables stay in the image's own file, and there is nothing
 * that this file could share: no compressed clusters, no internal snapshots. qcow2 spec, "External data file".
 */
export type DataFile = {
  readonly backend: BlockBackend
  /**
   * It can be read as the disk itself (data-file-raw): whatever the tables say reads as zeros is zeros there too, after any crash. So zeros are
   * written, entries stay plain, and bytes are written to mapped clusters only.
   */
  readonly isRaw: boolean
  /** Of a raw one: what this section maps, and none before it, is not yet to be written to. */
  mappedBehind: Section
}

export function hasDataFile(header: Pick<Header, 'incompatibleFeatures'>): boolean {
  return (header.incompatibleFeatures & incompatible.dataFile) !== 0n
}

/** Over a backing file no promise of the kind can be kept, nor of what is encrypted. */
export function isDataFileRaw(
  header: Pick<Header, 'autoclearFeatures' | 'backingFile' | 'cryptMethod'>,
): boolean {
  const isPromised = (header.autoclearFeatures & autoclear.dataFileRaw) !== 0n
  return isPromised && header.backingFile === undefined && header.cryptMethod === cryptMethods.none
}

/**
 * The file that the bytes of a guest's plain clusters are in.
 * @throws ERR_UNSUPPORTED_FEATURE  the image has a data file, and none was given
 */
export function fileOfData(
  header: Header,
  backend: BlockBackend,
  data: BlockBackend | undefined,
): BlockBackend {
  if (!hasDataFile(header)) return backend
  if (data !== undefined) return data
  throw unsupported("The image's data are in an external data file, which is not open", {
    path: backend.path,
    structure: 'header',
  })
}

/**
 * Pair an image's file with its data file: the tables in one are durable behind the bytes in the other.
 * @throws as fileOfData; ERR_NOT_SUPPORTED: the two are not of one kind
 */
export function attachDataFile(
  header: Header,
  backend: BlockBackend,
  data: BlockBackend | undefined,
): DataFile | undefined {
  const file = fileOfData(header, backend, data)
  if (file === backend) return undefined
  if (!backend.readOnly) {
    if (backend.syncWith === undefined)
      throw notSupported('This kind of file can have no data file', { path: backend.path })
    backend.syncWith(file)
  }
  return { backend: file, isRaw: isDataFileRaw(header), mappedBehind: noSection }
}

/** @throws ERR_NOT_SUPPORTED  for what would need clusters that can be shared or moved */
export function refuseDataFile(parts: Pick<Parts, 'dataFile' | 'backend'>, what: string): void {
  if (parts.dataFile !== undefined) throw dataFileExcludes(what, parts.backend.path)
}

export function dataFileExcludes(what: string, path: string): Qcow2Error {
  return notSupported(`${what} cannot be in an image with an external data file`, { path })
}

/** The clusters of a guest, in the data file. @param guest  aligned to clusters */
export function clustersInDataFile({ backend }: DataFile, guest: number, clusters: number): Allocation {
  const host = hostOffset(guest)
  return { host, clusters, after: noSection, fresh: guest >= backend.length, blank: false }
}

/** @param guest  of the cluster that the entry maps  @throws ERR_CORRUPT */
export function checkPlaceInDataFile(entry: L2Entry, guest: number, place: number): void {
  if (entry.type === 'unallocated') return
  if (entry.type === 'compressed')
    throw corrupt('L2 entry', place, 'compressed cluster with an external data file')
  if (entry.host === undefined || entry.host === guest) return
  const hex = (offset: number): string => `0x${offset.toString(16)}`
  const what = `host cluster offset ${hex(entry.host)} does not match guest cluster offset: ${hex(guest)}`
  throw corrupt('L2 entry', place, `External data file ${what}`)
}

/**
 * Map clusters, or subclusters, of a raw data file that are not, durably, before they are written: else a crash could leave bytes there which the
 * tables do not show. They read as zeros before and after. The caller holds the lock of the guest's clusters.
 */
export async function mapRaw(
  parts: Parts,
  place: EntryPlace,
  run: MappedRun,
  guest: GuestOffset,
): Promise<void> {
  const { geometry, data, ordering } = parts
  const start = guest - (guest % geometry.subclusterSize)
  const length = alignUp(guest + run.length, geometry.subclusterSize) - start
  place.slice.pins++
  try {
    const { entry } = run
    // What has a cluster may have its space reserved.
    if (entry.type !== 'normal') await zeroRaw(parts, start, length, { unmap: entry.host === undefined })
    const synced = ordering.dataWritten()
    if (synced !== undefined) await synced
    storeInPlace(parts, place, start, length)
    const linked = ordering.linkData(place.slice, noSection)
    // Behind the end of a file that somebody has cut short nothing was written.
    const zeroed = Math.min(length, data.length - start)
    if (zeroed > 0) parts.unsyncedData.add(start, zeroed, linked)
    mappedRaw(parts, linked)
  } finally {
    place.slice.pins--
  }
}

/** Map a range where it stands, the clusters and, of extended entries, the subclusters of it. @param place  of its first cluster */
function storeInPlace(
  { geometry }: Pick<Parts, 'geometry'>,
  { slice, at }: EntryPlace,
  start: number,
  length: number,
): void {
  const { clusterSize, subclusterSize, l2EntryBytes } = geometry
  const first = start - (start % clusterSize)
  const end = start + length
  for (let cluster = first, entry = at; cluster < end; cluster += clusterSize, entry += l2EntryBytes) {
    storeCopied(slice.view, entry, cluster)
    if (!geometry.extendedL2) continue
    const from = Math.max(start - cluster, 0)
    const to = Math.min(end - cluster, clusterSize)
    allocateSubclusters(slice.view, entry, touchedSubclusters(from, to, subclusterSize))
  }
}

/** Clusters of a raw data file are mapped by the write in `linked`: they are not written to before it is durable. */
export function mappedRaw({ dataFile }: Pick<Parts, 'dataFile'>, linked: Section): void {
  if (dataFile?.isRaw === true && linked > dataFile.mappedBehind) dataFile.mappedBehind = linked
}

/** Whether there are clusters that are mapped and not to be written to yet. */
export function isMappingRaw({ dataFile, backend }: Pick<Parts, 'dataFile' | 'backend'>): boolean {
  return dataFile !== undefined && dataFile.mappedBehind > backend.durableSection
}

/** Resolves when there are none. The caller's lock or ticket keeps the mapping meanwhile. */
export async function rawMapped({ dataFile, backend }: Pick<Parts, 'dataFile' | 'backend'>): Promise<void> {
  if (dataFile !== undefined) await backend.durable(dataFile.mappedBehind)
}

/** As WriteOrdering.unlink; but of a raw data file zeros come first, and the entries that say so are durable behind them. */
export function unlinkTable(
  { dataFile, ordering }: Pick<Parts, 'dataFile' | 'ordering'>,
  table: TableBytes,
): Section {
  return dataFile?.isRaw === true ? ordering.linkData(table, noSection) : ordering.unlink(table)
}

/** Zeros as far as the file reaches; behind its end they are anyway. It is not to get longer than the disk. */
export async function zeroRaw(
  parts: Parts,
  start: number,
  length: number,
  options: { unmap: boolean },
): Promise<void> {
  const end = Math.min(start + length, parts.data.length)
  if (end > start) await parts.data.writeZeroes(start, end - start, options, start)
}

/**
 * Give back what a request drops from the disk; the guest's clusters are locked. Each cluster has one owner, who wants zeros there: a crash may show
 * either. But a hole in what is encrypted decrypts to noise: there it comes behind the removal of the mapping, which costs a sync.
 * @param removal  of the mapping
 */
export async function punchDropped(
  { dataFile, data, backend }: Pick<Parts, 'dataFile' | 'data' | 'backend'>,
  range: { readonly start: number; readonly length: number },
  removal: Section,
): Promise<void> {
  if (dataFile === undefined) return
  // Guards against the old mapping of a hole.
  if (data.encrypted === true) await backend.durable(removal)
  await punchDataFile(dataFile, range.start, range.length)
}

/** Give a range back to the host: it reads as zeros, whatever the tables say. */
export async function punchDataFile({ backend }: DataFile, start: number, length: number): Promise<void> {
  const end = Math.min(start + length, backend.length)
  if (end > start) await backend.punch(start, end - start).catch(() => undefined)
}

/**
 * Before the disk grows: the file ends where the disk does, so that what is added holds zeros.
 * Durable with the flush in front of the header's new size (E21): a file that is longer than the disk shows nothing.
 */
export async function growDataFile({ backend }: DataFile, oldSize: number, size: number): Promise<void> {
  if (backend.length > oldSize) await backend.truncate(oldSize)
  await backend.truncate(size)
}
