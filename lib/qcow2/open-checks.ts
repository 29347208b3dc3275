import { Qcow2Error } from '../base/errors.js'
import { alignUp, isAligned } from '../base/integers.js'
import { entryBytes } from './geometry.js'
import type { Header } from './header.js'
import { findExtension, headerError } from './header-extensions.js'
import { hostOf } from './l2-entry.js'
import type { SnapshotTable } from './snapshot-table.js'
import { autoclear, bitmapsExtension, extensionTypes, headerV2, incompatible, limits } from './spec.js'

/**
 * Check where the header says the tables are, before memory is taken for them. qcow2.md 3.1, items 7 and 11 to 13.
 * @param options  `repairing`: only what a repair cannot do without
 * @throws ERR_CORRUPT
 */
export function checkTablePlaces(
  header: Header,
  options: { readOnly: boolean; repairing: boolean; path: string },
): void {
  const { path, repairing } = options
  const clusterSize = 2 ** header.clusterBits
  const at = headerV2.offsets
  const corruptBit = (header.incompatibleFeatures & incompatible.corrupt) !== 0n
  if (corruptBit && !options.readOnly && !repairing) {
    const message = 'qcow2: Image is corrupt; cannot be opened read/write'
    throw new Qcow2Error('ERR_CORRUPT', message, { path, structure: 'header' })
  }

  if (header.refcountTableClusters === 0 && !repairing) {
    throw headerError(path, at.refcountTableClusters, 'Image does not contain a reference count table')
  }
  if (header.refcountTableClusters * clusterSize > limits.refcountTableBytes) {
    throw headerError(path, at.refcountTableClusters, 'Reference count table too large')
  }
  if (!isAligned(header.refcountTableOffset, clusterSize)) {
    throw headerError(path, at.refcountTableOffset, 'Reference count table offset invalid')
  }
  if (!isAligned(header.l1Offset, clusterSize)) {
    throw headerError(path, at.l1Offset, 'Active L1 table offset invalid')
  }
}

/**
 * A file that ends within its tables was cut short: reading the missing ones as zeros would show an empty disk.
 * Writers of the format write whole tables, of which the file may end with the last L1 entry.
 * @param options  `salvaging`: only what the disk cannot be read without
 * @throws ERR_CORRUPT
 */
export function checkTablesWithinFile(
  header: Header,
  fileBytes: number,
  path: string,
  { salvaging }: { readonly salvaging: boolean },
): void {
  if (header.l1Offset === 0 && header.size > 0) {
    throw headerError(path, headerV2.offsets.l1Offset, 'Active L1 table offset invalid')
  }
  checkL1WithinFile(header, fileBytes, path)
  if (header.refcountTableOffset >= fileBytes && !salvaging) {
    throw truncated(path, fileBytes, 'refcount table', header.refcountTableOffset)
  }
}

/** @throws ERR_CORRUPT */
export function checkL1WithinFile(header: Header, fileBytes: number, path: string): void {
  const end = header.l1Offset + header.l1Entries * entryBytes
  if (header.l1Entries > 0 && end > fileBytes) throw truncated(path, fileBytes, 'L1 table', header.l1Offset)
}

/** @param tableBytes  of the snapshot table as its entries say */
export function checkSnapshotTableWithinFile(
  header: Header,
  tableBytes: number,
  fileBytes: number,
  path: string,
): void {
  // the padding of the last entry may be missing
  if (tableBytes > 0 && header.snapshotsOffset + tableBytes > alignUp(fileBytes, 8)) {
    throw truncated(path, fileBytes, 'snapshot table', header.snapshotsOffset)
  }
}

/**
 * An image that is to be written must have the L1 tables of its snapshots where they can be: each within the file, none over
 * another structure. That also bounds what has to be kept of them.
 * @param regions  of the header's own tables
 * @throws ERR_CORRUPT
 */
export function checkSnapshotL1s(
  header: Header,
  table: SnapshotTable,
  regions: readonly Region[],
  fileBytes: number,
  path: string,
): void {
  const clusterSize = 2 ** header.clusterBits
  const all = [...regions]
  for (const { l1Offset, l1Entries, entryOffset, name } of table.snapshots) {
    const bytes = l1Entries * entryBytes
    if (bytes === 0) continue
    const structure = `L1 table of snapshot '${name}'`
    if (!isAligned(l1Offset, clusterSize) || l1Entries > limits.l1Entries || l1Offset + bytes > fileBytes) {
      const what = `The ${structure} cannot be ${l1Entries} entries at offset ${l1Offset}`
      throw new Qcow2Error('ERR_CORRUPT', what, {
        path,
        offset: entryOffset,
        structure: 'snapshot table entry',
      })
    }
    all.push({ structure, offset: l1Offset, bytes: alignUp(bytes, clusterSize) })
  }
  refuseOverlaps(all, path)
}

/**
 * Every L1 or refcount table entry must point into the file, for the same reason.
 * @param table  big-endian entries
 * @param host   where the table stands in the file
 */
export function checkEntriesWithinFile(
  structure: 'L1 table' | 'refcount table',
  table: Uint8Array,
  entries: number,
  host: number,
  fileBytes: number,
  path: string,
): void {
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
  for (let index = 0; index < entries; index++) {
    const high = view.getUint32(index * entryBytes)
    const low = view.getUint32(index * entryBytes + 4)
    const offset = structure === 'L1 table' ? hostOf(high, low) : high * 2 ** 32 + low
    if (offset < fileBytes) continue
    const what = structure === 'L1 table' ? 'L2 table' : 'refcount block'
    throw truncated(
      path,
      fileBytes,
      `${what} of ${structure} entry ${index} (at offset ${host + index * entryBytes})`,
      offset,
    )
  }
}

function truncated(path: string, fileBytes: number, structure: string, offset: number): Qcow2Error {
  const message = `The file is truncated: it ends after ${fileBytes} bytes, the ${structure} is at offset ${offset}`
  return new Qcow2Error('ERR_CORRUPT', message, { path, offset, structure })
}

/** A structure and the bytes it takes in the file. */
export type Region = { readonly structure: string; readonly offset: number; readonly bytes: number }

/**
 * What the header points to, the header's own cluster included; lengths in whole clusters.
 * @param snapshotTableBytes  as read; 0 if there are no snapshots
 */
export function headerRegions(header: Header, snapshotTableBytes: number): Region[] {
  const clusterSize = 2 ** header.clusterBits
  const regions: Region[] = [
    { structure: 'header', offset: 0, bytes: clusterSize },
    {
      structure: 'refcount table',
      offset: header.refcountTableOffset,
      bytes: header.refcountTableClusters * clusterSize,
    },
    { structure: 'L1 table', offset: header.l1Offset, bytes: header.l1Entries * entryBytes },
    { structure: 'snapshot table', offset: header.snapshotsOffset, bytes: snapshotTableBytes },
  ]
  const bitmaps = findExtension(header.extensions, extensionTypes.bitmaps)
  if (bitmaps !== undefined && (header.autoclearFeatures & autoclear.bitmaps) !== 0n) {
    const { directoryOffset, directoryBytes } = bitmapsExtension.decode(bitmaps.data, 0, bitmaps.offset + 8)
    regions.push({ structure: 'bitmap directory', offset: directoryOffset, bytes: directoryBytes })
  }
  return regions
    .filter((region) => region.bytes > 0)
    .map((region) => ({ ...region, bytes: alignUp(region.bytes, clusterSize) }))
}

/**
 * Two structures in one place: the first write to one destroys the other.
 * @throws ERR_CORRUPT
 */
export function refuseOverlaps(regions: readonly Region[], path: string): void {
  const sorted = [...regions].sort((left, right) => left.offset - right.offset)
  for (const [index, region] of sorted.entries()) {
    const next = sorted[index + 1]
    if (next === undefined || region.offset + region.bytes <= next.offset) continue
    const message = `The ${next.structure} at offset ${next.offset} overlaps the ${region.structure} at ${region.offset}`
    throw new Qcow2Error('ERR_CORRUPT', message, { path, offset: next.offset, structure: next.structure })
  }
}
