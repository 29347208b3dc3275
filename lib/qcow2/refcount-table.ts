import { corrupt } from '../base/errors.js'
import { alignDown, isAligned } from '../base/integers.js'
import { type HostOffset, hostOffset } from '../base/units.js'
import { entryBytes, type Geometry } from './geometry.js'
import type { TableBytes } from './write-ordering.js'

/** Where the count of a cluster stands. */
export type RefcountPlace = { readonly slice: HostOffset; readonly index: number }

/** The refcount table, whole in memory (at most 8 MiB): which refcount block counts which clusters. qcow2 spec, "Refcount table". */
export class RefcountTable {
  readonly #geometry: Geometry
  #host: HostOffset
  #bytes: Uint8Array
  #view: DataView

  /** @param bytes  the table as on disk, whole clusters */
  constructor(geometry: Geometry, host: HostOffset, bytes: Uint8Array) {
    this.#geometry = geometry
    this.#host = host
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  get host(): HostOffset {
    return this.#host
  }

  /** Bytes, whole clusters. */
  get length(): number {
    return this.#bytes.byteLength
  }

  get entries(): number {
    return this.#bytes.byteLength / entryBytes
  }

  /** The table's bytes, for copying. */
  get bytes(): Uint8Array {
    return this.#bytes
  }

  /** The number of the block that counts `cluster`; may lie beyond the table. */
  blockIndex(cluster: number): number {
    return Math.floor(cluster / this.#geometry.refcountsPerBlock)
  }

  /**
   * The block of an entry, or undefined where there is none, or no entry.
   * @throws ERR_CORRUPT  misaligned or beyond 2^53
   */
  block(index: number): HostOffset | undefined {
    if (index >= this.entries) return undefined
    const high = this.#view.getUint32(index * entryBytes)
    const low = this.#view.getUint32(index * entryBytes + 4)
    const host = high * 2 ** 32 + low
    if (host === 0) return undefined
    if (high > 0x1fffff || !isAligned(host, this.#geometry.clusterSize)) {
      throw corrupt(
        'refcount table entry',
        this.#host + index * entryBytes,
        'block offset is not cluster aligned',
      )
    }
    return hostOffset(host)
  }

  /** Where the count of `cluster` stands, or undefined: no block, so it is 0. */
  place(cluster: number): RefcountPlace | undefined {
    const block = this.block(this.blockIndex(cluster))
    return block && this.placeIn(block, cluster)
  }

  /** Where the count of `cluster` stands in the block at `block`, which counts it. */
  placeIn(block: HostOffset, cluster: number): RefcountPlace {
    const inBlock = cluster % this.#geometry.refcountsPerBlock
    const index = inBlock % this.#geometry.refcountsPerSlice
    const slice = ((inBlock - index) / this.#geometry.refcountsPerSlice) * this.#geometry.sliceSize
    return { slice: hostOffset(block + slice), index }
  }

  /** Enter a block. @returns the slice that changed, to be queued in the same step */
  setBlock(index: number, block: HostOffset): TableBytes {
    this.#view.setUint32(index * entryBytes, Math.floor(block / 2 ** 32))
    this.#view.setUint32(index * entryBytes + 4, block % 2 ** 32)
    const start = alignDown(index * entryBytes, this.#geometry.sliceSize)
    return { host: this.#host + start, bytes: this.#bytes.subarray(start, start + this.#geometry.sliceSize) }
  }

  /** The table moved, with what it holds. */
  replace(host: HostOffset, bytes: Uint8Array): void {
    this.#host = host
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }
}
