import { assert } from '../base/assert.js'
import { divideRoundingUp } from '../base/integers.js'
import { entryBytes, type Geometry, l1EntriesFor } from './geometry.js'

/** Where everything of an empty image stands, in clusters. Pure: nothing is written here. */
export type CreateLayout = {
  /** 0 entries: no table. */
  readonly l1: { readonly cluster: number; readonly entries: number }
  readonly refcountTable: { readonly cluster: number; readonly clusters: number }
  /** The LUKS header and the material of its key slots, if there are to be any; the file reaches to the end of its last cluster. */
  readonly encryption: { readonly cluster: number; readonly clusters: number } | undefined
  /** Refcount table index to the refcount block's cluster. */
  readonly blocks: ReadonlyMap<number, number>
  /** Runs of clusters in use: first and count. All have a refcount of 1. */
  readonly used: readonly (readonly [cluster: number, count: number])[]
  /** An outgrown refcount table, free again: QEMU leaves its bytes. */
  readonly outgrownTable: number | undefined
  /** The file ends with the last byte of the last structure. */
  readonly fileBytes: number
}

/**
 * Lay out an empty image as QEMU 7.2 does, because tools poke at it: header, refcount table, refcount block, L1. Refcount blocks for
 * an L1 that one block does not cover follow it, allocated one by one from the lowest free cluster; a refcount table
 * that outgrows its cluster moves behind everything (E9).
 * @param size             guest bytes, a multiple of 512
 * @param encryptionBytes  of a LUKS header with its key slots, which follows the L1
 */
export function layOut(geometry: Geometry, size: number, encryptionBytes = 0): CreateLayout {
  const l1Entries = l1EntriesFor(geometry, size)
  const l1Clusters = divideRoundingUp(l1Entries * entryBytes, geometry.clusterSize)
  const encryptionClusters = divideRoundingUp(encryptionBytes, geometry.clusterSize)
  return new Layouter(geometry, l1Entries, l1Clusters, encryptionClusters).run()
}

const headerCluster = 0
const firstTable = 1
const firstBlock = 2
const firstFree = 3

class Layouter {
  readonly #geometry: Geometry
  readonly #l1Entries: number
  readonly #l1Clusters: number
  readonly #encryptionClusters: number
  readonly #blocks = new Map<number, number>([[0, firstBlock]])
  /** Clusters in use behind the L1. */
  readonly #behind = new Set<number>()
  #table = { cluster: firstTable, clusters: 1 }
  #next: number

  constructor(geometry: Geometry, l1Entries: number, l1Clusters: number, encryptionClusters: number) {
    this.#geometry = geometry
    this.#l1Entries = l1Entries
    this.#l1Clusters = l1Clusters
    this.#encryptionClusters = encryptionClusters
    this.#next = firstFree + l1Clusters + encryptionClusters
  }

  run(): CreateLayout {
    const { refcountsPerBlock, clusterSize } = this.#geometry
    const l1End = firstFree + this.#l1Clusters
    const encryptionEnd = l1End + this.#encryptionClusters
    for (let block = 1; block * refcountsPerBlock < encryptionEnd; block++) {
      if (!this.#blocks.has(block)) this.#addBlock(block)
    }
    const moved = this.#table.cluster !== firstTable
    const used: [number, number][] = [[headerCluster, 1]]
    if (!moved) used.push([firstTable, 1])
    used.push([firstBlock, 1])
    if (this.#l1Clusters > 0) used.push([firstFree, this.#l1Clusters])
    if (encryptionEnd > l1End) used.push([l1End, this.#encryptionClusters])
    for (const cluster of this.#behind) used.push([cluster, 1])
    const last = Math.max(...this.#behind, encryptionEnd > l1End ? encryptionEnd - 1 : 0)
    return {
      l1: { cluster: this.#l1Entries === 0 ? 0 : firstFree, entries: this.#l1Entries },
      refcountTable: this.#table,
      encryption: encryptionEnd > l1End ? { cluster: l1End, clusters: this.#encryptionClusters } : undefined,
      blocks: this.#blocks,
      used,
      outgrownTable: moved ? firstTable : undefined,
      fileBytes: last > 0 ? (last + 1) * clusterSize : firstFree * clusterSize + this.#l1Entries * entryBytes,
    }
  }

  /** Give refcount block `index` a cluster, and that cluster a count: its own if it covers itself, else another block's. */
  #addBlock(index: number): void {
    const covering = this.#blockOf(this.#peek())
    if (covering !== index && !this.#blocks.has(covering)) {
      // the block that will count this one comes first, in the cluster behind the one kept for this one
      const kept = this.#take()
      this.#addBlock(covering)
      this.#place(index, kept)
      return
    }
    this.#place(index, this.#take())
  }

  #place(index: number, cluster: number): void {
    this.#behind.add(cluster)
    this.#blocks.set(index, cluster)
    const { clusterSize } = this.#geometry
    if (index < (this.#table.clusters * clusterSize) / entryBytes) return
    this.#moveTable(Math.max(index, this.#blockOf(cluster)) + 1)
  }

  /**
   * A larger refcount table, and the blocks that count both themselves and it, at the first cluster of what block number
   * `firstIndex` counts; half as many entries again as are needed now.
   */
  #moveTable(firstIndex: number): void {
    assert(
      this.#table.cluster === firstTable,
      'one move is enough: the table has room for half as many again',
    )
    const { refcountsPerBlock, clusterSize } = this.#geometry
    const entriesPerCluster = clusterSize / entryBytes
    const start = firstIndex * refcountsPerBlock
    let blocks = 0
    for (let before = -1; before !== blocks;) {
      before = blocks
      blocks = divideRoundingUp(
        start + blocks + divideRoundingUp(blocks, entriesPerCluster),
        refcountsPerBlock,
      )
    }
    const added = blocks - firstIndex
    for (let index = 0; index < added; index++) this.#blocks.set(firstIndex + index, start + index)
    const clusters = divideRoundingUp(blocks + divideRoundingUp(blocks, 2), entriesPerCluster)
    this.#table = { cluster: start + added, clusters }
    for (let cluster = start; cluster < start + added + clusters; cluster++) this.#behind.add(cluster)
  }

  #blockOf(cluster: number): number {
    return Math.floor(cluster / this.#geometry.refcountsPerBlock)
  }

  /** The lowest free cluster behind the L1. */
  #peek(): number {
    while (this.#behind.has(this.#next)) this.#next++
    return this.#next
  }

  #take(): number {
    const cluster = this.#peek()
    this.#next++
    return cluster
  }
}
