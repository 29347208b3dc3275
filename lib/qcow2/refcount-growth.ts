import { assert } from '../base/assert.js'
import { divideRoundingUp } from '../base/integers.js'
import { type HostOffset, hostOffset, noSection, type Section } from '../base/units.js'
import { Qcow2Error } from '../base/errors.js'
import type { RefcountParts } from './refcount-parts.js'
import { entryBytes } from './geometry.js'
import type { HeaderCluster } from './header-cluster.js'
import { storeRefcount } from './refcount-entry.js'
import { limits } from './spec.js'

/**
 * Makes counts available for clusters that have none in memory yet: loads them, adds refcount blocks, grows the refcount table.
 * One step at a time, whoever asks; the allocator starts its search again after it (mistake 12 of the format's list).
 */
export class RefcountGrowth {
  readonly #parts: RefcountParts
  readonly #header: HeaderCluster
  /** Where the entries of blocks stand that are not durable yet: what refers to a cluster of such a block comes after (E7). */
  readonly #published = new Map<number, Section>()
  #preparing: Promise<void> | undefined
  /** Frees the old refcount table; set by the image once its deferred frees exist. */
  #free: (host: HostOffset, length: number, removal: Section) => void = () => undefined

  constructor(parts: RefcountParts, header: HeaderCluster) {
    this.#parts = parts
    this.#header = header
  }

  freeWith(free: (host: HostOffset, length: number, removal: Section) => void): void {
    this.#free = free
  }

  /** The section of the entry of the block that counts `cluster`, or none when it is durable. */
  publishedAfter(cluster: number): Section {
    if (this.#published.size === 0) return noSection
    const index = this.#parts.table.blockIndex(cluster)
    const published = this.#published.get(index)
    if (published === undefined) return noSection
    if (published <= this.#parts.backend.durableSection) {
      this.#published.delete(index)
      return noSection
    }
    return published
  }

  /**
   * Bring the count of `cluster` into memory, or make one step towards it.
   * @param home  the free cluster that a new block goes to: `cluster` itself, or one that has a count. Where it matters nobody else asks.
   */
  prepare(cluster: number, home: number): Promise<void> {
    this.#preparing ??= this.#step(cluster, home).finally(() => {
      this.#preparing = undefined
    })
    return this.#preparing
  }

  async #step(cluster: number, home: number): Promise<void> {
    const { table, cache } = this.#parts
    const place = table.place(cluster)
    if (place !== undefined) {
      await cache.load(place.slice)
      return
    }
    if (table.blockIndex(cluster) >= table.entries) {
      await this.#growTable()
      return
    }
    await this.#addBlock(cluster, home)
  }

  /** A new block. Usually at a cluster that it counts: it counts itself, so that one write carries both (E8). */
  async #addBlock(cluster: number, home: number): Promise<void> {
    const { backend, geometry, metadata, cache, table, ordering } = this.#parts
    const host = hostOffset(home * geometry.clusterSize)
    const blockIndex = table.blockIndex(cluster)
    metadata.refuse('a new refcount block', host, geometry.clusterSize)
    await backend.writeZeroes(host, geometry.clusterSize, { unmap: false })
    await ordering.dataWritten()

    // No await between here and the end.
    const countsItself = table.blockIndex(home) === blockIndex
    const place = countsItself ? table.placeIn(host, home) : table.place(home)
    const count = place && (countsItself ? cache.insertZeros(place.slice) : cache.get(place.slice))
    if (place === undefined || count === undefined) {
      assert(place !== undefined, 'a home outside its block has a count')
      await cache.load(place.slice)
      return
    }
    storeRefcount(count.view, place.index, geometry, 1)
    const counted = countsItself ? noSection : this.publishedAfter(home)
    const entry = table.setBlock(blockIndex, host)
    this.#published.set(blockIndex, ordering.publishRefcountBlock(count, entry, counted))
    metadata.add('refcount block', host, geometry.clusterSize)
  }

  /**
   * Move the table to a larger one behind everything that the old one could count (E9). The new area (blocks, then table) counts itself.
   */
  async #growTable(): Promise<void> {
    const { backend, geometry, metadata, table, ordering } = this.#parts
    const size = geometry.clusterSize
    const firstCluster = table.entries * geometry.refcountsPerBlock
    const area = planTable(table.entries, geometry.refcountsPerBlock, size)
    if (area.tableClusters * size > limits.refcountTableBytes) {
      throw new Qcow2Error('ERR_NO_SPACE', 'The refcount table has reached its largest size', {
        structure: 'refcount table',
      })
    }
    const host = hostOffset(firstCluster * size)
    const tableHost = hostOffset(host + area.blocks * size)
    metadata.refuse('a new refcount table', host, (area.blocks + area.tableClusters) * size)

    // The copy must not publish an entry before the block behind it is there: all that is queued is durable before the switch below,
    // and no entry changes meanwhile, for only this class changes them, one step at a time.
    const bytes = new Uint8Array(area.tableClusters * size)
    bytes.set(table.bytes)
    const view = new DataView(bytes.buffer)
    for (let index = 0; index < area.blocks; index++) {
      const block = host + index * size
      view.setUint32((table.entries + index) * entryBytes, Math.floor(block / 2 ** 32))
      view.setUint32((table.entries + index) * entryBytes + 4, block % 2 ** 32)
    }
    await backend.write(this.#countedBlocks(area), host)
    await backend.write(bytes, tableHost)

    const old = { host: table.host, length: table.length }
    const change = { refcountTable: { offset: tableHost, clusters: area.tableClusters } }
    await ordering.switchHeader(
      () => {
        table.replace(tableHost, bytes)
        return this.#header.change(change)
      },
      (section) => {
        metadata.add('refcount block', host, area.blocks * size)
        metadata.add('refcount table', tableHost, area.tableClusters * size)
        this.#free(old.host, old.length, section)
      },
    )
  }

  /** The new blocks, counting themselves and the table behind them. */
  #countedBlocks(area: { blocks: number; tableClusters: number }): Uint8Array {
    const { geometry } = this.#parts
    const bytes = new Uint8Array(area.blocks * geometry.clusterSize)
    const view = new DataView(bytes.buffer)
    const counted = area.blocks + area.tableClusters
    assert(counted <= area.blocks * geometry.refcountsPerBlock, 'the new blocks count their own area')
    for (let cluster = 0; cluster < counted; cluster++) storeRefcount(view, cluster, geometry, 1)
    return bytes
  }
}

/** How large the new table becomes (at least half as large again), and how many blocks count it and themselves. */
function planTable(
  oldEntries: number,
  refcountsPerBlock: number,
  clusterSize: number,
): { blocks: number; tableClusters: number } {
  let blocks = 1
  for (;;) {
    const entries = Math.max(Math.ceil(oldEntries * 1.5), oldEntries + blocks + 1)
    const tableClusters = divideRoundingUp(entries * entryBytes, clusterSize)
    const needed = divideRoundingUp(blocks + tableClusters, refcountsPerBlock)
    if (needed <= blocks) return { blocks, tableClusters }
    blocks = needed
  }
}
