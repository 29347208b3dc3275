import { type GuestOffset, guestOffset } from '../base/units.js'
import type { Allocation } from './refcount-parts.js'
import type { MappedRun } from './l2-tables.js'
import type { Parts } from './parts.js'
import { readRun } from './read.js'

/** A write that is about to give clusters to a run of guest bytes. */
export type NewClusters = {
  /** First guest byte written; the run's mapping is that of its cluster, and holds for all clusters. */
  readonly guest: GuestOffset
  readonly bytes: Uint8Array
  readonly run: MappedRun
  /** Where they go: the first guest cluster to its first cluster. */
  readonly allocation: Allocation
}

/**
 * Whether the clusters of a run hold bytes that must be copied around a write of a part: none if they read as zeros. But in an encrypted
 * image zeros are bytes like others, since what a new cluster holds does not decrypt to them.
 */
export function hasOldBytes(parts: Parts, run: MappedRun, guest: GuestOffset): boolean {
  if (parts.data.encrypted === true) return true
  if (run.entry.type === 'unallocated') return parts.backing !== undefined && guest < parts.backing.size
  return run.entry.type !== 'zero'
}

/**
 * Write guest bytes to new clusters, with what the guest sees around them (E1 to E3, E16; bytes that were never written must be zeros
 * on disk where the cluster held something before). Resolves when all of it is written: then the clusters may be linked.
 */
export function fillClusters(parts: Parts, write: NewClusters): Promise<void> {
  const { geometry, data } = parts
  const { guest, bytes } = write
  const { host, clusters, fresh } = write.allocation
  const within = guest % geometry.clusterSize
  const capacity = clusters * geometry.clusterSize
  const start = guest - within
  if (bytes.byteLength === capacity) return data.write(bytes, host, guest)
  if (hasOldBytes(parts, write.run, guestOffset(start))) {
    return surrounded(parts, write, within, capacity).then((merged) => data.write(merged, host, start))
  }
  if (fresh) return data.write(bytes, host + within, guest)
  // One after the other: both may touch the same block of the host.
  return data
    .writeZeroes(host, capacity, { unmap: false }, start)
    .then(() => data.write(bytes, host + within, guest))
}

/** The bytes to write between the old ones before and after them. A cluster or few: see `writeRun`. */
async function surrounded(
  parts: Parts,
  write: NewClusters,
  within: number,
  capacity: number,
): Promise<Uint8Array> {
  const merged = new Uint8Array(capacity)
  const end = within + write.bytes.byteLength
  const start = write.guest - within
  // Both reads begin before anything is awaited, so that the run's mapping still holds; the ticket keeps the old cluster.
  const head =
    within > 0 ? readRun(parts, write.run, merged.subarray(0, within), guestOffset(start)) : undefined
  const tail = end < capacity ? readTail(parts, write, merged.subarray(end), end) : undefined
  const outcomes = await Promise.allSettled([head, tail])
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
  merged.set(write.bytes, within)
  return merged
}

function readTail(parts: Parts, write: NewClusters, into: Uint8Array, end: number): Promise<void> {
  const { entry } = write.run
  const start = write.guest - (write.guest % parts.geometry.clusterSize)
  const at = guestOffset(start + end)
  if (entry.type !== 'normal') return readRun(parts, write.run, into, at)
  // The run's host is that of its first cluster; the tail may lie in a later one.
  return parts.data.read(into, entry.host + end, at)
}
