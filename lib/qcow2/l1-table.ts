import { alignDown, alignUp } from '../base/integers.js'
import { type HostOffset, hostOffset } from '../base/units.js'
import { entryBytes, type Geometry } from './geometry.js'
import { decodeL1Entry, hostOf, storeCopied, storeCopiedFlag, storeUnallocated } from './l2-entry.js'
import type { TableBytes } from './write-ordering.js'

/** The active L1 table, whole in memory (at most 32 MiB): which L2 table maps which guest bytes. qcow2 spec, "Cluster mapping". */
export class L1Table {
  readonly #geometry: Geometry
  #host: HostOffset
  #entries: number
  #bytes: Uint8Array
  #view: DataView

  /** @param bytes  the entries as on disk, padded with zeros to whole slices */
  constructor(geometry: Geometry, host: HostOffset, entries: number, bytes: Uint8Array) {
    this.#geometry = geometry
    this.#host = host
    this.#entries = entries
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  get host(): HostOffset {
    return this.#host
  }

  get entries(): number {
    return this.#entries
  }

  /** Bytes that the table takes on disk, whole clusters. */
  get length(): number {
    return alignUp(this.#entries * entryBytes, this.#geometry.clusterSize)
  }

  get bytes(): Uint8Array {
    return this.#bytes
  }

  /**
   * The L2 table of an entry; undefined where there is none.
   * @throws ERR_CORRUPT
   */
  table(index: number): { host: HostOffset; copied: boolean } | undefined {
    if (index >= this.#entries) return undefined
    const high = this.#view.getUint32(index * entryBytes)
    const low = this.#view.getUint32(index * entryBytes + 4)
    return decodeL1Entry(high, low, this.#geometry.clusterBits, this.#host + index * entryBytes)
  }

  /**
   * As `table`, as a bare number for the way of most requests: 0 where there is none, or it is shared and an owned one is asked for, or the
   * entry is not sound (which `table` then says).
   */
  plainTable(index: number, owned: boolean): number {
    if (index >= this.#entries) return 0
    const high = this.#view.getUint32(index * entryBytes)
    const low = this.#view.getUint32(index * entryBytes + 4)
    if ((high & 0x7fe00000) !== 0 || (low & 0x1ff) !== 0 || (owned && high < 0x80000000)) return 0
    const host = hostOf(high, low)
    return host % this.#geometry.clusterSize === 0 ? host : 0
  }

  /** Point an entry to a table of its own. @returns the slice that changed, to be queued in the same step */
  setTable(index: number, table: HostOffset): TableBytes {
    storeCopied(this.#view, index * entryBytes, table)
    return this.slice(index)
  }

  /** The table of an entry becomes shared, or its only owner's. @returns the slice that changed, to be queued in the same step */
  setCopied(index: number, copied: boolean): TableBytes {
    storeCopiedFlag(this.#view, index * entryBytes, copied)
    return this.slice(index)
  }

  /** Empty an entry. @returns the slice that changed, to be queued in the same step */
  clear(index: number): TableBytes {
    storeUnallocated(this.#view, index * entryBytes)
    return this.slice(index)
  }

  slice(index: number): TableBytes {
    const start = alignDown(index * entryBytes, this.#geometry.sliceSize)
    return {
      host: hostOffset(this.#host + start),
      bytes: this.#bytes.subarray(start, start + this.#geometry.sliceSize),
    }
  }

  /** The table moved and grew. */
  replace(host: HostOffset, entries: number, bytes: Uint8Array): void {
    this.#host = host
    this.#entries = entries
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }
}
