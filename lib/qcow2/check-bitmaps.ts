import { alignUp } from '../base/integers.js'
import { isPlausible, staleBitmaps } from './bitmap-directory.js'
import { tableEntriesFor } from './bitmap-table.js'
import type { CheckState } from './check-state.js'
import { readEntries } from './check-tables.js'
import { entryBytes } from './geometry.js'
import { findExtension } from './header-extensions.js'
import { hostOf } from './l2-entry.js'
import {
  autoclear,
  bitmapEntry,
  bitmapFlags,
  bitmapsExtension,
  extensionHeader,
  extensionTypes,
  limits,
} from './spec.js'

const bitmapTableReservedHigh = 0xff000000
const bitmapTableReservedLow = 0x1fe

/** Count what the bitmaps refer to: directory, tables, data. qcow2 spec, "Bitmaps". */
export async function countBitmaps(state: CheckState): Promise<void> {
  const extension = findExtension(state.header.extensions, extensionTypes.bitmaps)
  if (extension === undefined) return
  if ((state.header.autoclearFeatures & autoclear.bitmaps) === 0n) {
    state.report('stale-bitmaps', staleBitmaps)
    return
  }
  const pointer = bitmapsExtension.decode(extension.data, 0, extension.offset + extensionHeader.sizeBytes)
  state.count(pointer.directoryOffset, pointer.directoryBytes)

  const directory = new Uint8Array(pointer.directoryBytes)
  await state.backend.readQueued(directory, pointer.directoryOffset)
  let at = 0
  for (let index = 0; index < pointer.count; index++) {
    const offset = pointer.directoryOffset + at
    if (at + bitmapEntry.sizeBytes > directory.length) {
      state.checkError(`ERROR bitmap directory ends before its entry ${index}`, { offset })
      return
    }
    const entry = bitmapEntry.decode(directory, at, offset)
    if (entry.tableEntries > limits.bitmapTableEntries) {
      state.checkError(`ERROR bitmap directory entry ${index} has a table of ${entry.tableEntries} entries`, {
        offset,
      })
      return
    }
    if (!isPlausible(entry, entry.type, entry.nameBytes, state.geometry.clusterSize)) {
      state.checkError(`ERROR bitmap directory entry ${index} is not valid`, { offset })
      return
    }
    const needed = tableEntriesFor(state.geometry.clusterSize, state.header.size, entry.granularityBits)
    if ((entry.flags & bitmapFlags.inUse) === 0 && entry.tableEntries !== needed) {
      const what = `has a table of ${entry.tableEntries} entries where the disk needs ${needed}`
      state.checkError(`ERROR bitmap directory entry ${index} ${what}`, { offset })
    }
    await countBitmap(state, entry.tableOffset, entry.tableEntries)
    at += alignUp(bitmapEntry.sizeBytes + entry.extraBytes + entry.nameBytes, 8)
  }
}

async function countBitmap(state: CheckState, tableOffset: number, entries: number): Promise<void> {
  state.count(tableOffset, entries * entryBytes)
  for await (const { first, count, view } of readEntries(state.backend, tableOffset, entries)) {
    state.step('references', first * state.geometry.clusterSize, entries * state.geometry.clusterSize)
    for (let index = 0; index < count; index++) {
      const high = view.getUint32(index * entryBytes)
      const low = view.getUint32(index * entryBytes + 4)
      const host = hostOf(high, low)
      const reserved = (high & bitmapTableReservedHigh) !== 0 || (low & bitmapTableReservedLow) !== 0
      if (reserved || (host !== 0 && (low & 1) !== 0) || host % state.geometry.clusterSize !== 0) {
        const text = `ERROR bitmap table entry ${first + index} is not valid`
        state.corruption('bitmaps', text, { offset: tableOffset + (first + index) * entryBytes })
      } else if (host !== 0) {
        state.count(host, state.geometry.clusterSize)
      }
    }
  }
}
