import type { ReferenceCounts } from './check-counts.js'

/** Adjacent clusters that have to stay so: a table in one piece, or compressed clusters each of which reaches into the next host cluster. Most are one cluster. */
export type Unit = { readonly first: number; readonly clusters: number }

/** Where a unit goes. */
export type Move = Unit & { readonly to: number }

/**
 * What stands where in a file that is compacted: how often each cluster is referred to, what belongs together, what stays where it is. Memory follows the
 * clusters in use.
 */
export class ClusterMap {
  /** As stored, and as referred to: the image is sound. */
  readonly counts: ReferenceCounts
  /** 1: the next cluster belongs to the same unit. */
  readonly #joined: ReferenceCounts
  /** Never moved. */
  readonly #fixed: Unit[] = []

  /** @param joined  empty */
  constructor(counts: ReferenceCounts, joined: ReferenceCounts) {
    this.counts = counts
    this.#joined = joined
  }

  /** These clusters belong together. */
  join({ first, clusters }: Unit): void {
    for (let step = 0; step < clusters - 1; step++) this.#joined.set(first + step, 1)
  }

  /** These clusters stay where they are. */
  fix(unit: Unit): void {
    this.join(unit)
    this.#fixed.push(unit)
  }

  isFixed(cluster: number): boolean {
    return this.#fixed.some(({ first, clusters }) => cluster >= first && cluster < first + clusters)
  }

  isFree(cluster: number): boolean {
    return this.counts.get(cluster) === 0
  }

  /** The unit of a cluster that is in use. */
  unitAt(cluster: number): Unit {
    let first = cluster
    while (first > 0 && this.#joined.get(first - 1) !== 0) first--
    let end = cluster + 1
    while (this.#joined.get(end - 1) !== 0) end++
    return { first, clusters: end - first }
  }

  /** The units that have a cluster at or behind `from`, in order. The map must not change meanwhile. */
  *units(from: number): Generator<Unit> {
    let next = from
    for (const cluster of this.counts.counted(from, Number.POSITIVE_INFINITY)) {
      if (cluster < next) continue
      const unit = this.unitAt(cluster)
      next = unit.first + unit.clusters
      yield unit
    }
  }

  /** Runs of free clusters below `end`, in order. The map must not change meanwhile. */
  *freeRuns(end: number): Generator<Unit> {
    let next = 0
    for (const cluster of this.counts.counted(0, end)) {
      if (cluster > next) yield { first: next, clusters: cluster - next }
      next = cluster + 1
    }
    if (end > next) yield { first: next, clusters: end - next }
  }

  /** How many clusters are in use, and how many the file needs for them where they are. */
  extent(): { used: number; end: number } {
    let used = 0
    let end = 0
    for (const cluster of this.counts.counted(0, Number.POSITIVE_INFINITY)) {
      used++
      end = cluster + 1
    }
    return { used, end }
  }

  /** A unit stands somewhere else from now on; of the counts that is the caller's affair. */
  moved({ first, clusters, to }: Move): void {
    for (let step = 0; step < clusters - 1; step++) this.#joined.set(first + step, 0)
    this.join({ first: to, clusters })
  }
}
