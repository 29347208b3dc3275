import { Qcow2Error } from '../base/errors.js'

/** Counts of neighbouring clusters stand together: one entry of the index for this many. */
const clustersPerChunk = 256
/** Few: a small image's counts are not worth pages of their own. */
const chunksPerSlab = 64
/** What one chunk costs: its counts, and its entry in the index. */
const bytesPerChunk = clustersPerChunk + 48
/** Held in the byte of a cluster whose count stands in the overflow map. */
export const standsApart = 255

/** Of clusters that nothing refers to. */
const noCounts = new Uint8Array(clustersPerChunk)

/**
 * How often each cluster of a file is referred to. Memory follows the clusters that are referred to, never the length of the
 * file: a sparse file of many terabytes costs what its few tables cost. One byte a cluster; counts of 255 and more, which only
 * small compressed clusters and many snapshots bring about, stand apart.
 */
export class ReferenceCounts {
  /** How many clusters' counts stand together, from a multiple of it on. */
  static readonly perChunk = clustersPerChunk
  readonly #limitBytes: number
  readonly #index = new Map<number, number>()
  readonly #slabs: Uint8Array[] = []
  readonly #large = new Map<number, number>()
  #sortedChunks: number[] | undefined
  /** What was looked at last: neighbours come one after the other. */
  #base = -Infinity
  #chunk: Uint8Array = noCounts

  readonly #purpose: string

  /**
   * @param limitBytes  memory that counts may take
   * @param purpose     what they are taken for, for the message when that is too little
   */
  constructor(limitBytes: number, purpose = 'Checking this image') {
    this.#limitBytes = limitBytes
    this.#purpose = purpose
  }

  get(cluster: number): number {
    const count = this.chunkOf(cluster)[cluster - this.#base] as number
    return count === standsApart ? (this.#large.get(cluster) ?? standsApart) : count
  }

  /** @throws ERR_NOT_SUPPORTED  more memory is needed than allowed */
  set(cluster: number, count: number): void {
    const chunk = this.#ownChunkOf(cluster)
    if (count >= standsApart) this.#large.set(cluster, count)
    chunk[cluster - this.#base] = Math.min(count, standsApart)
  }

  /**
   * Count one more.
   * @returns false where there are `max` already; nothing is changed then
   * @throws as `set`
   */
  increment(cluster: number, max: number): boolean {
    const chunk = this.#ownChunkOf(cluster)
    const count = chunk[cluster - this.#base] as number
    if (count < max && count < standsApart - 1) {
      chunk[cluster - this.#base] = count + 1
      return true
    }
    const exact = this.get(cluster)
    if (exact >= max) return false
    this.set(cluster, exact + 1)
    return true
  }

  /**
   * Count one more of each of a run of clusters.
   * @returns how many of them, from the first on: up to one that has `max` already, or more than its byte can say. That and those behind it are `increment`'s
   * @throws as `set`
   */
  incrementRun(first: number, clusters: number, max: number): number {
    const most = Math.min(max, standsApart - 1)
    for (let done = 0; done < clusters;) {
      const chunk = this.#ownChunkOf(first + done)
      const from = first + done - this.#base
      const to = Math.min(clustersPerChunk, from + clusters - done)
      for (let at = from; at < to; at++) {
        const count = chunk[at] as number
        if (count >= most) return done + at - from
        chunk[at] = count + 1
      }
      done += to - from
    }
    return clusters
  }

  /**
   * The counts that stand together with a cluster's, `#base` being the first one's, a byte each; of one that stands apart, `standsApart`. Good until the
   * next is set, and not to be written to.
   */
  chunkOf(cluster: number): Uint8Array {
    const within = cluster - this.#base
    if (within >= 0 && within < clustersPerChunk) return this.#chunk
    const chunk = Math.floor(cluster / clustersPerChunk)
    const slot = this.#index.get(chunk)
    return this.#see(chunk, slot === undefined ? noCounts : this.#bytesOf(slot))
  }

  /** The clusters from `from` to below `to` whose count is not 0, in order. */
  *counted(from: number, to: number): Generator<number> {
    this.#sortedChunks ??= [...this.#index.keys()].sort((left, right) => left - right)
    const chunks = this.#sortedChunks
    for (let at = lowerBound(chunks, Math.floor(from / clustersPerChunk)); at < chunks.length; at++) {
      const first = (chunks[at] ?? 0) * clustersPerChunk
      if (first >= to) return
      const end = Math.min(to, first + clustersPerChunk)
      for (let cluster = Math.max(from, first); cluster < end; cluster++) {
        if (this.get(cluster) !== 0) yield cluster
      }
    }
  }

  /** As chunkOf, to be written to. */
  #ownChunkOf(cluster: number): Uint8Array {
    const chunk = this.chunkOf(cluster)
    return chunk === noCounts ? this.#add(Math.floor(cluster / clustersPerChunk)) : chunk
  }

  #see(chunk: number, counts: Uint8Array): Uint8Array {
    this.#base = chunk * clustersPerChunk
    this.#chunk = counts
    return counts
  }

  #add(chunk: number): Uint8Array {
    const slot = this.#index.size
    if ((slot + 1) * bytesPerChunk > this.#limitBytes) {
      const what = `${this.#purpose} needs more than ${this.#limitBytes} bytes of memory`
      throw new Qcow2Error('ERR_NOT_SUPPORTED', `${what}: it refers to too many scattered clusters`)
    }
    if (slot % chunksPerSlab === 0) this.#slabs.push(new Uint8Array(chunksPerSlab * clustersPerChunk))
    this.#index.set(chunk, slot)
    this.#sortedChunks = undefined
    return this.#see(chunk, this.#bytesOf(slot))
  }

  #bytesOf(slot: number): Uint8Array {
    const first = (slot % chunksPerSlab) * clustersPerChunk
    const slab = this.#slabs[Math.floor(slot / chunksPerSlab)] as Uint8Array
    return slab.subarray(first, first + clustersPerChunk)
  }
}

/** Index of the first element that is not below `value`. */
function lowerBound(sorted: readonly number[], value: number): number {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((sorted[middle] ?? 0) < value) low = middle + 1
    else high = middle
  }
  return low
}
