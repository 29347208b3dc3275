import type { BackingSource } from '../queue/format-image.js'
import { poisonedError } from '../queue/system-error.js'
import type { ActiveRequests } from './active-requests.js'
import type { Allocator } from './allocator.js'
import type { RefcountParts } from './refcount-parts.js'
import type { ClusterCodec } from './compression.js'
import type { CompressedSpace } from './compressed-space.js'
import type { CorruptMark } from './corrupt-mark.js'
import type { DeferredFrees } from './deferred-frees.js'
import type { DataFile } from './data-file.js'
import type { EncryptionArea } from './encryption-header.js'
import type { GuestData } from './guest-data.js'
import type { HeaderCluster } from './header-cluster.js'
import type { L1Table } from './l1-table.js'
import type { L2Tables } from './l2-tables.js'
import type { RangeLocks } from './range-locks.js'
import type { TableCache } from './table-cache.js'
import type { UnsyncedClusters } from './unsynced-clusters.js'

/** The parts of an open image, shared by what reads and writes it. Made in image.ts, once for each image. */
export type Parts = RefcountParts & {
  readonly version: 2 | 3
  readonly data: GuestData
  /** Where `data` is, if that is a file of its own. */
  readonly dataFile: DataFile | undefined
  /** Where the LUKS header of an encrypted image stands. */
  readonly encryptionArea: EncryptionArea | undefined
  readonly l1: L1Table
  readonly l2: L2Tables
  readonly l2Cache: TableCache
  readonly allocator: Allocator
  readonly frees: DeferredFrees
  readonly compressedSpace: CompressedSpace
  /** Tables and compressed clusters. */
  readonly unsynced: UnsyncedClusters
  /** Plain clusters, where `data` has them. */
  readonly unsyncedData: UnsyncedClusters
  readonly active: ActiveRequests
  readonly locks: RangeLocks
  readonly header: HeaderCluster
  readonly damage: CorruptMark
  readonly backing: BackingSource | undefined
  readonly codec: ClusterCodec
}

/** @throws ERR_POISONED, ERR_CORRUPT  the image is not changed any more */
export function refuseUnsound({ backend, damage }: Pick<Parts, 'backend' | 'damage'>): void {
  if (backend.poisoned !== undefined) throw poisonedError(backend.poisoned, backend.path)
  damage.refuse()
}

/** Change the image as a whole, while no request runs. Damage that is met marks the image. */
export async function alone<T>(
  { active, damage }: Pick<Parts, 'active' | 'damage'>,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await active.exclusively(work)
  } catch (error) {
    await damage.note(error)
    throw error
  }
}

/** Bytes of nodes that a request for one slice of mappings may queue: counts and L2 slices of its own, and a new L2 table and refcount block. */
export function admissionBytes(parts: Parts): number {
  return 8 * parts.geometry.sliceSize
}

/** Run work that changes mappings within one slice, with its guest clusters locked and room for what it queues. */
export async function changingSlice(
  parts: Parts,
  clusters: { readonly first: number; readonly last: number },
  work: () => Promise<void>,
): Promise<void> {
  const { locks, backend } = parts
  const lock = await locks.acquire(clusters.first, clusters.last)
  try {
    const credit = admissionBytes(parts)
    const room = backend.admit(credit)
    if (room !== undefined) await room
    try {
      await work()
    } finally {
      backend.release(credit)
    }
  } finally {
    locks.release(lock)
  }
}

/** Run work that queues at most one slice. @param room  not to wait: it is queued although there may be no room */
export async function withRoom<T>(
  parts: Pick<Parts, 'backend' | 'geometry'>,
  room: { readonly mayWait: boolean },
  work: () => T | Promise<T>,
): Promise<T> {
  const { backend, geometry } = parts
  const admitted = backend.admit(geometry.sliceSize)
  const isAdmitted =
    admitted === undefined ||
    (await admitted.then(
      () => true,
      (error: unknown) => {
        if (room.mayWait) throw error
        return false
      },
    ))
  try {
    return await work()
  } finally {
    if (isAdmitted) backend.release(geometry.sliceSize)
  }
}
