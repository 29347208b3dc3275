import { corrupt, Qcow2Error } from '../base/errors.js'
import { type HostOffset, noSection, type Section } from '../base/units.js'
import type { ActiveRequests } from './active-requests.js'
import type { Allocator } from './allocator.js'
import type { RefcountParts } from './refcount-parts.js'
import { clusterOf } from './geometry.js'
import type { TableCache } from './table-cache.js'

/** Clusters that lost a reference which is not yet gone for good. */
type Free = {
  /** First of the clusters that are still to be freed. */
  first: number
  clusters: number
  /** The section of the write that removed the reference. */
  readonly removal: Section
  /** The newest request when it was removed: requests up to here may still use the clusters (G3). */
  readonly newest: number
  /** Give the bytes back to the host. */
  readonly punch: boolean
  /** The tables that stood there leave the caches. */
  readonly wasTable: boolean
}

export type FreeOptions = { readonly removal: Section; readonly punch: boolean; readonly wasTable: boolean }

/**
 * Frees, deferred (B2 of the format's rules): a reference that is removed lowers its cluster's count only when the removal is durable (G2)
 * and no request that may have seen the old mapping is running (G3). Until then the count in memory stays up, so that the allocator
 * cannot have the cluster. The lowered counts are queued like any other node and ride along with the next flush: no sync of their own.
 */
export class DeferredFrees {
  readonly #parts: RefcountParts
  readonly #allocator: Allocator
  readonly #active: ActiveRequests
  readonly #l2Cache: TableCache
  /** In the order of removal, and freed in that order. */
  #waiting: Free[] = []
  /** How many at the head of `#waiting` have been dealt with. */
  #done = 0
  #running: Promise<void> | undefined
  /** How often clusters have become free since the image was opened. */
  #released = 0
  /** Why the last release ended early; what it has not freed waits. */
  #failure: Error | undefined

  constructor(parts: RefcountParts, allocator: Allocator, active: ActiveRequests, l2Cache: TableCache) {
    this.#parts = parts
    this.#allocator = allocator
    this.#active = active
    this.#l2Cache = l2Cache
  }

  /** Whether anything waits to be freed. */
  get pending(): boolean {
    return this.#waiting.length > this.#done || this.#running !== undefined
  }

  get released(): number {
    return this.#released
  }

  /**
   * Whether what has failed for lack of room may find some in the file: clusters wait to be freed, or have become free meanwhile.
   * @param released  as it was before it looked for room
   */
  mayHelp(error: unknown, released: number): boolean {
    const isNoSpace = error instanceof Qcow2Error && error.code === 'ERR_NO_SPACE'
    return isNoSpace && (this.pending || this.#released !== released)
  }

  /** A reference to each of these clusters is removed by the write in `removal`. Call it in the step that queued that write. */
  add(host: HostOffset, length: number, options: FreeOptions): void {
    const { geometry, backend } = this.#parts
    const first = clusterOf(geometry, host)
    const clusters = clusterOf(geometry, host + length - 1) - first + 1
    // A node that still waits for bytes of a freed table would land on the next owner's (G5).
    const queued = options.wasTable ? backend.pendingSection(host, length) : noSection
    const removal = queued > options.removal ? queued : options.removal
    const last = this.#waiting.at(-1)
    if (
      last !== undefined &&
      this.#running === undefined &&
      this.#waiting.length > this.#done &&
      last.first + last.clusters === first &&
      last.removal === removal &&
      last.newest === this.#active.newest &&
      last.punch === options.punch &&
      last.wasTable === options.wasTable
    ) {
      last.clusters += clusters
      return
    }
    const { punch, wasTable } = options
    this.#waiting.push({ first, clusters, removal, newest: this.#active.newest, punch, wasTable })
  }

  /** Free what may be freed now. Cheap when there is nothing. */
  release(): void {
    if (this.#running !== undefined || this.#failure !== undefined || this.#next() === undefined) return
    this.#running = this.#releaseAll()
      .catch((error: unknown) => {
        // The counts stay up until somebody asks again, as close() does: a leak at worst, which that reports.
        this.#failure = error instanceof Error ? error : new Error(String(error))
      })
      .finally(() => {
        this.#running = undefined
        this.release()
      })
  }

  /** Wait until all that may be freed now has been; what failed before is tried again. @throws what fails now */
  async settled(): Promise<void> {
    await this.#idle()
    this.#takeFailure()
    this.release()
    await this.#idle()
    const failure = this.#takeFailure()
    if (failure !== undefined) throw failure
  }

  /**
   * As `settled`, but for all that waits now and whose removal is durable: requests that may still use the clusters are waited for. The caller
   * is not one of them, and holds no lock that one could wait for.
   * @throws what fails now
   */
  async through(): Promise<void> {
    const last = this.#waiting.at(-1)
    await this.settled()
    while (last !== undefined && this.#isWaiting(last)) {
      const free = this.#waiting[this.#done]
      if (free === undefined || free.removal > this.#parts.backend.durableSection) return
      await this.#active.endedUpTo(free.newest)
      await this.settled()
    }
  }

  #isWaiting(free: Free): boolean {
    return this.#waiting.indexOf(free, this.#done) >= 0
  }

  async #idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running
  }

  #takeFailure(): Error | undefined {
    const failure = this.#failure
    this.#failure = undefined
    return failure
  }

  /** The first one, if it may be freed now. */
  #next(): Free | undefined {
    const free = this.#waiting[this.#done]
    if (free === undefined) return undefined
    return free.removal <= this.#parts.backend.durableSection && !this.#active.anyUpTo(free.newest)
      ? free
      : undefined
  }

  async #releaseAll(): Promise<void> {
    for (let free = this.#next(); free !== undefined; free = this.#next()) {
      await this.#releaseOne(free)
      this.#released++
      this.#done++
      if (this.#done * 2 > this.#waiting.length) {
        this.#waiting = this.#waiting.slice(this.#done)
        this.#done = 0
      }
    }
  }

  async #releaseOne(free: Free): Promise<void> {
    const { geometry, backend, metadata } = this.#parts
    const host = free.first * geometry.clusterSize
    const length = free.clusters * geometry.clusterSize
    if (free.wasTable) {
      this.#l2Cache.drop(host, length)
      metadata.remove(host, length)
    }
    // In pieces of one slice of counts each, so that queue and memory stay bounded whatever is freed.
    while (free.clusters > 0) {
      const inSlice = geometry.refcountsPerSlice - (free.first % geometry.refcountsPerSlice)
      const clusters = Math.min(free.clusters, inSlice)
      if (free.punch) await this.#punch(free.first, clusters)
      const room = backend.admit(geometry.sliceSize)
      if (room !== undefined) await room
      try {
        await this.#lower(free.first, clusters, free.removal)
      } finally {
        backend.release(geometry.sliceSize)
      }
      free.first += clusters
      free.clusters -= clusters
    }
  }

  async #lower(first: number, clusters: number, removal: Section): Promise<void> {
    const { ordering, geometry } = this.#parts
    await this.#allocator.changeCounts(
      first,
      clusters,
      (count, cluster) => {
        if (count === 0)
          throw corrupt('refcount block', cluster * geometry.clusterSize, 'a cluster in use has refcount 0')
        return count - 1
      },
      (slice) => ordering.dropReferences(slice, removal),
    )
  }

  /** Before the counts go down, while nobody can have the clusters (G4). Clusters with another reference keep their bytes. */
  async #punch(first: number, clusters: number): Promise<void> {
    const { geometry, backend } = this.#parts
    // From here on no compressed cluster goes to the rest of one of them: its bytes would be punched out as well.
    this.#allocator.endSharing(first, clusters)
    const counts = await this.#allocator.counts(first, clusters)
    for (let start = 0; start < counts.length;) {
      let end = start
      while (end < counts.length && counts[end] === 1) end++
      if (end > start) {
        const host = (first + start) * geometry.clusterSize
        // Nothing depends on it: a host that cannot do it (no space for one more extent) keeps the bytes, and the clusters are free.
        await backend.punch(host, (end - start) * geometry.clusterSize).catch(() => undefined)
      }
      start = end + 1
    }
  }
}
