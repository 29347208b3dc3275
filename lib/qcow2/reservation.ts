import { hostOffset, noSection, type Section } from '../base/units.js'
import { alignedBytes } from '../native/aligned-memory.js'
import type { PreallocationMode } from '../queue/format-image.js'
import type { Allocation, RefcountParts } from './refcount-parts.js'
import type { Geometry } from './geometry.js'
import { freeRun, storeRefcount } from './refcount-entry.js'
import type { RefcountGrowth } from './refcount-growth.js'

/** Clusters that are counted and that nothing refers to: from `first` up to, not with, `end`. */
type Run = {
  first: number
  readonly end: number
  /** Whatever refers to them comes after this section. */
  readonly counted: Section
  /** The file durably reaches behind them, and shows zeros there, when this section is durable. */
  readonly extended: Section
}

/** How space that is reserved is made ready, in QEMU's words. */
export type ReservationPreallocation = Extract<PreallocationMode, 'falloc' | 'full'>

export type ReservationOptions = {
  /** Clusters whose counts are raised ahead of need; 0: none. Default 4 MiB, but 8 to 64 clusters. */
  readonly reservation?: number
  /** 'falloc', the default: their space is allocated on the host; 'full': zeros are written there too, while writes are flushed one by one. */
  readonly preallocation?: ReservationPreallocation
}

/** Of clusters. */
const defaultBytes = 4 * 1024 * 1024

/** Zeros are written in pieces of at most this many bytes: guests' writes get their turn between them. */
const pieceBytes = 256 * 1024

/** Most zeros that are written for each sync since the last reservation. Bytes: one new cluster of the usual size for a sync pays, two do not. */
const mostZerosPerSync = 96 * 1024

export function defaultReservation({ clusterSize }: Geometry): number {
  return Math.min(Math.max(defaultBytes / clusterSize, 8), 64)
}

/**
 * Refcount reservation: the counts of the next clusters at the end of the file are raised ahead of need, and the file is extended over
 * them, on the back of a flush that is due anyway. An allocating write that takes such a cluster then depends on no count, and if what it replaces reads as
 * zeros, on nothing at all: its mapping may be durable before its bytes are, for until then the cluster shows zeros too (`Allocation.blank`).
 *
 * Only behind everything that was ever submitted: nothing can be there but zeros. A crash leaks at most what is reserved; `giveBack` ends it.
 */
export class Reservation {
  readonly #parts: RefcountParts
  readonly #growth: RefcountGrowth
  readonly #clusters: number
  readonly #writesZeros: boolean
  readonly #lower: (first: number, clusters: number) => Promise<void>
  /** That the backend had made when the last reservation began. */
  #syncs = 0
  /** To be taken from, in this order. None is empty. */
  #runs: Run[] = []
  #extending: Promise<void> | undefined
  /** After a failure: what the end of the file must have reached before it is tried again. */
  #notBefore = 0

  /** @param lower  lowers the counts of clusters that nothing refers to */
  constructor(
    parts: RefcountParts,
    growth: RefcountGrowth,
    { reservation = defaultReservation(parts.geometry), preallocation = 'falloc' }: ReservationOptions,
    lower: (first: number, clusters: number) => Promise<void>,
  ) {
    this.#parts = parts
    this.#growth = growth
    this.#lower = lower
    // Where nothing is ever synced there is nothing to save, and a device has no end where nothing ever stood.
    const { syncPolicy, isDevice = false } = parts.backend
    this.#clusters = syncPolicy === 'never' || isDevice ? 0 : reservation
    this.#writesZeros = preallocation === 'full'
  }

  /** The next cluster to be taken; infinite when there is none. */
  get first(): number {
    return this.#runs[0]?.first ?? Number.POSITIVE_INFINITY
  }

  /** Take 1 to `most` adjacent clusters. @throws ERR_CORRUPT: a table of the image claims them */
  take(most: number): Allocation | undefined {
    const { backend, geometry, metadata } = this.#parts
    const run = this.#runs[0]
    if (run === undefined) return undefined
    const clusters = Math.min(most, run.end - run.first)
    const host = hostOffset(run.first * geometry.clusterSize)
    metadata.refuse('a new cluster', host, clusters * geometry.clusterSize)
    run.first += clusters
    if (run.first === run.end) this.#runs.shift()
    this.renew()
    const { durableSection } = backend
    const after = run.counted <= durableSection ? noSection : run.counted
    return { host, clusters, after, fresh: true, blank: run.extended <= durableSection }
  }

  /** Reserve more if half is gone. Counts are queued at once, and wait for the next flush; the file is extended meanwhile. */
  renew(): void {
    if (this.#clusters > 0 && this.#extending === undefined && this.#left() * 2 <= this.#clusters)
      this.#reserve()
  }

  /** Apart: a call makes what the closures of a function share, whether it comes to them or not. */
  #reserve(): void {
    const { backend, geometry, table, cache, ordering } = this.#parts
    const end = Math.ceil(backend.length / geometry.clusterSize)
    const place = table.place(end)
    if (place === undefined || end < this.#notBefore || backend.poisoned !== undefined) return
    const slice = cache.get(place.slice)
    if (slice === undefined) {
      // In the background: the next allocation asks again, and meets the error if there is one.
      cache.load(place.slice).catch(() => undefined)
      return
    }
    const free = freeRun(slice.view, place.index, this.#clusters, geometry)
    if (free === undefined) return
    const first = end + free.index - place.index
    const host = first * geometry.clusterSize
    const length = free.length * geometry.clusterSize
    if (!Number.isSafeInteger(host + length)) return

    for (let step = 0; step < free.length; step++) storeRefcount(slice.view, free.index + step, geometry, 1)
    const queued = ordering.addReferences(slice)
    const published = this.#growth.publishedAfter(first)
    const counted = published > queued ? published : queued
    const ready = this.#mayWriteZeros(length)
      ? this.#writeZeros(host, length)
      : backend.allocate(host, length)
    this.#extending = ready
      .then(
        () => {
          const extended = ordering.durableWithData()
          this.#runs.push({ first, end: first + free.length, counted, extended })
        },
        async () => {
          // No room ahead of need: need itself will say so.
          this.#notBefore = first + this.#clusters
          await this.#lower(first, free.length)
        },
      )
      // The counts stay up: a leak, and the same error will meet a request that can tell of it.
      .catch(() => undefined)
      .finally(() => {
        this.#extending = undefined
      })
  }

  /** Whether so many bytes of zeros are worth while: for whoever flushes each write, but not for a stream without flushes, nor for many writers who share syncs. */
  #mayWriteZeros(length: number): boolean {
    if (!this.#writesZeros) return false
    const { syncsIssued } = this.#parts.backend.stats()
    const syncs = syncsIssued - this.#syncs
    this.#syncs = syncsIssued
    return length <= syncs * mostZerosPerSync
  }

  /**
   * Extend the file, and write zeros there: what is written to that space later, and its sync, change no extent of the host's file. For crashes it changes nothing: whichever
   * of these zeros a crash loses, the space reads as zeros without them, so that no barrier stands behind them. But nobody may have the clusters before they are
   * written: they would come over a guest's bytes.
   */
  async #writeZeros(host: number, length: number): Promise<void> {
    const { backend } = this.#parts
    await backend.allocate(host, length)
    const zeros = alignedBytes(Math.min(pieceBytes, length))
    for (let done = 0; done < length; done += pieceBytes)
      await backend.write(zeros.subarray(0, length - done), host + done)
  }

  /** Give back what nobody took, and the end of the file. Only while no request runs. @throws ERR_IO, ERR_POISONED */
  async giveBack(): Promise<void> {
    const { backend, geometry } = this.#parts
    await this.#extending
    let { length } = backend
    for (let run = this.#runs.pop(); run !== undefined; run = this.#runs.pop()) {
      await this.#lower(run.first, run.end - run.first)
      if (length !== run.end * geometry.clusterSize) continue
      length = run.first * geometry.clusterSize
      await backend.truncate(length)
    }
  }

  #left(): number {
    let left = 0
    for (const run of this.#runs) left += run.end - run.first
    return left
  }
}
