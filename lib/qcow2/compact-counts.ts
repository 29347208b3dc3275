import { assert } from '../base/assert.js'
import { alignDown } from '../base/integers.js'
import type { BlockBackend } from '../queue/backend.js'
import { refcountBlockOffset } from './check-refcounts.js'
import { readEntries } from './check-tables.js'
import type { ClusterMap } from './compact-map.js'
import type { CompactOrdering } from './compact-ordering.js'
import { entryBytes, type Geometry } from './geometry.js'
import type { Header } from './header.js'
import { storeRefcount } from './refcount-entry.js'

/**
 * The refcounts of a file that is compacted. What they are stands in the map; here they are written, slice by slice as the map has them, to the blocks where
 * these stand now.
 */
export class CompactCounts {
  readonly #backend: BlockBackend
  readonly #geometry: Geometry
  readonly #map: ClusterMap
  readonly #ordering: CompactOrdering
  /** Of slices, counted through all blocks: what is not written yet. */
  readonly #changed = new Set<number>()
  #tableOffset = 0
  /** By index in the refcount table, byte offsets; 0: none. */
  #blocks = new Float64Array(0)

  constructor(backend: BlockBackend, geometry: Geometry, map: ClusterMap, ordering: CompactOrdering) {
    this.#backend = backend
    this.#geometry = geometry
    this.#map = map
    this.#ordering = ordering
  }

  /** Read where the blocks are: at first, and when they or the table have been moved. */
  async load(header: Header): Promise<void> {
    this.#tableOffset = header.refcountTableOffset
    const entries = (header.refcountTableClusters * this.#geometry.clusterSize) / entryBytes
    this.#blocks = new Float64Array(entries)
    for await (const { first, count, view } of readEntries(this.#backend, this.#tableOffset, entries)) {
      for (let index = 0; index < count; index++)
        this.#blocks[first + index] = refcountBlockOffset(view, index)
    }
  }

  set(cluster: number, count: number): void {
    this.#map.counts.set(cluster, count)
    this.#changed.add(Math.floor(cluster / this.#geometry.refcountsPerSlice))
  }

  /** Write what has been set; resolves when written. */
  async write(): Promise<void> {
    for (const slice of this.#changed) {
      const { refcountsPerSlice, refcountsPerBlock, sliceSize } = this.#geometry
      const first = slice * refcountsPerSlice
      const block = this.#blocks[Math.floor(first / refcountsPerBlock)] ?? 0
      const within = ((first % refcountsPerBlock) / refcountsPerSlice) * sliceSize
      // Of a block that is gone nothing is left to be counted.
      if (block !== 0) await this.#backend.write(this.#encoded(first, sliceSize), block + within)
      this.#changed.delete(slice)
    }
  }

  #encoded(first: number, bytes: number): Uint8Array {
    const counts = new Uint8Array(bytes)
    const view = new DataView(counts.buffer)
    const end = first + (bytes * 8) / this.#geometry.refcountBits
    for (const cluster of this.#map.counts.counted(first, end))
      storeRefcount(view, cluster - first, this.#geometry, this.#map.counts.get(cluster))
    return counts
  }

  /** Below which end everything that is in use would fit: as many clusters, and a block for those among them that have none. */
  leastEnd(used: number): number {
    const { refcountsPerBlock } = this.#geometry
    let end = used
    for (let index = 0; index * refcountsPerBlock < end; index++) if (this.#blocks[index] === 0) end++
    return end
  }

  /**
   * See that clusters have blocks which count them. Where one is missing all that it would count is free: it goes to the first of these, and counts itself.
   * @returns whether the refcount table has room for all of them; if not, nothing was done
   */
  async provide(from: number, to: number): Promise<boolean> {
    const { refcountsPerBlock, clusterSize } = this.#geometry
    if (to > this.capacity) return false
    const missing: number[] = []
    for (let index = Math.floor(from / refcountsPerBlock); index * refcountsPerBlock < to; index++)
      if (this.#blocks[index] === 0) missing.push(index)
    if (missing.length === 0) return true
    for (const index of missing) {
      const home = index * refcountsPerBlock
      assert(this.#map.isFree(home), 'without a block nothing is counted')
      this.#map.counts.set(home, 1)
      await this.#backend.write(this.#encoded(home, clusterSize), home * clusterSize)
    }
    await this.#ordering.blockWritten()
    for (const index of missing) this.#blocks[index] = index * refcountsPerBlock * clusterSize
    await this.#writeEntries(missing)
    return true
  }

  /** Clusters that the refcount table has entries for. */
  get capacity(): number {
    return this.#blocks.length * this.#geometry.refcountsPerBlock
  }

  /** The blocks that count nothing but themselves, by index. */
  unused(): number[] {
    const { refcountsPerBlock, clusterSize } = this.#geometry
    const unused: number[] = []
    for (const [index, block] of this.#blocks.entries()) {
      if (block === 0) continue
      const first = index * refcountsPerBlock
      let counts = false
      for (const cluster of this.#map.counts.counted(first, first + refcountsPerBlock)) {
        counts = cluster !== block / clusterSize
        if (counts) break
      }
      if (!counts) unused.push(index)
    }
    return unused
  }

  /** Give up blocks that count nothing but themselves. */
  async drop(unused: readonly number[]): Promise<void> {
    const homes = unused.map((index) => (this.#blocks[index] ?? 0) / this.#geometry.clusterSize)
    for (const index of unused) this.#blocks[index] = 0
    await this.#writeEntries(unused)
    await this.#ordering.blocksDropped()
    for (const home of homes) this.set(home, 0)
    await this.write()
  }

  async #writeEntries(indexes: readonly number[]): Promise<void> {
    const perSlice = this.#geometry.sliceSize / entryBytes
    for (const first of new Set(indexes.map((index) => alignDown(index, perSlice)))) {
      const bytes = new Uint8Array(this.#geometry.sliceSize)
      const view = new DataView(bytes.buffer)
      for (const [step, block] of this.#blocks.subarray(first, first + perSlice).entries()) {
        view.setUint32(step * entryBytes, Math.floor(block / 2 ** 32))
        view.setUint32(step * entryBytes + 4, block % 2 ** 32)
      }
      await this.#backend.write(bytes, this.#tableOffset + first * entryBytes)
    }
  }
}
