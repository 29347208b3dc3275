import { corrupt } from '../base/errors.js'
import { isAligned } from '../base/integers.js'
import { addon } from '../native/addon.js'
import { countBitmaps } from './check-bitmaps.js'
import { readL2Tables, snapshotL1Fault } from './check-l1.js'
import { checkL2Table } from './check-l2.js'
import { type CheckState, hex64 } from './check-state.js'
import { readEntries } from './check-tables.js'
import { entryBytes } from './geometry.js'
import { findExtension } from './header-extensions.js'
import { hostOf } from './l2-entry.js'
import type { SnapshotTable } from './snapshot-table.js'
import { encryptionExtension, extensionHeader, extensionTypes } from './spec.js'

/** Bits 0 to 8 of a refcount table entry are reserved, and bits 0 to 8 and 56 to 62 of an L1 entry. */
const reservedLow = 0x1ff
const l1ReservedHigh = 0x7f000000
const copiedBit = 0x80000000
/** What version 3 demands of a snapshot's extra data: the size of the VM state and of the disk. */
const leastSnapshotExtra = 16

/**
 * Count every reference to every cluster of the file, in QEMU's order: header, active L1, snapshots, snapshot table,
 * refcount table, encryption header, bitmaps, refcount blocks. What is wrong with an entry itself is reported on the way.
 */
export async function countReferences(state: CheckState, snapshotTable: SnapshotTable): Promise<void> {
  const { header, geometry } = state
  state.count(0, geometry.clusterSize)
  await countL1(state, header.l1Offset, header.l1Entries, { statistics: true })
  for (const [index, snapshot] of snapshotTable.snapshots.entries()) {
    if (header.version === 3 && snapshot.extraBytes < leastSnapshotExtra) {
      const text = `ERROR snapshot table entry ${index} is incomplete`
      state.corruption('snapshot-table', text, { offset: snapshot.entryOffset })
    }
    const fault = snapshotL1Fault(state, snapshot)
    if (fault === undefined) {
      if (snapshot.l1Entries > 0 && snapshot.l1OffsetStored >= 2n ** 63n) {
        throw corrupt('snapshot table entry', snapshot.entryOffset, 'L1 table offset is beyond any file')
      }
      await countL1(
        state,
        snapshot.l1Offset,
        snapshot.l1Entries,
        { statistics: false },
        snapshot.l1OffsetStored,
      )
      continue
    }
    const text = `ERROR snapshot ${snapshot.id} (${snapshot.name}) ${fault}; snapshot table entry corrupted`
    state.corruption('snapshot-table', text, { offset: snapshot.entryOffset })
  }
  state.count(header.snapshotsOffset, snapshotTable.bytes)
  if (state.countsRefcountStructures) {
    state.count(header.refcountTableOffset, header.refcountTableClusters * geometry.clusterSize)
  }
  countEncryptionHeader(state)
  await countBitmaps(state)
  if (state.countsRefcountStructures) await countRefcountBlocks(state)
  state.findOverlaps()
}

function countEncryptionHeader(state: CheckState): void {
  const extension = findExtension(state.header.extensions, extensionTypes.encryptionHeader)
  if (extension === undefined) return
  const pointer = encryptionExtension.decode(extension.data, 0, extension.offset + extensionHeader.sizeBytes)
  state.count(pointer.offset, pointer.length)
}

/** @param options  `statistics`: this is the active table, whose clusters the statistics are about */
async function countL1(
  state: CheckState,
  offset: number,
  entries: number,
  options: { statistics: boolean },
  exactOffset?: bigint,
): Promise<void> {
  const { clusterSize } = state.geometry
  state.count(offset, entries * entryBytes, exactOffset)
  for await (const { table, l1Index, high, low } of readL2Tables(state, offset, entries, 'references')) {
    checkL1Entry(state, high, low, offset + l1Index * entryBytes)
    // No table past the end is ever written, and there may be millions of such entries.
    if (table.view.byteLength === 0) continue
    const cluster = Math.floor(table.offset / clusterSize)
    state.l2References.set(cluster, state.l2References.get(cluster) + 1)
    checkL2Table(state, table, options.statistics ? { next: 0 } : undefined)
  }
}

function checkL1Entry(state: CheckState, high: number, low: number, at: number): void {
  if ((high & l1ReservedHigh) !== 0 || (low & reservedLow) !== 0) {
    const text = `ERROR found L1 entry with reserved bits set: ${hex64(high, low)}`
    state.corruption('invalid-entry', text, { offset: at })
  }
  if ((high & copiedBit) === 0) state.allCopied = false
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
    const bytes = new Uint8Array(piece.view.buffer)
    for (let index = 0; index < piece.count; index++) {
      const high = piece.view.getUint32(index * entryBytes)
      const low = piece.view.getUint32(index * entryBytes + 4)
      if (high !== 0 || low !== 0) {
        const number = piece.first + index
        countRefcountBlock(state, number, high, low, header.refcountTableOffset + number * entryBytes)
      } else index += addon().wordRun(bytes, index * entryBytes, piece.count - index, 0) - 1
    }
  }
}

function countRefcountBlock(state: CheckState, number: number, high: number, low: number, at: number): void {
  const { clusterSize } = state.geometry
  const fail = (text: string): void => {
    state.corruption('refcount-block', text, { offset: at })
    state.refcountCorruptions++
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
    // A narrow count cannot say that there are more, which has been told as an overflow.
    if (references !== 1 || !state.isExact(cluster)) {
      state.blocksShared = true
      state.needsRebuild = true
    }
  }
}
