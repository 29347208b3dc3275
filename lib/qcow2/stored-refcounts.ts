import { isReadable, refcountBlockOffset } from './check-refcounts.js'
import type { CheckState } from './check-state.js'
import { entryBytes } from './geometry.js'
import { loadRefcount } from './refcount-entry.js'

/** Slices of refcount blocks that are kept; few clusters need one. */
const slicesKept = 256

/**
 * The stored refcount of any cluster, whether or not something refers to it. Most are known from the comparison; the rest
 * (entries that point past the end of the file, or to clusters that were not counted) are read.
 */
export class StoredRefcounts {
  readonly #state: CheckState
  readonly #slices = new Map<number, DataView>()

  /** @param state  its counts hold what is stored, for every cluster that is referred to: see settleRefcounts */
  constructor(state: CheckState) {
    this.#state = state
  }

  /** Without reading; undefined: ask `get`. */
  known(cluster: number): number | undefined {
    const count = this.#state.counts.get(cluster)
    return count === 0 ? undefined : count
  }

  /** @returns undefined where the refcount block cannot be read */
  async get(cluster: number): Promise<number | undefined> {
    const known = this.known(cluster)
    if (known !== undefined) return known
    const { geometry, header } = this.#state
    const tableIndex = Math.floor(cluster / geometry.refcountsPerBlock)
    if (tableIndex >= (header.refcountTableClusters * geometry.clusterSize) / entryBytes) return 0
    const sliceEntries = geometry.sliceSize / entryBytes
    const tableSlice = await this.#slice(
      header.refcountTableOffset + Math.floor(tableIndex / sliceEntries) * geometry.sliceSize,
    )
    const block = refcountBlockOffset(tableSlice, tableIndex % sliceEntries)
    if (block === 0) return 0
    if (!isReadable(block, geometry.clusterSize)) return undefined
    const within = cluster % geometry.refcountsPerBlock
    const slice = await this.#slice(
      block + Math.floor(within / geometry.refcountsPerSlice) * geometry.sliceSize,
    )
    return loadRefcount(slice, within % geometry.refcountsPerSlice, geometry)
  }

  async #slice(offset: number): Promise<DataView> {
    const kept = this.#slices.get(offset)
    if (kept !== undefined) return kept
    const bytes = new Uint8Array(this.#state.geometry.sliceSize)
    if (offset < this.#state.backend.length) await this.#state.backend.readQueued(bytes, offset)
    if (this.#slices.size >= slicesKept) this.#slices.clear()
    const view = new DataView(bytes.buffer)
    this.#slices.set(offset, view)
    return view
  }
}
