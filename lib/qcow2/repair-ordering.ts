import { assert } from '../base/assert.js'
import { sectorSize } from '../base/units.js'
import type { BlockBackend } from '../queue/backend.js'
import { makeGeometry } from './geometry.js'
import { type HeaderChange, patchHeader } from './header.js'

/**
 * The barriers of repairs and of changes of the header's form (amend-header.ts). Nothing else uses the image meanwhile, and repairs run in phases, each of which leaves the image no
 * worse wherever it is cut short: a barrier stands between them. Within a phase any order will do.
 */
export class RepairOrdering {
  readonly #backend: BlockBackend

  constructor(backend: BlockBackend) {
    this.#backend = backend
  }

  /**
   * Entries have given up their clusters; refcounts may go down next. Without the barrier a crash could keep the entry and lose
   * the count: the next writer would be given a cluster that the entry still names.
   */
  async entriesDropped(): Promise<void> {
    await this.#backend.flush()
  }

  /**
   * New refcount structures are written, in clusters that nothing refers to (E26). Without the first barrier a crash could leave a
   * header that names a table which is not there. Without the second one, flags that go by the new counts, or the next writer's
   * use of the old table's clusters, or their punch, could become durable while the header still names the old table.
   */
  async switchRefcounts(
    firstCluster: Uint8Array,
    table: { offset: number; clusters: number },
    refcountOrder?: number,
  ): Promise<void> {
    await this.#backend.flush()
    const width = refcountOrder === undefined ? {} : { refcountOrder }
    await this.#writeHeader(firstCluster, { refcountTable: table, ...width })
    await this.#backend.flush()
  }

  /**
   * The header takes another form, whose strings may reach behind its first sector (E23, E26). Without the first barrier a crash could leave a version 2
   * header over entries that only version 3 has; without the one between, a first sector that points to strings which are not there; without the
   * last, the next step would take places of strings that the header on disk still uses.
   * @param steps  whole first clusters, one after the other
   */
  async rewriteHeader(steps: readonly Uint8Array[]): Promise<void> {
    for (const cluster of steps) {
      await this.#backend.flush()
      if (cluster.length > sectorSize) {
        await this.#backend.write(cluster.slice(sectorSize), sectorSize)
        await this.#backend.flush()
      }
      await this.#backend.write(cluster.slice(0, sectorSize), 0)
      await this.#backend.flush()
    }
  }

  /** A compatible bit: it promises nothing of what is there, and costs nothing if it is lost. */
  async setCompatible(firstCluster: Uint8Array, compatibleFeatures: bigint): Promise<void> {
    await this.#writeHeader(firstCluster, { compatibleFeatures })
    await this.#backend.flush()
  }

  /**
   * Refcounts have been put right in place; flags go by them next. Without the barrier a crash could keep a COPIED flag
   * of the new count beside the old one: the next check would take the image for corrupt once more.
   */
  async refcountsSettled(): Promise<void> {
    await this.#backend.flush()
  }

  /**
   * Autoclear bits that are not understood, before the first change: a crash behind it must not leave a bit that says that
   * nobody has touched the image.
   */
  async clearAutoclear(firstCluster: Uint8Array, autoclearFeatures: bigint): Promise<void> {
    await this.#writeHeader(firstCluster, { autoclearFeatures })
    await this.#backend.flush()
  }

  /** All repairs are durable before the caller looks at the outcome: what it reads is what a crash would leave. */
  async repaired(): Promise<void> {
    await this.#backend.flush()
  }

  /**
   * The image is found to be whole. Without the first barrier a crash could clear the dirty or corrupt bit and lose a repair:
   * a damaged image that says it is well. The second makes it last.
   */
  async markClean(firstCluster: Uint8Array, incompatibleFeatures: bigint): Promise<void> {
    await this.#backend.flush()
    await this.#writeHeader(firstCluster, { incompatibleFeatures })
    await this.#backend.flush()
  }

  /** All that differs lies in the first 512 bytes, so that a crash leaves the old header or the new one. */
  async #writeHeader(firstCluster: Uint8Array, change: HeaderChange): Promise<void> {
    patchHeader(firstCluster, change)
    const { sliceSize } = makeGeometry(Math.log2(firstCluster.length), 4)
    assert(firstCluster.length >= sliceSize, 'the whole first cluster is at hand')
    await this.#backend.write(firstCluster.slice(0, sliceSize), 0)
  }
}
