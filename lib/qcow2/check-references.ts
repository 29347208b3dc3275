import { alignDown, isAligned } from '../base/integers.js'
import { countBitmaps } from './check-bitmaps.js'
import { checkL2Table, type Fragmentation } from './check-l2.js'
import { type CheckState, hex64 } from './check-state.js'
import { type ReadTable, readEntries, readTables } from './check-tables.js'
import { entryBytes } from './geometry.js'
import { findExtension } from './header-extensions.js'
import { hostOf } from './l2-entry.js'
import type { SnapshotTable } from './snapshot-table.js'
import { encryptionExtension, extensionHeader, extensionTypes, limits } from './spec.js'

/** Bits 0 to 8 of a refcount table entry are reserved, and bits 0 to 8 and 56 to 62 of an L1 entry. */
const reservedLow = 0x1ff
const l1ReservedHigh = 0x7f000000

/**
 * Count every reference to every cluster of the file, in QEMU's order: header, active L1, snapshots, snapshot table,
 * refcount table, encryption header, bitmaps, refcount blocks. What is wrong with an entry itself is reported on the way.
 */
export async function countReferences(state: CheckState, snapshotTable: SnapshotTable): Promise<void> {
  const { header, geometry } = state
  state.count(0, geometry.clusterSize)
  await countL1(state, header.l1Offset, header.l1Entries, { next: 0 })
  for (const snapshot of snapshotTable.snapshots) {
    const { l1Offset, l1Entries, id, name } = snapshot
    const fail = (field: string, value: number, what: string): void => {
      const text = `ERROR snapshot ${id} (${name}) ${field}=0x${value.toString(16)}: L1 table is ${what}`
      state.corruption('snapshot-table', `${text}; snapshot table entry corrupted`, { offset: snapshot.entryOffset })
    }
    if (!isAligned(l1Offset, geometry.clusterSize)) fail('l1_offset', l1Offset, 'not cluster aligned')
    else if (l1Entries > limits.l1Entries) fail('l1_size', l1Entries, 'too large')
    else await countL1(state, l1Offset, l1Entries, undefined)
  }
  state.count(header.snapshotsOffset, snapshotTable.bytes)
  state.count(header.refcountTableOffset, header.refcountTableClusters * geometry.clusterSize)
  countEncryptionHeader(state)
  await countBitmaps(state)
  await countRefcountBlocks(state)
}

function countEncryptionHeader(state: CheckState): void {
  const extension = findExtension(state.header.extensions, extensionTypes.encryptionHeader)
  if (extension === undefined) return
  const pointer = encryptionExtension.decode(extension.data, 0, extension.offset + extensionHeader.sizeBytes)
  state.count(pointer.offset, pointer.length)
}

/** @param fragmentation  for the active table: whose clusters the statistics are about */
async function countL1(
  state: CheckState,
  offset: number,
  entries: number,
  fragmentation: Fragmentation | undefined,
): Promise<void> {
  const { clusterSize } = state.geometry
  state.count(offset, entries * entryBytes)
  for await (const { first, count, view } of readEntries(state.backend, offset, entries)) {
    const tables: [index: number, offset: number][] = []
    for (let index = 0; index < count; index++) {
      const table = hostOf(view.getUint32(index * entryBytes), view.getUint32(index * entryBytes + 4))
      if (table !== 0) tables.push([index, alignDown(table, clusterSize)])
      else if (view.getUint32(index * entryBytes) !== 0 || view.getUint32(index * entryBytes + 4) !== 0) {
        tables.push([index, 0])
      }
    }
    for await (const batch of readTables(state.backend, tables, clusterSize)) {
      state.step('references', first + (batch[0]?.index ?? 0), entries)
      for (const table of batch) {
        checkL1Entry(state, view, table, offset + (first + table.index) * entryBytes)
        checkL2Table(state, table, (first + table.index) * clusterSize, fragmentation)
      }
    }
  }
}

function checkL1Entry(state: CheckState, view: DataView, table: ReadTable, at: number): void {
  const high = view.getUint32(table.index * entryBytes)
  const low = view.getUint32(table.index * entryBytes + 4)
  if ((high & l1ReservedHigh) !== 0 || (low & reservedLow) !== 0) {
    const text = `ERROR found L1 entry with reserved bits set: ${hex64(high, low)}`
    state.corruption('invalid-entry', text, { offset: at })
  }
  const host = hostOf(high, low)
  state.count(host, state.geometry.clusterSize)
  if (!isAligned(host, state.geometry.clusterSize)) {
    const text = `ERROR l2_offset=${host.toString(16)}: Table is not cluster aligned; L1 entry corrupted`
    state.corruption('invalid-entry', text, { offset: at })
  }
}

/** The refcount table's entries; a block is referred to by nothing but its entry. */
async function countRefcountBlocks(state: CheckState): Promise<void> {
  const { header, geometry } = state
  const entries = (header.refcountTableClusters * geometry.clusterSize) / entryBytes
  for await (const piece of readEntries(state.backend, header.refcountTableOffset, entries)) {
    for (let index = 0; index < piece.count; index++) {
      const high = piece.view.getUint32(index * entryBytes)
      const low = piece.view.getUint32(index * entryBytes + 4)
      if (high !== 0 || low !== 0) {
        const number = piece.first + index
        countRefcountBlock(state, number, high, low, header.refcountTableOffset + number * entryBytes)
      }
    }
  }
}

function countRefcountBlock(state: CheckState, number: number, high: number, low: number, at: number): void {
  const { clusterSize } = state.geometry
  const fail = (text: string): void => {
    state.corruption('refcount-block', text, { offset: at })
    state.needsRebuild = true
  }
  if ((low & reservedLow) !== 0) {
    fail(`ERROR refcount table entry ${number} has reserved bits set`)
    return
  }
  const host = high * 2 ** 32 + low
  const cluster = Math.floor(host / clusterSize)
  if (!isAligned(host, clusterSize)) {
    fail(`ERROR refcount block ${number} is not cluster aligned; refcount table entry corrupted`)
  } else if (cluster >= state.clusterCount) {
    fail(`ERROR refcount block ${number} is outside image`)
  } else {
    state.count(host, clusterSize)
    const references = state.counts.get(cluster)
    if (references !== 1) fail(`ERROR refcount block ${number} refcount=${references}`)
  }
}
