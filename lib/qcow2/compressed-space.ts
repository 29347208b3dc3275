import { alignUp, isAligned } from '../base/integers.js'
import { hostOffset, noSection, type HostOffset, type Section, sectorSize } from '../base/units.js'
import type { Allocator } from './allocator.js'
import { clusterOf } from './geometry.js'
import { loadRefcount, storeRefcount } from './refcount-entry.js'
import type { RefcountParts } from './refcount-parts.js'

/** Where the bytes of a compressed cluster go. */
export type CompressedPlace = {
  /** Of the first byte; any alignment. */
  readonly host: HostOffset
  readonly bytes: number
  /** What maps them comes after this section. */
  readonly after: Section
}

/**
 * Packs compressed clusters one behind the other, at any byte. Each of them holds one reference to every host cluster that it touches.
 * qcow2 spec, "Compressed Clusters Descriptor".
 *
 * State changes only between awaits, as in the allocator.
 */
export class CompressedSpace {
  readonly #parts: RefcountParts
  readonly #allocator: Allocator
  /** Behind the last one, within its last host cluster; 0: that is full, or gone. */
  #end = 0
  /** Of that host cluster. */
  #after: Section = noSection
  /** Behind all of them. */
  #furthest = 0
  /** They come one after the other: each begins where the one before it ends. */
  #turn: Promise<void> = Promise.resolve()

  constructor(parts: RefcountParts, allocator: Allocator) {
    this.#parts = parts
    this.#allocator = allocator
    // Its next owner is somebody else.
    allocator.onFreeing((first, clusters) => {
      const last = this.#end > 0 ? clusterOf(parts.geometry, this.#end) : -1
      if (last >= first && last < first + clusters) this.#end = 0
    })
  }

  /** Find room for 1 to `cluster size - 1` bytes. @throws ERR_NO_SPACE, ERR_IO, ERR_CORRUPT */
  allocate(bytes: number): Promise<CompressedPlace> {
    const place = this.#turn.then(() => this.#allocate(bytes))
    this.#turn = place.then(
      () => undefined,
      () => undefined,
    )
    return place
  }

  async #allocate(bytes: number): Promise<CompressedPlace> {
    const { clusterSize } = this.#parts.geometry
    await this.#loadCount()
    if (this.#end > 0 && bytes <= clusterSize - (this.#end % clusterSize) && this.#share()) {
      return this.#place(this.#end, bytes)
    }
    const next = await this.#allocator.allocate(1)
    await this.#loadCount()
    // What is left in the last cluster serves too, if the new one stands right behind it.
    const isBehind = this.#end > 0 && this.#end - (this.#end % clusterSize) + clusterSize === next.host
    const start = isBehind && this.#share() ? this.#end : next.host
    if (next.after > this.#after || start === next.host) this.#after = next.after
    return this.#place(start, bytes)
  }

  /** Give up a place that nothing refers to, because its bytes could not be written. Never fails: what is not given back is a leak. */
  async cancel({ host, bytes }: CompressedPlace): Promise<void> {
    const { geometry, ordering } = this.#parts
    const first = clusterOf(geometry, host)
    const clusters = clusterOf(geometry, host + bytes - 1) - first + 1
    await this.#allocator
      .changeCounts(
        first,
        clusters,
        (count) => count - 1,
        (slice) => ordering.cancelReferences(slice),
      )
      .catch(() => undefined)
  }

  /** Where the file ends with a compressed cluster, let it end with a sector: entries count in these. Only while no request runs. */
  async padFile(): Promise<void> {
    const { backend } = this.#parts
    if (backend.length === this.#furthest && !isAligned(this.#furthest, sectorSize)) {
      await backend.truncate(alignUp(this.#furthest, sectorSize))
    }
  }

  /** Bring the count of the last cluster into memory. */
  async #loadCount(): Promise<void> {
    const { geometry, table, cache } = this.#parts
    while (this.#end > 0) {
      const place = table.place(clusterOf(geometry, this.#end))
      if (place === undefined || cache.get(place.slice) !== undefined) return
      await cache.load(place.slice)
    }
  }

  /** Count one more reference to the last cluster. @returns false when its count can go no higher */
  #share(): boolean {
    const { geometry, table, cache, ordering } = this.#parts
    const place = table.place(clusterOf(geometry, this.#end))
    const slice = place && cache.get(place.slice)
    if (place === undefined || slice === undefined) return false
    const count = loadRefcount(slice.view, place.index, geometry)
    if (count >= geometry.refcountMax) return false
    storeRefcount(slice.view, place.index, geometry, count + 1)
    const counted = ordering.addReferences(slice)
    if (counted > this.#after) this.#after = counted
    return true
  }

  #place(start: number, bytes: number): CompressedPlace {
    const { clusterSize } = this.#parts.geometry
    const end = start + bytes
    this.#end = end % clusterSize === 0 ? 0 : end
    this.#furthest = Math.max(this.#furthest, end)
    return { host: hostOffset(start), bytes, after: this.#after }
  }
}
