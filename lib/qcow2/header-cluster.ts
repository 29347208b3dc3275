import type { Geometry } from './geometry.js'
import { patchHeader } from './header.js'
import type { TableBytes } from './write-ordering.js'

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
}
