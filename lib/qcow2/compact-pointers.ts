import { alignUp } from '../base/integers.js'
import type { BlockBackend } from '../queue/backend.js'
import { bitmapPointer, readDirectory } from './bitmap-directory.js'
import { ReferenceCounts } from './check-counts.js'
import { refcountBlockOffset } from './check-refcounts.js'
import { readEntries, readTables } from './check-tables.js'
import { entryBytes, type Geometry, geometryOf } from './geometry.js'
import type { Header } from './header.js'
import { findExtension } from './header-extensions.js'
import { decodeL2Entry, hostOf, type L2EntryRules } from './l2-entry.js'
import { readHeader } from './open-metadata.js'
import { readSnapshotTable } from './snapshot-table.js'
import {
  bitmapEntry,
  bitmapsExtension,
  extensionHeader,
  extensionTypes,
  headerV2,
  incompatible,
} from './spec.js'

/**
 * A field of 8 bytes that says where something stands: the bits of a host offset, with flags beside them, so that adding a distance to the whole field moves
 * what it names by that. It lies within one sector.
 */
export type Pointer = {
  /** Of the field in the file. */
  readonly at: number
  /** What it names: the first byte and how many. */
  readonly host: number
  readonly bytes: number
  /** A guest's cluster as it is: of an encrypted image its bytes depend on where it stands. */
  readonly isGuestData: boolean
}

/**
 * What refers to what, from the header down. Fields of one level name what stands on the next: none of them lies in what a field of the same level names.
 * - `roots`: the header's: active L1 table, refcount table, snapshot table, bitmap directory
 * - `blocks`: the refcount table's entries
 * - `inactive`: the snapshot table's: L1 tables
 * - `tables`: entries of all L1 tables, and of the bitmap directory: L2 tables, bitmap tables
 * - `clusters`: entries of all L2 tables and of bitmap tables: data
 */
export const levels = ['roots', 'blocks', 'inactive', 'tables', 'clusters'] as const
export type Level = (typeof levels)[number]

type Visit = (pointer: Pointer) => void

/** Of what is looked at once although several name it; as a check may take. */
const seenBytes = 512 * 1024 * 1024

/**
 * Call `visit` for all fields of a level, as they stand in the file now. Of an image that a check has found sound.
 * @param step  called between tables
 */
export async function eachPointer(
  backend: BlockBackend,
  level: Level,
  visit: Visit,
  step: () => void = () => undefined,
): Promise<void> {
  const { header } = await readHeader(backend)
  const image: Image = { backend, header, geometry: geometryOf(header), step }
  switch (level) {
    case 'roots':
      return eachRoot(image, visit)
    case 'blocks':
      return eachBlock(image, visit)
    case 'inactive':
      return eachInactive(image, visit)
    case 'tables':
      await eachL2Table(image, visit)
      return eachBitmapTable(image, visit)
    case 'clusters':
      await eachGuestCluster(image, visit)
      return eachBitmapPage(image, visit)
  }
}

type Image = {
  readonly backend: BlockBackend
  readonly header: Header
  readonly geometry: Geometry
  readonly step: () => void
}

async function eachRoot({ backend, header, geometry }: Image, visit: Visit): Promise<void> {
  const { offsets } = headerV2
  const root = (at: number, host: number, bytes: number): void => {
    if (bytes > 0) visit({ at, host, bytes, isGuestData: false })
  }
  root(offsets.l1Offset, header.l1Offset, header.l1Entries * entryBytes)
  const tableBytes = header.refcountTableClusters * geometry.clusterSize
  root(offsets.refcountTableOffset, header.refcountTableOffset, tableBytes)
  const snapshots = await readSnapshotTable(backend, header)
  root(offsets.snapshotsOffset, header.snapshotsOffset, snapshots.bytes)
  const pointer = bitmapPointer(header)
  const extension = findExtension(header.extensions, extensionTypes.bitmaps)
  if (pointer === undefined || extension === undefined) return
  const at = extension.offset + extensionHeader.sizeBytes + bitmapsExtension.offsets.directoryOffset
  root(at, pointer.directoryOffset, pointer.directoryBytes)
}

async function eachBlock({ backend, header, geometry }: Image, visit: Visit): Promise<void> {
  const { clusterSize } = geometry
  const entries = (header.refcountTableClusters * clusterSize) / entryBytes
  for await (const { first, count, view } of readEntries(backend, header.refcountTableOffset, entries)) {
    for (let index = 0; index < count; index++) {
      const host = refcountBlockOffset(view, index)
      const at = header.refcountTableOffset + (first + index) * entryBytes
      if (host !== 0) visit({ at, host, bytes: clusterSize, isGuestData: false })
    }
  }
}

async function eachInactive({ backend, header }: Image, visit: Visit): Promise<void> {
  const { snapshots } = await readSnapshotTable(backend, header)
  for (const { entryOffset, l1Offset, l1Entries } of snapshots) {
    // The offset is the first field of an entry.
    if (l1Entries > 0)
      visit({ at: entryOffset, host: l1Offset, bytes: l1Entries * entryBytes, isGuestData: false })
  }
}

async function l1TablesOf({ backend, header }: Image): Promise<{ offset: number; entries: number }[]> {
  const { snapshots } = await readSnapshotTable(backend, header)
  return [
    { offset: header.l1Offset, entries: header.l1Entries },
    ...snapshots.map(({ l1Offset, l1Entries }) => ({ offset: l1Offset, entries: l1Entries })),
  ]
}

async function eachL2Table(image: Image, visit: Visit): Promise<void> {
  const { backend, geometry } = image
  for (const l1 of await l1TablesOf(image)) {
    for await (const { first, count, view } of readEntries(backend, l1.offset, l1.entries)) {
      image.step()
      for (let index = 0; index < count; index++) {
        const host = hostOf(view.getUint32(index * entryBytes), view.getUint32(index * entryBytes + 4))
        const at = l1.offset + (first + index) * entryBytes
        if (host !== 0) visit({ at, host, bytes: geometry.clusterSize, isGuestData: false })
      }
    }
  }
}

async function eachGuestCluster(image: Image, visit: Visit): Promise<void> {
  const { backend, geometry, header } = image
  // Host offsets are those of the data file then.
  if ((header.incompatibleFeatures & incompatible.dataFile) !== 0n) return
  const seen = new ReferenceCounts(seenBytes, 'Looking for what refers to clusters')
  let tables: [index: number, offset: number][] = []
  const visitTables = async (): Promise<void> => {
    for await (const batch of readTables(backend, tables, geometry.clusterSize)) {
      image.step()
      for (const { offset, view } of batch) eachEntry(header, geometry, { offset, view }, visit)
    }
    tables = []
  }
  for (const l1 of await l1TablesOf(image)) {
    for await (const { count, view } of readEntries(backend, l1.offset, l1.entries)) {
      for (let index = 0; index < count; index++) {
        const host = hostOf(view.getUint32(index * entryBytes), view.getUint32(index * entryBytes + 4))
        const cluster = host / geometry.clusterSize
        if (host === 0 || seen.get(cluster) !== 0) continue
        seen.set(cluster, 1)
        tables.push([0, host])
      }
      await visitTables()
    }
  }
}

function eachEntry(
  { version }: Header,
  { clusterBits, clusterSize, extendedL2, l2EntryBytes }: Geometry,
  table: { readonly offset: number; readonly view: DataView },
  visit: Visit,
): void {
  const rules: L2EntryRules = { version, clusterBits, extendedL2 }
  for (let at = 0; at < table.view.byteLength; at += l2EntryBytes) {
    const high = table.view.getUint32(at)
    const low = table.view.getUint32(at + 4)
    if (high === 0 && low === 0) continue
    const entry = decodeL2Entry(high, low, rules, table.offset + at)
    if (entry.type === 'unallocated' || entry.host === undefined) continue
    const isGuestData = entry.type !== 'compressed'
    const bytes = entry.type === 'compressed' ? entry.bytes : clusterSize
    visit({ at: table.offset + at, host: entry.host, bytes, isGuestData })
  }
}

/** Of the directory as it stands in the file. */
async function bitmapTables({
  backend,
  header,
}: Image): Promise<{ at: number; host: number; entries: number }[]> {
  const { entries, host } = await readDirectory(backend, header)
  let at = host
  return entries.map(({ tableOffset, tableEntries, extra, nameBytes }) => {
    const field = at + bitmapEntry.offsets.tableOffset
    at += alignUp(bitmapEntry.sizeBytes + extra.length + nameBytes.length, 8)
    return { at: field, host: tableOffset, entries: tableEntries }
  })
}

async function eachBitmapTable(image: Image, visit: Visit): Promise<void> {
  for (const { at, host, entries } of await bitmapTables(image))
    visit({ at, host, bytes: entries * entryBytes, isGuestData: false })
}

async function eachBitmapPage(image: Image, visit: Visit): Promise<void> {
  for (const table of await bitmapTables(image)) {
    for await (const { first, count, view } of readEntries(image.backend, table.host, table.entries)) {
      image.step()
      for (let index = 0; index < count; index++) {
        const host = hostOf(view.getUint32(index * entryBytes), view.getUint32(index * entryBytes + 4))
        const at = table.host + (first + index) * entryBytes
        if (host !== 0) visit({ at, host, bytes: image.geometry.clusterSize, isGuestData: false })
      }
    }
  }
}
