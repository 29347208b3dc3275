import { corrupt, notSupported } from '../base/errors.js'
import { hostOffset, type Section } from '../base/units.js'
import { type Parts, withRoom } from './parts.js'
import { loadRefcount, storeRefcount } from './refcount-entry.js'
import type { Slice } from './table-cache.js'
import type { Step, TreeCounts } from './tree-counts.js'

/** A cluster, and by how much its count goes up or down. */
type Change = { readonly cluster: number; readonly by: number }

/** Runs of clusters that are handed to the deferred frees at a time. */
const runsAtOnce = 1024

/**
 * What replacing one tree of references by another does to the counts: those of clusters that gain references go up before the header
 * is switched, those of clusters that lose some go down after it. What both trees refer to alike stays as it is, so that no count is ever below
 * its references, nor higher than the more of before and after.
 */
export class CountChange {
  readonly #parts: Parts
  readonly #comes: TreeCounts | undefined
  readonly #goes: TreeCounts | undefined
  /** All clusters below it have been raised. */
  #raised = 0
  /** All clusters below it have been handed over to be freed. */
  #lowered = 0

  /**
   * @param comes  what is referred to once more afterwards
   * @param goes   what loses these references
   */
  constructor(parts: Parts, comes: TreeCounts | undefined, goes: TreeCounts | undefined) {
    this.#parts = parts
    this.#comes = comes
    this.#goes = goes
  }

  /**
   * See that the change can be made, before anything is.
   * @throws ERR_NOT_SUPPORTED  a count would be higher than the image's refcounts can say
   * @throws ERR_CORRUPT        a cluster is referred to more often than its count says
   */
  async check(): Promise<void> {
    const { geometry, allocator, backend } = this.#parts
    // Both trees are there now, and refer to it.
    const least = (cluster: number): number =>
      (this.#comes?.counts.get(cluster) ?? 0) + (this.#goes?.counts.get(cluster) ?? 0)
    for (const tree of [this.#comes, this.#goes]) {
      for (const cluster of tree?.counts.counted(0, Number.POSITIVE_INFINITY) ?? []) {
        const stored = allocator.knownCount(cluster) ?? (await this.#loaded(cluster))
        if (stored < least(cluster)) {
          const at = cluster * geometry.clusterSize
          throw corrupt('refcount block', at, `a cluster in use has refcount ${stored}`)
        }
        const by = this.#by(cluster)
        if (by <= geometry.refcountMax - stored) continue
        throw notSupported(
          `A refcount of ${geometry.refcountBits} bits cannot count ${stored + by} references to the cluster at offset ` +
            `${cluster * geometry.clusterSize}: no further snapshot is possible in this image`,
          { path: backend.path, offset: cluster * geometry.clusterSize, structure: 'refcount block' },
        )
      }
    }
  }

  /** Raise what gains references: nothing refers to it yet. @throws what `step` does; see `undo` */
  async raise(step: Step): Promise<void> {
    const { backend, geometry } = this.#parts
    await this.#eachSlice(this.#gaining(0), { mayWait: true }, (slice, changes) => {
      this.#apply(slice, changes, 1)
      this.#parts.ordering.addReferences(slice)
      this.#raised = (changes.at(-1)?.cluster ?? 0) + 1
      step(this.#raised * geometry.clusterSize, backend.length)
    })
  }

  /**
   * Take back what `raise` has done, after a failure in front of the switch. Does what it can: what stays up is a leak, and the
   * caller has a better error to report.
   */
  async undo(): Promise<void> {
    const raised = this.#raised
    this.#raised = 0
    // Not held up by a queue that has no room: that may be the failure.
    await this.#eachSlice(this.#gaining(0, raised), { mayWait: false }, (slice, changes) => {
      this.#apply(slice, changes, -1)
      this.#parts.ordering.cancelReferences(slice)
    }).catch(() => undefined)
  }

  /**
   * Lower what loses references, which are gone for good. May be called again after a failure: goes on where it was.
   * @param removal  the section of the header's switch
   */
  async lower(removal: Section): Promise<void> {
    const { frees, geometry } = this.#parts
    let runs = 0
    let run: { first: number; clusters: number; by: number } | undefined
    const hand = (): void => {
      if (run === undefined) return
      const host = hostOffset(run.first * geometry.clusterSize)
      for (let times = 0; times < run.by; times++) {
        frees.add(host, run.clusters * geometry.clusterSize, { removal, punch: true, wasTable: false })
      }
      this.#lowered = run.first + run.clusters
      runs++
    }
    await frees.settled()
    for (const { cluster, by } of this.#losing(this.#lowered)) {
      if (run?.by === by && run.first + run.clusters === cluster) {
        run.clusters++
        continue
      }
      hand()
      run = { first: cluster, clusters: 1, by }
      if (runs < runsAtOnce) continue
      await frees.settled()
      runs = 0
    }
    hand()
    await frees.settled()
  }

  #by(cluster: number): number {
    return (this.#comes?.counts.get(cluster) ?? 0) - (this.#goes?.counts.get(cluster) ?? 0)
  }

  *#gaining(from: number, to: number = Number.POSITIVE_INFINITY): Generator<Change> {
    for (const cluster of this.#comes?.counts.counted(from, to) ?? []) {
      const by = this.#by(cluster)
      if (by > 0) yield { cluster, by }
    }
  }

  *#losing(from: number): Generator<Change> {
    for (const cluster of this.#goes?.counts.counted(from, Number.POSITIVE_INFINITY) ?? []) {
      const by = -this.#by(cluster)
      if (by > 0) yield { cluster, by }
    }
  }

  /** Go through changes slice of counts by slice, each in one step with its node. */
  async #eachSlice(
    changes: Iterable<Change>,
    room: { readonly mayWait: boolean },
    visit: (slice: Slice, changes: readonly Change[]) => void,
  ): Promise<void> {
    let batch: Change[] = []
    for (const change of changes) {
      const before = batch.at(-1)
      if (before !== undefined && this.#sliceOf(before.cluster) !== this.#sliceOf(change.cluster)) {
        await this.#visitSlice(batch, room, visit)
        batch = []
      }
      batch.push(change)
    }
    if (batch.length > 0) await this.#visitSlice(batch, room, visit)
  }

  async #visitSlice(
    batch: readonly Change[],
    room: { readonly mayWait: boolean },
    visit: (slice: Slice, changes: readonly Change[]) => void,
  ): Promise<void> {
    const { geometry, cache, table } = this.#parts
    await withRoom(this.#parts, room, async () => {
      const cluster = batch[0]?.cluster ?? 0
      const place = table.place(cluster)
      if (place === undefined) throw missingCount(cluster * geometry.clusterSize)
      let slice = cache.get(place.slice)
      for (; slice === undefined; slice = cache.get(place.slice)) await cache.load(place.slice)
      visit(slice, batch)
    })
  }

  #apply(slice: Slice, changes: readonly Change[], sign: 1 | -1): void {
    const { geometry, table } = this.#parts
    for (const { cluster, by } of changes) {
      const index = table.place(cluster)?.index
      if (index === undefined) throw missingCount(cluster * geometry.clusterSize)
      const count = loadRefcount(slice.view, index, geometry) + sign * by
      storeRefcount(slice.view, index, geometry, count)
    }
  }

  #sliceOf(cluster: number): number {
    return Math.floor(cluster / this.#parts.geometry.refcountsPerSlice)
  }

  async #loaded(cluster: number): Promise<number> {
    const { table, cache, allocator } = this.#parts
    for (;;) {
      const count = allocator.knownCount(cluster)
      if (count !== undefined) return count
      const place = table.place(cluster)
      if (place !== undefined) await cache.load(place.slice)
    }
  }
}

function missingCount(at: number): Error {
  return corrupt('refcount table', at, 'a cluster in use has no refcount block')
}
