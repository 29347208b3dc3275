import { corrupt } from '../base/errors.js'
import { clusterOf, entryBytes, type Geometry } from './geometry.js'
import type { L1Table } from './l1-table.js'
import { isAscending, type MetadataKind, metadataEntry } from './metadata-map.js'
import type { RefcountTable } from './refcount-table.js'

/** Where the snapshot table is, its length in bytes, and the L1 tables it names. */
export type SnapshotsInFile = {
  readonly offset: number
  readonly bytes: number
  readonly tables: readonly { readonly l1Offset: number; readonly l1Entries: number }[]
}

/**
 * The clusters that hold metadata in an image that is opened for writing, in the form that MetadataMap takes.
 * Of the snapshots their table and L1 tables; their L2 tables would have to be read from disk (QEMU leaves them out by default, too).
 * @throws ERR_CORRUPT  an L1 or refcount table entry is misaligned, or an L2 table has two owners
 */
export function findMetadata(
  geometry: Geometry,
  snapshots: SnapshotsInFile,
  l1: L1Table,
  table: RefcountTable,
  encryption?: { readonly offset: number; readonly length: number },
): Float64Array[] {
  const few: number[] = []
  const add = (kind: MetadataKind, host: number, length: number): void => {
    if (length === 0) return
    const last = clusterOf(geometry, host + length - 1)
    for (let cluster = clusterOf(geometry, host); cluster <= last; cluster++)
      few.push(metadataEntry(kind, cluster))
  }
  add('header', 0, geometry.clusterSize)
  add('L1 table', l1.host, l1.length)
  add('refcount table', table.host, table.length)
  add('snapshot table', snapshots.offset, snapshots.bytes)
  if (encryption !== undefined) add('encryption header', encryption.offset, encryption.length)
  for (const snapshot of snapshots.tables) {
    add('inactive L1 table', snapshot.l1Offset, snapshot.l1Entries * entryBytes)
  }
  for (let index = 0; index < table.entries; index++) {
    const block = table.block(index)
    if (block) few.push(metadataEntry('refcount block', clusterOf(geometry, block)))
  }
  // There may be millions of L2 tables: straight into the array that is kept.
  const tables = new Float64Array(l1.entries)
  let count = 0
  for (let index = 0; index < l1.entries; index++) {
    const host = l1.plainTable(index, false) || l1.table(index)?.host
    if (host) tables[count++] = metadataEntry('L2 table', clusterOf(geometry, host))
  }
  const used = tables.subarray(0, count)
  refuseTwoOwners(geometry, l1, used)
  return [Float64Array.from(few), count === l1.entries ? used : used.slice()]
}

/** Two entries may name one table as long as neither says that it owns it: the table is copied before it is written. */
function refuseTwoOwners(geometry: Geometry, l1: L1Table, tables: Float64Array): void {
  const sorted = isAscending(tables) ? tables : tables.slice().sort()
  const named = new Set<number>()
  for (let index = 1; index < sorted.length; index++) {
    if (sorted[index] === sorted[index - 1]) named.add(sorted[index] as number)
  }
  for (let index = 0; named.size > 0 && index < l1.entries; index++) {
    const table = l1.table(index)
    if (table?.copied !== true || !named.has(metadataEntry('L2 table', clusterOf(geometry, table.host))))
      continue
    const what = 'its L2 table is said to be its own, and another entry names it as well'
    throw corrupt('L1 entry', l1.host + index * entryBytes, what)
  }
}
