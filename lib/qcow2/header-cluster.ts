import { assert } from '../base/assert.js'
import { sectorSize } from '../base/units.js'
import type { Geometry } from './geometry.js'
import { patchHeader } from './header.js'
import type { TableBytes } from './write-ordering.js'

/** qcow2 spec, "Header": byte 72. */
const incompatibleAt = 72

/** What may change in the header of an open image. */
export type HeaderChange = Parameters<typeof patchHeader>[1]

/** The first cluster in memory: the one copy that header changes are made in, so that unknown fields and extensions stay. */
export class HeaderCluster {
  readonly #bytes: Uint8Array
  readonly #sliceSize: number

  /** @param firstCluster  the whole cluster as on disk; kept and changed */
  constructor(geometry: Geometry, firstCluster: Uint8Array) {
    this.#bytes = firstCluster
    this.#sliceSize = geometry.sliceSize
  }

  /** Make a change. @returns what to queue in the same step; all that differs lies in the first sector */
  change(change: HeaderChange): TableBytes {
    patchHeader(this.#bytes, change)
    return { host: 0, bytes: this.#bytes.subarray(0, this.#sliceSize) }
  }

  /** As they are in memory; of version 3 only. */
  get incompatibleFeatures(): bigint {
    return new DataView(this.#bytes.buffer, this.#bytes.byteOffset).getBigUint64(incompatibleAt)
  }

  /** As it is in memory. */
  copy(): Uint8Array {
    return this.#bytes.slice()
  }

  /**
   * Make it another one, of which more than the first sector differs.
   * @returns what to queue in the same step: what stands behind the first sector, with that sector as it was; then the first sector
   */
  rewrite(cluster: Uint8Array): { beyond: TableBytes[]; first: TableBytes } {
    assert(cluster.length === this.#bytes.length, 'the whole first cluster')
    const beyond: TableBytes[] = []
    const tail = cluster.slice()
    tail.set(this.#bytes.subarray(0, sectorSize))
    for (let host = 0; host < tail.length; host += this.#sliceSize) {
      const bytes = tail.subarray(host, host + this.#sliceSize)
      if (Buffer.compare(bytes, this.#bytes.subarray(host, host + this.#sliceSize)) !== 0)
        beyond.push({ host, bytes })
    }
    this.#bytes.set(cluster)
    return { beyond, first: { host: 0, bytes: this.#bytes.subarray(0, this.#sliceSize) } }
  }
}
