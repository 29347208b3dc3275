import { assert } from '../base/assert.js'
import { notSupported } from '../base/errors.js'
import { alignUp } from '../base/integers.js'
import { type GuestOffset, guestOffset } from '../base/units.js'
import { refuseDataFile } from './data-file.js'
import { compressionAndEncryption } from './encryption.js'
import { storeCompressed } from './l2-entry.js'
import { admissionBytes, type Parts } from './parts.js'
import { freeReplaced, refuseMetadata } from './replaced-clusters.js'
import { storeSubclusters } from './subclusters.js'
import { writeGuest } from './write.js'

/**
 * Write whole clusters, each compressed by itself; what does not get smaller is written as it is. Resolves as `writeGuest` does.
 * @param guest  aligned to clusters, as is the end of `bytes`, unless that is the end of the disk: zeros follow there
 */
export async function writeCompressedGuest(
  parts: Parts,
  bytes: Uint8Array,
  guest: GuestOffset,
): Promise<void> {
  refuseDataFile(parts, 'Compressed clusters')
  if (parts.data.encrypted === true)
    throw notSupported(compressionAndEncryption, { path: parts.backend.path })
  const { clusterSize } = parts.geometry
  const clusters: Promise<void>[] = []
  for (let done = 0; done < bytes.byteLength; done += clusterSize) {
    clusters.push(writeCluster(parts, bytes.subarray(done, done + clusterSize), guestOffset(guest + done)))
  }
  const outcomes = await Promise.allSettled(clusters)
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
}

async function writeCluster(parts: Parts, bytes: Uint8Array, guest: GuestOffset): Promise<void> {
  const { geometry, codec, backend, locks } = parts
  const payload = await codec.compress(padded(bytes, geometry.clusterSize))
  if (payload === undefined) {
    await writeGuest(parts, { bytes, guest })
    return
  }
  const cluster = guest / geometry.clusterSize
  const lock = await locks.acquire(cluster, cluster)
  try {
    const credit = admissionBytes(parts)
    const room = backend.admit(credit)
    if (room !== undefined) await room
    try {
      await writePayload(parts, payload, guest)
    } finally {
      backend.release(credit)
    }
  } finally {
    locks.release(lock)
    codec.reuse(payload)
  }
}

/** Put the payload in its place, and map it (E17). The guest cluster is locked. */
async function writePayload(parts: Parts, payload: Uint8Array, guest: GuestOffset): Promise<void> {
  const { geometry, l2, ordering, compressedSpace, backend } = parts
  let place = l2.writablePlace(guest)
  for (; place === undefined; place = l2.writablePlace(guest)) await l2.prepareWritable(guest)
  const run = l2.lookup(guest, geometry.clusterSize)
  assert(!('load' in run), 'a writable place is in memory')
  refuseMetadata(parts, run.entry, geometry.clusterSize)
  // The lock keeps the entry as it is, the pin its slice, until it is linked.
  place.slice.pins++
  try {
    const found = await compressedSpace.allocate(payload.byteLength)
    try {
      await backend.write(payload, found.host)
      await ordering.dataWritten()
    } catch (error) {
      await compressedSpace.cancel(found)
      throw error
    }
    storeCompressed(place.slice.view, place.at, found, geometry.clusterBits)
    if (geometry.extendedL2) storeSubclusters(place.slice.view, place.at, 0, 0)
    const linked = ordering.linkData(place.slice, found.after)
    parts.unsynced.add(found.host, payload.byteLength, linked)
    freeReplaced(parts, run.entry, 1, linked)
    await ordering.completed(linked)
  } finally {
    place.slice.pins--
  }
}

/** The last cluster of a disk may end behind it. */
function padded(bytes: Uint8Array, clusterSize: number): Uint8Array {
  if (bytes.byteLength === clusterSize) return bytes
  const cluster = new Uint8Array(alignUp(bytes.byteLength, clusterSize))
  cluster.set(bytes)
  return cluster
}
