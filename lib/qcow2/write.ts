import { assert } from '../base/assert.js'
import { type GuestOffset, guestOffset, noSection, type Section } from '../base/units.js'
import type { Allocation } from './refcount-parts.js'
import { fillClusters, hasOldBytes } from './copy-on-write.js'
import { clustersInDataFile, isMappingRaw, mapRaw, rawMapped } from './data-file.js'
import { type L2Entry, storeCopied } from './l2-entry.js'
import type { EntryPlace, MappedRun } from './l2-tables.js'
import { admissionBytes, type Parts } from './parts.js'
import { freeReplaced, refuseMetadata } from './replaced-clusters.js'
import { writeSubclusters } from './write-subclusters.js'

/** What a guest writes, and where. */
export type GuestWrite = {
  readonly bytes: Uint8Array
  readonly guest: GuestOffset
  /** It is to be durable when it resolves: Force Unit Access. */
  readonly fua?: boolean
}

/**
 * Write guest bytes. Resolves when a guest's write would complete: the data is written and mapped in memory, its metadata queued;
 * where every write is synced, and with `fua`, all of it is durable. The caller holds a ticket of ActiveRequests.
 */
export function writeGuest(parts: Parts, write: GuestWrite): Promise<void> {
  const sliceCoverage = parts.geometry.l2EntriesPerSlice * parts.geometry.clusterSize
  if (write.guest % sliceCoverage <= sliceCoverage - write.bytes.byteLength) return writeMapped(parts, write)
  return writeSlices(parts, write, sliceCoverage)
}

async function writeSlices(
  parts: Parts,
  { bytes, guest, fua = false }: GuestWrite,
  sliceCoverage: number,
): Promise<void> {
  for (let done = 0; done < bytes.byteLength;) {
    const at = guestOffset(guest + done)
    const length = Math.min(bytes.byteLength - done, sliceCoverage - (at % sliceCoverage))
    const piece = { bytes: bytes.subarray(done, done + length), guest: at }
    await (writeInPlace(parts, piece) ?? writeMapped(parts, piece))
    done += length
  }
  if (fua && parts.backend.syncPolicy !== 'write') await parts.backend.flush()
}

/**
 * Write a range that is mapped to one run of clusters of our own. No lock: the ticket keeps the clusters, and two guests' writes to
 * one place are theirs to order.
 * @returns undefined when the range is not of that kind, or its mapping is not in memory
 */
export function writeInPlace(parts: Parts, write: GuestWrite): Promise<void> | undefined {
  const { bytes, guest, fua = false } = write
  const host = parts.l2.contiguousHost(guest, bytes.byteLength, { inPlace: true })
  if (host < 0 || isMappingRaw(parts)) return undefined
  refuseTables(parts, host, bytes.byteLength)
  if (parts.backend.syncPolicy === 'write')
    return parts.data.write(bytes, host, guest).then(() => parts.ordering.dataWritten())
  return fua ? writeDurably(parts, bytes, host, guest) : parts.data.write(bytes, host, guest)
}

/** Write to clusters that are mapped, and make that durable with all that is queued. */
function writeDurably(parts: Parts, bytes: Uint8Array, host: number, guest: number): Promise<void> {
  const { backend, data } = parts
  if (data === backend) return backend.writeDurably(bytes, host)
  return data.write(bytes, host, guest).then(() => backend.flush())
}

/** Write a range within one slice of mappings, run by run, with its guest clusters locked. */
async function writeMapped(parts: Parts, { bytes, guest, fua = false }: GuestWrite): Promise<void> {
  const { geometry, locks, backend } = parts
  const durable: Durable | undefined =
    fua && backend.syncPolicy !== 'write' ? { byNow: undefined } : undefined
  const first = Math.floor(guest / geometry.clusterSize)
  const last = Math.floor((guest + bytes.byteLength - 1) / geometry.clusterSize)
  const acquired = locks.acquire(first, last)
  const lock = acquired instanceof Promise ? await acquired : acquired
  try {
    const credit = admissionBytes(parts)
    const room = backend.admit(credit)
    if (room !== undefined) await room
    try {
      for (let done = 0; done < bytes.byteLength;) {
        const piece = done === 0 ? bytes : bytes.subarray(done)
        done += await writeRun(parts, piece, guestOffset(guest + done), durable)
      }
    } finally {
      backend.release(credit)
    }
  } finally {
    locks.release(lock)
  }
  // What is mapped needs no lock: see `writeInPlace`.
  if (durable !== undefined) await (durable.byNow ?? backend.flush())
}

/** What makes all of a write durable, where that has begun with its last run. */
type Durable = { byNow: Promise<void> | undefined }

/**
 * Write the first run of `bytes`. Where all is to become durable, and this is the last of it, that may have begun when it resolves.
 * @returns how many bytes it was
 */
async function writeRun(
  parts: Parts,
  bytes: Uint8Array,
  guest: GuestOffset,
  durable: Durable | undefined,
): Promise<number> {
  const { l2, geometry } = parts
  let place = l2.writablePlace(guest)
  for (; place === undefined; place = l2.writablePlace(guest)) await l2.prepareWritable(guest)
  const isRaw = parts.dataFile?.isRaw === true
  if (geometry.extendedL2 && !isRaw) return writeSubclusters(parts, place, bytes, guest)
  const run = l2.lookup(guest, bytes.byteLength)
  assert(!('load' in run), 'a writable place is in memory')
  const { entry } = run
  const within = guest % geometry.clusterSize
  if (entry.type === 'normal' && entry.copied) {
    if (isMappingRaw(parts)) await rawMapped(parts)
    const piece = bytes.subarray(0, run.length)
    refuseTables(parts, entry.host + within, run.length)
    await parts.data.write(piece, entry.host + within, guest)
    await parts.ordering.dataWritten()
    return run.length
  }
  if (isRaw) {
    // From the next look on it is mapped.
    await mapRaw(parts, place, run, guest)
    return 0
  }
  refuseMetadata(parts, entry, within + run.length)
  // The lock keeps the entries as they are, the pin their slice, until they are linked.
  place.slice.pins++
  try {
    const length = runLength(parts, run, guest)
    const clusters = Math.ceil((within + length) / geometry.clusterSize)
    const kept = keptClusters(parts, entry, guest - within, clusters)
    const { allocator, ordering } = parts
    const allocation = kept ?? allocator.tryAllocate(clusters) ?? (await allocator.allocate(clusters))
    const most = Math.min(length, allocation.clusters * geometry.clusterSize - within)
    const piece = most < bytes.byteLength ? bytes.subarray(0, most) : bytes
    // What shows zeros until it is written, in place of what shows zeros: the mapping may come before the bytes.
    const isBlank = allocation.blank && !hasOldBytes(parts, run, guestOffset(guest - within))
    if (isBlank && durable !== undefined && piece.byteLength === bytes.byteLength) {
      // So its bytes, its entry and the sync are one request. If the bytes cannot be written it shows zeros, as before.
      freeReplaced(parts, entry, allocation.clusters, link(parts, place, allocation, isBlank))
      durable.byNow = writeDurably(parts, piece, allocation.host + within, guest)
      return piece.byteLength
    }
    try {
      await fillClusters(parts, { guest, bytes: piece, run, allocation })
      const synced = isBlank ? undefined : ordering.dataWritten()
      if (synced !== undefined) await synced
    } catch (error) {
      if (kept === undefined) await allocator.cancel(allocation)
      throw error
    }
    const linked = link(parts, place, allocation, isBlank)
    if (kept === undefined) freeReplaced(parts, entry, allocation.clusters, linked)
    const completed = ordering.completed(linked)
    if (completed !== undefined) await completed
    return piece.byteLength
  } finally {
    place.slice.pins--
  }
}

/**
 * The clusters that a run has already, if there are any: in a data file always, else those that are kept for one which reads as zeros. Those were
 * mapped before: their counts are there, and what they hold is garbage (E16).
 */
function keptClusters(parts: Parts, old: L2Entry, guest: number, clusters: number): Allocation | undefined {
  if (parts.dataFile !== undefined) return clustersInDataFile(parts.dataFile, guest, clusters)
  if (old.type !== 'zero' || old.host === undefined || !old.copied) return undefined
  return { host: old.host, clusters, after: noSection, fresh: false, blank: false }
}

/** In a data file there are no tables. */
function refuseTables(parts: Parts, host: number, length: number): void {
  if (parts.dataFile === undefined) parts.metadata.refuse('guest data', host, length)
}

/** How much of a run is written at once. Where old bytes must be copied around it, a cluster that is written in part goes alone. */
function runLength(parts: Parts, run: MappedRun, guest: GuestOffset): number {
  const size = parts.geometry.clusterSize
  const within = guest % size
  if (!hasOldBytes(parts, run, guestOffset(guest - within))) return run.length
  if (within > 0 || run.length < size) return Math.min(run.length, size - within)
  return run.length - (run.length % size)
}

/** Map the clusters: from here on readers see them. No await in here; the lock has kept the entries as they were looked up. */
function link(parts: Parts, place: EntryPlace, allocation: Allocation, isBlank: boolean): Section {
  const { ordering, unsyncedData } = parts
  for (let step = 0; step < allocation.clusters; step++) {
    const host = allocation.host + step * parts.geometry.clusterSize
    storeCopied(place.slice.view, place.at + step * parts.geometry.l2EntryBytes, host)
  }
  if (isBlank) return ordering.linkBlankData(place.slice, allocation.after)
  const linked = ordering.linkData(place.slice, allocation.after)
  unsyncedData.add(allocation.host, allocation.clusters * parts.geometry.clusterSize, linked)
  return linked
}
