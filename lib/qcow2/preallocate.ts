import { throwIfAborted } from '../base/abort.js'
import { assert } from '../base/assert.js'
import { alignUp } from '../base/integers.js'
import { type GuestOffset, guestOffset, sectorSize } from '../base/units.js'
import type { PreallocationMode } from '../queue/format-image.js'
import { clustersInDataFile, mappedRaw } from './data-file.js'
import { type L2Entry, storeCopied, storeZero } from './l2-entry.js'
import { admissionBytes, type Parts } from './parts.js'
import { refuseMetadata } from './replaced-clusters.js'

/**
 * What preallocation does with the clusters: 'metadata' maps them and leaves holes in the file, 'falloc' reserves their space on
 * the host, 'full' writes zeros.
 */
export type Preallocation = Exclude<PreallocationMode, 'off'>

/** Zeros are written in pieces of at most this many bytes. */
const fullPieceBytes = 2 * 1024 * 1024

/** Give a cluster to everything that begins in a range and has none. The caller sees to it that no other request runs. */
export async function preallocate(
  parts: Parts,
  range: { from: number; to: number; mode: Preallocation },
  control: { signal?: AbortSignal | undefined; onBytes?: ((done: number) => void) | undefined } = {},
): Promise<void> {
  // Not the cluster in which the range begins: what is before the range in it may be the backing file's.
  for (let at = alignUp(range.from, parts.geometry.clusterSize); at < range.to;) {
    throwIfAborted(control.signal)
    at += await preallocateRun(parts, guestOffset(at), range.to - at, range.mode)
    control.onBytes?.(Math.min(at, range.to) - range.from)
  }
}

/**
 * Give the host back the space of what preallocation has mapped in a range. It holds nothing but zeros, before and after: no write has to
 * come first, which matters where space has run out, since unmapping takes some.
 * @throws ERR_CORRUPT  an entry that was there before names a table
 */
export async function releasePreallocated(parts: Parts, range: { from: number; to: number }): Promise<void> {
  for (let at = alignUp(range.from, parts.geometry.clusterSize); at < range.to;) {
    const { entry, length } = await parts.l2.find(guestOffset(at), range.to - at)
    const { extendedL2, clusterSize } = parts.geometry
    const isOurs = extendedL2 ? entry.type !== 'compressed' : entry.type === 'normal' && entry.copied
    if (isOurs && entry.host !== undefined) {
      // What is not ours was mapped before, and may be damage.
      refuseMetadata(parts, entry, (at % clusterSize) + length)
      await parts.data.punch(entry.host + (at % clusterSize), length)
    }
    at += length
  }
}

/** Map one run. @returns the guest bytes dealt with */
async function preallocateRun(
  parts: Parts,
  guest: GuestOffset,
  length: number,
  mode: Preallocation,
): Promise<number> {
  const { geometry, l2, allocator, ordering, backend } = parts
  const found = await l2.find(guest, length)
  if (!hasNoCluster(found.entry)) return found.length
  const credit = admissionBytes(parts)
  const room = backend.admit(credit)
  if (room !== undefined) await room
  try {
    let place = l2.writablePlace(guest)
    for (; place === undefined; place = l2.writablePlace(guest)) await l2.prepareWritable(guest)
    const { slice, at } = place
    const run = l2.lookup(guest, length)
    assert(!('load' in run) && hasNoCluster(run.entry), 'no other request runs')
    // Zeros that hide a backing file stay zeros; their clusters need not be.
    const asZeros = isMarkedZero(parts, run.entry, mode)
    // Extended entries say what shows in a word of their own, which stays: the clusters are there, and nothing in them yet.
    const store = asZeros && !geometry.extendedL2 ? storeZero : storeCopied
    slice.pins++
    try {
      const most = Math.ceil(run.length / geometry.clusterSize)
      const count = mode === 'full' ? Math.min(most, pieceClusters(geometry.clusterSize)) : most
      const { dataFile } = parts
      const allocation =
        dataFile === undefined
          ? await allocator.allocate(count, { ahead: false })
          : clustersInDataFile(dataFile, guest, count)
      // What a data file has beyond the part of the disk that was in use so far are zeros.
      const areZeros = allocation.fresh || dataFile !== undefined
      const bytes = allocation.clusters * geometry.clusterSize
      try {
        await reserve(
          parts,
          { host: allocation.host, guest, bytes },
          mode === 'metadata' && !areZeros && !asZeros ? 'falloc' : mode,
        )
        await ordering.dataWritten()
      } catch (error) {
        // Written in part, perhaps, and then for lack of space.
        await parts.data.punch(allocation.host, bytes).catch(() => undefined)
        if (dataFile === undefined) await allocator.cancel(allocation)
        throw error
      }
      for (let step = 0; step < allocation.clusters; step++) {
        store(slice.view, at + step * geometry.l2EntryBytes, allocation.host + step * geometry.clusterSize)
      }
      const linked = ordering.linkData(slice, allocation.after)
      parts.unsyncedData.add(allocation.host, bytes, linked)
      mappedRaw(parts, linked)
      await ordering.completed(linked)
      return bytes
    } finally {
      slice.pins--
    }
  } finally {
    backend.release(credit)
  }
}

/** Clusters that are mapped and marked as zeros need no zeros in them; what an encrypted one holds would decrypt to noise. */
function isMarkedZero({ data, version }: Parts, entry: L2Entry, mode: Preallocation): boolean {
  return mode === 'metadata' && (entry.type === 'zero' || (data.encrypted === true && version === 3))
}

function hasNoCluster(entry: L2Entry): boolean {
  return entry.host === undefined
}

function pieceClusters(clusterSize: number): number {
  return Math.max(1, fullPieceBytes / clusterSize)
}

/** Make the clusters read as zeros, and the file reach behind them: an entry that points past its end is damage. */
async function reserve(
  parts: Parts,
  { host, guest, bytes }: { host: number; guest: number; bytes: number },
  mode: Preallocation,
): Promise<void> {
  const { data } = parts
  switch (mode) {
    case 'metadata':
      if (data.length < host + bytes) await data.truncate(host + bytes)
      else if (parts.dataFile === undefined) await reachBehind(parts, host + bytes, guest + bytes)
      if (data.encrypted === true && parts.version === 2)
        await data.writeZeroes(host, bytes, { unmap: false }, guest)
      return
    case 'falloc':
      await data.writeZeroes(host, bytes, { unmap: false }, guest)
      return
    case 'full':
      await data.write(new Uint8Array(bytes), host, guest)
      return
  }
}

/** What was once written there may have been cut off since, as shrinking does: zeros at the very end, which are there already or of no account. */
async function reachBehind({ data }: Parts, end: number, guestEnd: number): Promise<void> {
  await data.write(new Uint8Array(sectorSize), end - sectorSize, guestEnd - sectorSize)
}
