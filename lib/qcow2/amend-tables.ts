import { type HostOffset, hostOffset, noSection, type Section } from '../base/units.js'
import type { BlockBackend } from '../queue/backend.js'
import { readL2Tables, snapshotL1s } from './check-l1.js'
import { CheckState } from './check-state.js'
import { clusterOf, entryBytes } from './geometry.js'
import { decodeL2Entry, type L2Entry, storeCopied, storeCopiedFlag, storeUnallocated } from './l2-entry.js'
import type { Header } from './header.js'
import { admissionBytes, type Parts } from './parts.js'
import { readSnapshotL1, type SnapshotList } from './snapshot-list.js'
import { readSnapshotTable } from './snapshot-table.js'
import type { Slice } from './table-cache.js'
import { l2TablesOf, type Step } from './tree-counts.js'

/** An L2 table, active or of snapshots. */
type Table = {
  readonly host: number
  /** How many L1 entries refer to it; as many references has each cluster that it alone refers to. */
  readonly references: number
  readonly isActive: boolean
}

/**
 * Do without the zero flag, which version 2 lacks, in the tables of the disk and of all snapshots: a zero entry becomes unallocated where no backing
 * file can show, else a cluster of zeros; the cluster that is kept for it, if nobody shares that. The caller sees to it that no request runs.
 *
 * Each entry is one atomic change between two forms that read alike, with the order of any write (E1, E16, E26); a crash leaves some changed and others not.
 * @param step  called between two tables, with bytes of tables
 */
export async function expandZeros(parts: Parts, snapshots: SnapshotList, step: Step): Promise<void> {
  const tables = await tablesOf(parts, snapshots)
  const { clusterSize, sliceSize } = parts.geometry
  for (const [index, table] of tables.entries()) {
    step(index * clusterSize, tables.length * clusterSize)
    for (let at = 0; at < clusterSize; at += sliceSize)
      await expandSlice(parts, table, hostOffset(table.host + at))
  }
  step(tables.length * clusterSize, tables.length * clusterSize)
}

async function tablesOf(parts: Parts, snapshots: SnapshotList): Promise<Table[]> {
  const { l1, geometry, backend, allocator } = parts
  const active = { l1: l1.bytes, entries: l1.entries, host: l1.host }
  const found = new Map<number, boolean>()
  for (const { host } of l2TablesOf(active, geometry)) found.set(host, true)
  for (const snapshot of await snapshots.load()) {
    const tree = await readSnapshotL1(backend, geometry, snapshot)
    for (const { host } of l2TablesOf(tree, geometry)) if (!found.has(host)) found.set(host, false)
  }
  const tables: Table[] = []
  for (const [host, isActive] of found) {
    const [references = 0] = await allocator.counts(clusterOf(geometry, host), 1)
    tables.push({ host, references, isActive })
  }
  return tables
}

async function expandSlice(parts: Parts, table: Table, host: HostOffset): Promise<void> {
  const { l2Cache, geometry, backend, version } = parts
  let slice = l2Cache.get(host)
  for (; slice === undefined; slice = l2Cache.get(host)) await l2Cache.load(host)
  slice.pins++
  try {
    for (let at = 0; at < geometry.sliceSize; at += entryBytes) {
      const rules = { version, clusterBits: geometry.clusterBits }
      const entry = decodeL2Entry(slice.view.getUint32(at), slice.view.getUint32(at + 4), rules, host + at)
      if (entry.type !== 'zero') continue
      const credit = admissionBytes(parts)
      const room = backend.admit(credit)
      if (room !== undefined) await room
      try {
        await parts.ordering.completed(await expandEntry(parts, table, slice, at, entry))
      } finally {
        backend.release(credit)
      }
    }
  } finally {
    slice.pins--
  }
}

/** @returns the section of the change */
async function expandEntry(
  parts: Parts,
  table: Table,
  slice: Slice,
  at: number,
  entry: Extract<L2Entry, { type: 'zero' }>,
): Promise<Section> {
  const { geometry, data, ordering, allocator, frees, unsynced } = parts
  // Images with a data file cannot be of version 2, so that the place in the file is all that counts.
  const writeZeros = (host: number, unmap: boolean): Promise<void> =>
    data.writeZeroes(host, geometry.clusterSize, { unmap }, host)
  if (entry.host === undefined && parts.backing === undefined) {
    storeUnallocated(slice.view, at)
    return ordering.unlink(slice)
  }
  const kept = entry.host
  if (kept !== undefined && (await allocator.counts(clusterOf(geometry, kept), 1))[0] === 1) {
    parts.metadata.refuse('zeros', kept, geometry.clusterSize)
    await writeZeros(kept, false)
    await ordering.dataWritten()
    storeCopied(slice.view, at, kept)
    storeCopiedFlag(slice.view, at, entry.copied)
    return ordering.linkData(slice, noSection)
  }
  const allocation = await allocator.allocate(1, { ahead: false })
  let { after } = allocation
  try {
    await writeZeros(allocation.host, true)
    after = await countAsOften(parts, allocation.host, table.references, after)
    await ordering.dataWritten()
  } catch (error) {
    // What has been counted more than once is left: a leak.
    await allocator.cancel(allocation)
    throw error
  }
  storeCopied(slice.view, at, allocation.host)
  storeCopiedFlag(slice.view, at, table.isActive && table.references === 1)
  const linked = ordering.linkData(slice, after)
  unsynced.add(allocation.host, geometry.clusterSize, linked)
  for (let times = 0; kept !== undefined && times < table.references; times++)
    frees.add(kept, geometry.clusterSize, { removal: linked, punch: true, wasTable: false })
  return linked
}

/** A cluster that is to have several references has a count of as many before the first. @returns the section behind which it may be referred to */
export async function countAsOften(
  parts: Parts,
  host: HostOffset,
  references: number,
  after: Section,
): Promise<Section> {
  if (references === 1) return after
  let latest = after
  await parts.allocator.changeCounts(
    clusterOf(parts.geometry, host),
    1,
    () => references,
    (slice) => {
      const counted = parts.ordering.addReferences(slice)
      if (counted > latest) latest = counted
      return counted
    },
  )
  return latest
}

const compressedBit = 0x40000000

/** Whether the disk or a snapshot has a compressed cluster. */
export async function hasCompressed(backend: BlockBackend, header: Header): Promise<boolean> {
  const state = new CheckState(backend, header, {})
  const { snapshots } = await readSnapshotTable(backend, header)
  const active = { offset: header.l1Offset, entries: header.l1Entries }
  for (const { offset, entries } of [active, ...snapshotL1s(state, snapshots)]) {
    for await (const { table } of readL2Tables(state, offset, entries, 'references')) {
      for (let at = 0; at < table.view.byteLength; at += state.geometry.l2EntryBytes)
        if ((table.view.getUint32(at) & compressedBit) !== 0) return true
    }
  }
  return false
}
