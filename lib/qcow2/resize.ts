import type { GrowOptions } from '../queue/format-image.js'
import { Qcow2Error, notSupported, outOfRange } from '../base/errors.js'
import { alignDown, alignUp } from '../base/integers.js'
import { guestOffset } from '../base/units.js'
import { growDataFile, unlinkTable } from './data-file.js'
import { entryBytes, l1EntriesFor } from './geometry.js'
import type { Parts } from './parts.js'
import { preallocate, releasePreallocated } from './preallocate.js'
import type { SnapshotList } from './snapshot-list.js'
import { limits } from './spec.js'
import { changeMapping, writeZeroesGuest } from './zero-discard.js'

/**
 * Grow the disk to `size` bytes (E10, E21). The caller sees to it that no other request runs (H10).
 * What is newly exposed reads as zeros: bytes behind the old end in its last cluster, and a backing file that is longer than the disk was.
 */
export async function grow(parts: Parts, oldSize: number, size: number, switched: () => void): Promise<void> {
  const { geometry, backing } = parts
  const entries = l1EntriesFor(geometry, size)
  if (entries > limits.l1Entries) {
    const most = limits.l1Entries * geometry.l2TableCoverage
    throw outOfRange(
      `size ${size} is too large: with ${geometry.clusterSize}-byte clusters an image holds at most ${most} bytes`,
    )
  }
  if (parts.dataFile !== undefined) await growDataFile(parts.dataFile, oldSize, size)
  await dropVmState(parts, oldSize)
  if (entries > parts.l1.entries) await growL1(parts, entries)
  const exposed = Math.max(alignUp(oldSize, geometry.clusterSize), Math.min(size, backing?.size ?? 0))
  await writeZeroesGuest(parts, guestOffset(oldSize), Math.min(exposed, size) - oldSize, {
    unmap: true,
    size,
  })
  // The old end's cluster may hold bytes behind the new end too, if that lies in it.
  await switchSize(parts, size, switched)
}

/** @param switched  called in the step that changes the header in memory, which is what counts: it is written whatever fails then */
async function switchSize(parts: Parts, size: number, switched: () => void): Promise<void> {
  await parts.ordering.switchHeader(() => parts.header.change({ size }), switched)
}

/** Move the L1 table to a larger one, in one piece (E10). */
async function growL1(parts: Parts, entries: number): Promise<void> {
  const { geometry, backend, allocator, ordering, header, metadata, frees, l1 } = parts
  const bytes = new Uint8Array(alignUp(entries * entryBytes, geometry.clusterSize))
  const allocation = await allocator.allocateAdjacent(bytes.byteLength / geometry.clusterSize)
  // No request runs, so no entry changes any more; those that still wait in the queue are durable before the header switches.
  bytes.set(l1.bytes.subarray(0, l1.entries * entryBytes))
  const old = { host: l1.host, length: l1.length }
  try {
    await backend.write(bytes, allocation.host)
    await ordering.switchHeader(
      () => {
        l1.replace(allocation.host, entries, bytes)
        return header.change({ l1: { offset: allocation.host, entries } })
      },
      (removal) => {
        metadata.add('L1 table', allocation.host, bytes.byteLength)
        if (old.length > 0) frees.add(old.host, old.length, { removal, punch: false, wasTable: true })
      },
    )
  } catch (error) {
    if (l1.host !== allocation.host) await allocator.cancel(allocation)
    throw error
  }
}

/**
 * Shrink the disk to `size` bytes (E22): mappings go first, then the header, then counts, then the tail of the file. A crash in
 * between leaves a disk of the old size whose cut-off part is gone in parts, as the caller wanted.
 */
export async function shrink(
  parts: Parts,
  oldSize: number,
  size: number,
  switched: () => void,
): Promise<void> {
  const { geometry, frees } = parts
  const kept = alignUp(size, geometry.clusterSize)
  const end = alignUp(oldSize, geometry.clusterSize)
  await changeMapping(parts, guestOffset(kept), Math.max(0, end - kept), 'unallocate')
  await dropTables(parts, kept)
  await switchSize(parts, size, switched)
  // Not before: with the old size, a crash would have cut off what the disk still has (E22).
  if (parts.dataFile !== undefined) await parts.dataFile.backend.truncate(size)
  await frees.settled()
  await cutTail(parts)
}

/**
 * Preallocate what the disk has grown by. When that fails, what was grown for nothing is given back: most likely it was space that ran out.
 * @param resized  called in the step that gives the disk its old size again
 */
export async function preallocateGrown(
  parts: Parts,
  { from, to }: { readonly from: number; readonly to: number },
  { preallocation = 'off', ...control }: GrowOptions,
  resized: () => void,
): Promise<void> {
  // A raw data file is mapped as a whole.
  const mode = preallocation === 'off' && parts.dataFile?.isRaw === true ? 'metadata' : preallocation
  if (mode === 'off') return
  try {
    await preallocate(parts, { from, to, mode }, control)
  } catch (error) {
    await releasePreallocated(parts, { from, to })
      .then(() => shrink(parts, to, from, resized))
      // Then the disk is larger than it was, and sound.
      .catch(() => undefined)
    throw error
  }
}

/** Give the file's tail back to the host, when what was dropped before is free. The removals are durable already, or become so here. */
export async function cutTail(parts: Parts): Promise<void> {
  const { backend, frees } = parts
  // The counts of what is cut off are down before it is gone.
  await backend.flush()
  await frees.settled()
  await parts.allocator.giveBackReserved()
  const used = await endOfUse(parts)
  if (used < backend.length) await backend.truncate(used)
}

/**
 * Behind the disk, from the next L2 table on, QEMU leaves the VM state of a snapshot that it has applied. The snapshot has it still; here it
 * would become part of the disk (mistake 27 of the format's list).
 */
async function dropVmState(parts: Parts, size: number): Promise<void> {
  const { l2TableCoverage } = parts.geometry
  const start = alignUp(size, l2TableCoverage)
  const end = parts.l1.entries * l2TableCoverage
  if (start >= end) return
  await changeMapping(parts, guestOffset(start), end - start, 'unallocate')
  await dropTables(parts, start)
}

/** Drop the L2 tables that map nothing below `kept`. */
export async function dropTables(parts: Parts, kept: number): Promise<void> {
  const { geometry, l1, frees, backend } = parts
  for (let index = Math.ceil(kept / geometry.l2TableCoverage); index < l1.entries; index++) {
    const table = l1.table(index)
    if (table === undefined) continue
    const room = backend.admit(geometry.sliceSize)
    if (room !== undefined) await room
    try {
      const removal = unlinkTable(parts, l1.clear(index))
      frees.add(table.host, geometry.clusterSize, { removal, punch: false, wasTable: true })
    } finally {
      backend.release(geometry.sliceSize)
    }
  }
}

/** Where the last cluster with a reference ends. */
async function endOfUse(parts: Parts): Promise<number> {
  const { geometry, allocator, backend } = parts
  let end = Math.ceil(backend.length / geometry.clusterSize)
  while (end > 0) {
    const start = alignDown(end - 1, geometry.refcountsPerSlice)
    const counts = await allocator.counts(start, end - start)
    const last = counts.findLastIndex((count) => count > 0)
    if (last >= 0) return Math.min(backend.length, (start + last + 1) * geometry.clusterSize)
    end = start
  }
  return 0
}

/** What resizing refuses. @throws ERR_NOT_SUPPORTED, ERR_READ_ONLY, RangeError */
export function checkResize(
  parts: Parts,
  change: { from: number; to: number; shrink: boolean; snapshots: SnapshotList },
): void {
  const { path } = parts.backend
  if (change.to % 512 !== 0) throw outOfRange(`size ${change.to} is not a multiple of 512`)
  if (change.snapshots.count > 0 && parts.version === 2)
    throw notSupported("Can't resize a v2 image which has snapshots", { path })
  if (!change.snapshots.tellsSizes) {
    const what = 'An image whose snapshots do not say how large the disk was cannot be resized'
    throw notSupported(what, { path, structure: 'snapshot table entry' })
  }
  if (change.to < change.from && !change.shrink) {
    throw new Qcow2Error(
      'ERR_NOT_SUPPORTED',
      `Shrinking from ${change.from} to ${change.to} bytes cuts off data; ask for it explicitly`,
      { path },
    )
  }
}
