import { corrupt } from '../base/errors.js'
import type { CheckProgress, CheckState } from './check-state.js'
import { type ReadTable, readEntries, readTables } from './check-tables.js'
import { entryBytes } from './geometry.js'
import { hostOf } from './l2-entry.js'
import type { SnapshotTables } from './snapshot-table.js'
import { limits } from './spec.js'

/** One L2 table and the L1 entry that names it. */
export type L2TableOfL1 = {
  readonly table: ReadTable
  readonly l1Index: number
  readonly high: number
  readonly low: number
}

/** So much is read of tables that are named more than once: more is no image's, and could be made to take years. */
const repeatedBytes = 64 * 1024 * 1024

/**
 * The L2 tables that an L1 names, in its order; a misaligned one from where it is said to be, as QEMU does. Of one that lies past the end of
 * the file the view is empty.
 * @throws ERR_CORRUPT  tables are named again and again
 */
export async function* readL2Tables(
  state: CheckState,
  offset: number,
  entries: number,
  phase: CheckProgress['phase'],
): AsyncGenerator<L2TableOfL1> {
  const { clusterSize, l2TableCoverage } = state.geometry
  // In bytes of the disk that the tables map.
  const step = (done: number): void => state.step(phase, done * l2TableCoverage, entries * l2TableCoverage)
  let named = 0
  for await (const { first, count, view } of readEntries(state.backend, offset, entries)) {
    const tables: [index: number, offset: number][] = []
    for (let index = 0; index < count; index++) {
      const at = index * entryBytes
      const high = view.getUint32(at)
      const low = view.getUint32(at + 4)
      if (high === 0 && low === 0) continue
      const host = hostOf(high, low)
      tables.push([index, host])
      if (host < state.fileBytes) named += clusterSize
    }
    // That many different ones do not fit into the file.
    if (named > state.fileBytes + repeatedBytes) {
      throw corrupt('L1 table', offset, 'it names the same L2 tables again and again')
    }
    for await (const batch of readTables(state.backend, tables, clusterSize, state.tableMemory)) {
      step(first + (batch[0]?.index ?? 0))
      for (const table of batch) {
        const at = table.index * entryBytes
        yield { table, l1Index: first + table.index, high: view.getUint32(at), low: view.getUint32(at + 4) }
      }
    }
  }
  step(entries)
}

/** Why a snapshot's L1 table cannot be where, or as long as, its entry says: what is wrong, in QEMU's words. */
export function snapshotL1Fault(state: CheckState, snapshot: SnapshotTables): string | undefined {
  if (snapshot.l1OffsetStored % BigInt(state.geometry.clusterSize) !== 0n) {
    return `l1_offset=0x${snapshot.l1OffsetStored.toString(16)}: L1 table is not cluster aligned`
  }
  if (snapshot.l1Entries <= limits.l1Entries) return undefined
  return `l1_size=0x${snapshot.l1Entries.toString(16)}: L1 table is too large`
}

/** The L1 tables of snapshots, as far as they can be one. */
export function snapshotL1s(
  state: CheckState,
  snapshots: readonly SnapshotTables[],
): { offset: number; entries: number }[] {
  return snapshots
    .filter((snapshot) => snapshotL1Fault(state, snapshot) === undefined)
    .map(({ l1Offset, l1Entries }) => ({ offset: l1Offset, entries: l1Entries }))
}
