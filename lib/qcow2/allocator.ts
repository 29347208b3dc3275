import { assert } from '../base/assert.js'
import { corrupt, outOfRange, Qcow2Error } from '../base/errors.js'
import { hostOffset, noSection, type Section } from '../base/units.js'
import type { Geometry } from './geometry.js'
import type { Allocation, RefcountParts } from './refcount-parts.js'
import { freeRun, loadRefcount, storeRefcount } from './refcount-entry.js'
import type { RefcountGrowth } from './refcount-growth.js'
import { Reservation, type ReservationOptions } from './reservation.js'
import type { Slice } from './table-cache.js'

/**
 * Gives out host clusters, lowest free one first. A cluster is free when its count in memory is 0: frees are deferred until their
 * reasons are durable and nobody uses the cluster (deferred-frees.ts), so that gates G1 to G5 of the format's rules hold by that alone.
 *
 * State changes only between awaits, each in one synchronous step with the queueing of its node (H14).
 */
export class Allocator {
  readonly #parts: RefcountParts
  readonly #growth: RefcountGrowth
  readonly #reservation: Reservation
  /** No cluster below this is free. */
  #lowest = 0
  #freeing: (first: number, clusters: number) => void = () => undefined

  constructor(parts: RefcountParts, growth: RefcountGrowth, options: ReservationOptions) {
    this.#parts = parts
    this.#growth = growth
    this.#reservation = new Reservation(parts, growth, options, (first, clusters) =>
      this.#lower(first, clusters),
    )
  }

  /**
   * Allocate 1 to `most` adjacent clusters.
   * @param options.ahead  whether more may be reserved at the end of the file
   * @throws ERR_NO_SPACE, ERR_IO, ERR_CORRUPT
   */
  async allocate(most: number, options = { ahead: true }): Promise<Allocation> {
    for (;;) {
      const allocation = this.tryAllocate(most, options)
      if (allocation !== undefined) return allocation
      await this.#growth.prepare(this.#lowest, this.#lowest)
    }
  }

  /** As `allocate`, without waiting: undefined when the counts of the lowest free clusters are not in memory, or not counted yet. */
  tryAllocate(most: number, options = { ahead: true }): Allocation | undefined {
    const { table, cache, geometry } = this.#parts
    while (this.#lowest < this.#reservation.first) {
      const place = table.place(this.#lowest)
      const slice = place && cache.get(place.slice)
      if (place === undefined || slice === undefined) return undefined
      const run = freeRun(slice.view, place.index, most, geometry)
      if (run === undefined) {
        this.#lowest += geometry.refcountsPerSlice - place.index
        continue
      }
      const first = this.#lowest + run.index - place.index
      this.#lowest = first
      if (first > this.#reservation.first) break
      const allocation = this.#take(slice, run.index, first, run.length)
      this.#lowest = first + run.length
      if (allocation.fresh && options.ahead) this.#reservation.renew()
      return allocation
    }
    return this.#reservation.take(most)
  }

  /**
   * Allocate exactly `count` adjacent clusters, for tables that must be in one piece. Only while no request runs.
   */
  async allocateAdjacent(count: number): Promise<Allocation> {
    const { geometry, table, cache } = this.#parts
    let first = this.#lowest
    let length = 0
    while (length < count) {
      const cluster = first + length
      const place = table.place(cluster)
      const slice = place && cache.get(place.slice)
      if (place === undefined || slice === undefined) {
        // A new block goes to the run's first cluster: at one of its own it would cut every run that is longer than what a block counts.
        await this.#growth.prepare(cluster, length > 0 ? first : cluster)
        const [count = 0] = length > 0 ? await this.counts(first, 1) : []
        if (count === 0) continue
        first++
        length--
      } else if (loadRefcount(slice.view, place.index, geometry) !== 0) {
        first = cluster + 1
        length = 0
      } else length++
    }
    return this.#takeAdjacent(first, count)
  }

  async #takeAdjacent(first: number, count: number): Promise<Allocation> {
    const { geometry, table, cache, backend } = this.#parts
    const fresh = first * geometry.clusterSize >= backend.length
    let after: Section = noSection
    const host = hostOffset(first * geometry.clusterSize)
    for (let taken = 0; taken < count;) {
      const place = table.place(first + taken)
      assert(place !== undefined, 'counted before')
      const slice = cache.get(place.slice)
      if (slice === undefined) {
        try {
          await cache.load(place.slice)
        } catch (error) {
          if (taken > 0) await this.cancel({ host, clusters: taken, after, fresh, blank: false })
          throw error
        }
        continue
      }
      const here = Math.min(count - taken, geometry.refcountsPerSlice - place.index)
      const part = this.#take(slice, place.index, first + taken, here)
      if (part.after > after) after = part.after
      taken += here
    }
    return { host, clusters: count, after, fresh, blank: false }
  }

  #take(slice: Slice, index: number, first: number, length: number): Allocation {
    const { geometry, metadata, ordering, backend } = this.#parts
    const host = first * geometry.clusterSize
    if (!Number.isSafeInteger(host + length * geometry.clusterSize)) {
      throw outOfRange('the image file has reached its largest size')
    }
    metadata.refuse('a new cluster', host, length * geometry.clusterSize)
    const fresh = host >= backend.length
    for (let step = 0; step < length; step++) storeRefcount(slice.view, index + step, geometry, 1)
    const counted = ordering.addReferences(slice)
    const published = this.#growth.publishedAfter(first)
    return {
      host: hostOffset(host),
      clusters: length,
      after: published > counted ? published : counted,
      fresh,
      blank: false,
    }
  }

  /**
   * Give back clusters that nothing refers to, because the request that allocated them failed (H13). Never fails: what cannot be
   * given back is a leak, and the caller has a better error to report.
   */
  async cancel(allocation: Allocation): Promise<void> {
    const first = allocation.host / this.#parts.geometry.clusterSize
    await this.#lower(first, allocation.clusters).catch(() => undefined)
  }

  /** Set what is told of clusters that are about to be nobody's: of a count that goes down to 0 in the same step. They take no further reference. */
  onFreeing(freeing: (first: number, clusters: number) => void): void {
    this.#freeing = freeing
  }

  /** Clusters may lose their bytes before their counts go down: whoever still shares one out among several must not any more. */
  endSharing(first: number, clusters: number): void {
    this.#freeing(first, clusters)
  }

  /** Give back what is reserved ahead, and the end of the file with it. Only while no request runs. @throws ERR_IO, ERR_POISONED */
  async giveBackReserved(): Promise<void> {
    await this.#reservation.giveBack()
  }

  /** Clusters that have been counted, and that nothing has ever referred to, are free again. */
  async #lower(first: number, clusters: number): Promise<void> {
    const lower = (count: number, cluster: number): number => {
      if (count === 1) return 0
      // An entry of the image's has named it all along, and has been unlinked meanwhile, or shared.
      const at = cluster * this.#parts.geometry.clusterSize
      throw corrupt('refcount block', at, `a cluster that nothing referred to has refcount ${count}`)
    }
    await this.changeCounts(first, clusters, lower, (slice) => this.#parts.ordering.cancelReferences(slice))
  }

  /**
   * Change the counts of a run of clusters, slice by slice, each with its node in one step.
   * @param change  the new count of a cluster
   */
  async changeCounts(
    first: number,
    clusters: number,
    change: (count: number, cluster: number) => number,
    queue: (slice: Slice) => Section,
  ): Promise<void> {
    const { geometry, table, cache } = this.#parts
    for (let done = 0; done < clusters;) {
      const place = table.place(first + done)
      if (place === undefined) throw missingCount(first + done, geometry)
      const slice = cache.get(place.slice)
      if (slice === undefined) {
        await cache.load(place.slice)
        continue
      }
      const here = Math.min(clusters - done, geometry.refcountsPerSlice - place.index)
      for (let step = 0; step < here; step++) {
        const cluster = first + done + step
        const count = change(loadRefcount(slice.view, place.index + step, geometry), cluster)
        storeRefcount(slice.view, place.index + step, geometry, count)
        if (count > 0) continue
        this.#lowest = Math.min(this.#lowest, cluster)
        this.#freeing(cluster, 1)
      }
      queue(slice)
      done += here
    }
  }

  /** The count of a cluster if it is in memory: 0 where there is no block, undefined where it has to be loaded. */
  knownCount(cluster: number): number | undefined {
    const { table, cache, geometry } = this.#parts
    const place = table.place(cluster)
    if (place === undefined) return 0
    const slice = cache.get(place.slice)
    return slice && loadRefcount(slice.view, place.index, geometry)
  }

  /** The counts of a run of clusters. */
  async counts(first: number, clusters: number): Promise<number[]> {
    const { geometry, table, cache } = this.#parts
    const counts: number[] = []
    while (counts.length < clusters) {
      const place = table.place(first + counts.length)
      const slice = place && cache.get(place.slice)
      if (place === undefined) counts.push(0)
      else if (slice === undefined) await cache.load(place.slice)
      else counts.push(loadRefcount(slice.view, place.index, geometry))
    }
    return counts
  }
}

function missingCount(cluster: number, geometry: Geometry): Qcow2Error {
  return corrupt('refcount table', cluster * geometry.clusterSize, 'a cluster in use has no refcount block')
}
