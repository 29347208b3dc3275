import { readL2Tables } from './check-l1.js'
import { keepsHostZero, l2FormatOf } from './check-l2.js'
import { type CheckState, hex64 } from './check-state.js'
import { type ReadTable, readEntries, TableChanges } from './check-tables.js'
import { entryBytes } from './geometry.js'
import { hostOf } from './l2-entry.js'
import type { StoredRefcounts } from './stored-refcounts.js'

const copiedBit = 0x80000000
const compressedBit = 0x40000000

/**
 * Compare the COPIED flags of the active L1 and L2 tables with the stored refcounts: the flag is set exactly where the
 * count is 1. qcow2 spec, "Cluster mapping".
 * @param options  `repair`: put flags right
 */
export async function checkCopiedFlags(
  state: CheckState,
  stored: StoredRefcounts,
  options: { repair: boolean },
): Promise<void> {
  const { header, geometry } = state
  await checkL1Flags(state, stored, options.repair && state.mayWriteL1)
  for await (const { table } of readL2Tables(state, header.l1Offset, header.l1Entries, 'flags')) {
    // as QEMU: a table whose own count cannot be read is not looked into
    const own = Math.floor(table.offset / geometry.clusterSize)
    if (table.offset === 0 || (await stored.get(own)) === undefined) continue
    const changes = new TableChanges(table, geometry.sliceSize)
    await checkL2Flags(state, stored, table, options.repair && state.mayWriteL2(table.offset), changes)
    await changes.write(state.backend)
  }
}

async function checkL1Flags(state: CheckState, stored: StoredRefcounts, repair: boolean): Promise<void> {
  const { header, geometry, backend } = state
  for await (const { first, count, view } of readEntries(backend, header.l1Offset, header.l1Entries)) {
    const l1: ReadTable = { index: 0, offset: header.l1Offset + first * entryBytes, view }
    const changes = new TableChanges(l1, geometry.sliceSize)
    for (let at = 0; at < count * entryBytes; at += entryBytes) {
      const high = view.getUint32(at)
      const low = view.getUint32(at + 4)
      const host = hostOf(high, low)
      if (host === 0) continue
      const cluster = Math.floor(host / geometry.clusterSize)
      const refcount = await stored.get(cluster)
      if (refcount === undefined || (refcount === 1) === ((high & copiedBit) !== 0)) continue
      const index = first + at / entryBytes
      const text = `L2 cluster: l1_index=${index} l1_entry=${hex64(high, low)} refcount=${refcount}`
      correct(state, l1, at, cluster, repair, changes, text)
    }
    await changes.write(backend)
  }
}

async function checkL2Flags(
  state: CheckState,
  stored: StoredRefcounts,
  table: ReadTable,
  repair: boolean,
  changes: TableChanges,
): Promise<void> {
  const format = l2FormatOf(state)
  const { view } = table
  for (let at = 0; at < view.byteLength; at += format.entryBytes) {
    const high = view.getInt32(at)
    const low = view.getInt32(at + 4)
    if ((high & compressedBit) !== 0) continue
    const host = hostOf(high, low)
    const copied = (high & copiedBit) !== 0
    if (host === 0 && !keepsHostZero(format, high, low)) continue
    const cluster = Math.floor(host / state.geometry.clusterSize)
    // what lies in a data file has one owner, always
    const refcount = format.dataFile ? 1 : (stored.known(cluster) ?? (await stored.get(cluster)))
    if (refcount === undefined || (refcount === 1) === copied) continue
    const text = `data cluster: l2_entry=${hex64(high, low)} refcount=${refcount}`
    correct(state, table, at, cluster, repair, changes, text)
  }
}

function correct(
  state: CheckState,
  table: ReadTable,
  at: number,
  cluster: number,
  repair: boolean,
  changes: TableChanges,
  text: string,
): void {
  const high = table.view.getUint32(at)
  // a count of 1 that ought to be higher proves nothing: an in-place write would show in two places
  const repaired = repair && ((high & copiedBit) !== 0 || state.isExact(cluster))
  const what = `${repaired ? 'Repairing' : 'ERROR'} OFLAG_COPIED ${text}`
  state.corruption('copied-flag', what, { offset: table.offset + at, repaired })
  if (!repaired) return
  table.view.setUint32(at, (high ^ copiedBit) >>> 0)
  changes.mark(at)
}
