import { Qcow2Error } from '../base/errors.js'

/** Counts of neighbouring clusters stand together: one entry of the index for this many. */
const clustersPerChunk = 256
const chunksPerSlab = 4096
/** What one chunk costs: its counts, and its entry in the index. */
const bytesPerChunk = clustersPerChunk + 48
/** Held in the byte of a cluster whose count stands in the overflow map. */
const overflowed = 255

/**
 * How often each cluster of a file is referred to. Memory follows the clusters that are referred to, never the length of the
 * file: a sparse file of many terabytes costs what its few tables cost. One byte a cluster; counts of 255 and more, which only
 * small compressed clusters and many snapshots bring about, stand apart.
 */
export class ReferenceCounts {
  readonly #limitBytes: number
  readonly #index = new Map<number, number>()
  readonly #slabs: Uint8Array[] = []
  readonly #large = new Map<number, number>()
  #sortedChunks: number[] | undefined
  #lastChunk = -1
  #lastSlot = -1

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
    const slot = this.#find(Math.floor(cluster / clustersPerChunk))
    if (slot === undefined) return 0
    const count = this.#slab(slot)[this.#within(slot, cluster)] ?? 0
    return count === overflowed ? (this.#large.get(cluster) ?? overflowed) : count
  }

  /** @throws ERR_NOT_SUPPORTED  more memory is needed than allowed */
  set(cluster: number, count: number): void {
    const chunk = Math.floor(cluster / clustersPerChunk)
    const slot = this.#find(chunk) ?? this.#add(chunk)
    if (count >= overflowed) this.#large.set(cluster, count)
    this.#slab(slot)[this.#within(slot, cluster)] = Math.min(count, overflowed)
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

  #find(chunk: number): number | undefined {
    if (chunk === this.#lastChunk) return this.#lastSlot
    const slot = this.#index.get(chunk)
    if (slot !== undefined) {
      this.#lastChunk = chunk
      this.#lastSlot = slot
    }
    return slot
  }

  #add(chunk: number): number {
    const slot = this.#index.size
    if ((slot + 1) * bytesPerChunk > this.#limitBytes) {
      const what = `${this.#purpose} needs more than ${this.#limitBytes} bytes of memory`
      throw new Qcow2Error('ERR_NOT_SUPPORTED', `${what}: it refers to too many scattered clusters`)
    }
    if (slot % chunksPerSlab === 0) this.#slabs.push(new Uint8Array(chunksPerSlab * clustersPerChunk))
    this.#index.set(chunk, slot)
    this.#sortedChunks = undefined
    return slot
  }

  #slab(slot: number): Uint8Array {
    return this.#slabs[Math.floor(slot / chunksPerSlab)] as Uint8Array
  }

  #within(slot: number, cluster: number): number {
    return (slot % chunksPerSlab) * clustersPerChunk + (cluster % clustersPerChunk)
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
