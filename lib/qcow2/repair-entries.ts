import { hasMisalignedZeros, l2FormatOf } from './check-l2.js'
import { readL2Tables, snapshotL1s } from './check-l1.js'
import type { CheckState } from './check-state.js'
import { TableChanges } from './check-tables.js'
import { hostOf } from './l2-entry.js'
import { readSnapshotTable } from './snapshot-table.js'

/**
 * Make L2 entries that read as zeros, and keep a misaligned cluster for that, keep none. Entries of data stay: nobody knows
 * where their data is.
 * @returns how many
 */
export async function dropMisalignedEntries(state: CheckState): Promise<number> {
  const { header, backend } = state
  const { snapshots } = await readSnapshotTable(backend, header)
  let dropped = 0
  for (const l1 of [
    { offset: header.l1Offset, entries: header.l1Entries },
    ...snapshotL1s(state, snapshots),
  ]) {
    dropped += await dropFromTables(state, l1)
  }
  return dropped
}

async function dropFromTables(state: CheckState, l1: { offset: number; entries: number }): Promise<number> {
  const format = l2FormatOf(state)
  let dropped = 0
  for await (const { table } of readL2Tables(state, l1.offset, l1.entries, 'repair')) {
    if (!state.mayWriteL2(table.offset)) continue
    const { view } = table
    const changes = new TableChanges(table, state.geometry.sliceSize)
    for (let at = 0; at < view.byteLength; at += format.entryBytes) {
      if (!hasMisalignedZeros(state, view, at, format)) continue
      const host = hostOf(view.getUint32(at), view.getUint32(at + 4)).toString(16)
      const text = `Repairing offset=${host}: Preallocated cluster is not properly aligned; L2 entry corrupted.`
      state.report('invalid-entry', text, { offset: table.offset + at, repaired: true })
      view.setUint32(at, 0)
      view.setUint32(at + 4, format.extended ? 0 : 1)
      changes.mark(at)
      dropped++
    }
    await changes.write(state.backend)
  }
  return dropped
}
