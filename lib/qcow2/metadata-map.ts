import { corrupt } from '../base/errors.js'
import { type Geometry, clusterOf } from './geometry.js'

/** What a cluster of the file is used for, in the words of the specification. */
const kinds = [
  'header',
  'L1 table',
  'L2 table',
  'refcount table',
  'refcount block',
  'snapshot table',
  'inactive L1 table',
  'bitmap directory',
] as const
export type MetadataKind = (typeof kinds)[number]

const kindNumbers = Object.fromEntries(kinds.map((kind, number) => [kind, number])) as Record<
  MetadataKind,
  number
>

/**
 * Which clusters hold metadata. Asked before every write of data and every allocation: a damaged image, whose refcounts or mappings
 * name a table's cluster, must not be made worse. As QEMU's overlap-check=cached, with active L2 tables.
 *
 * What is found at open stands in one sorted array (8 bytes a cluster), what comes and goes later in sets.
 */
export class MetadataMap {
  readonly #geometry: Geometry
  readonly #atOpen: Float64Array
  readonly #added = new Map<number, MetadataKind>()
  readonly #removed = new Set<number>()

  /** @param atOpen  cluster numbers times 8 plus kind; see `metadataEntry` */
  constructor(geometry: Geometry, atOpen: Float64Array) {
    this.#geometry = geometry
    this.#atOpen = atOpen.sort()
  }

  add(kind: MetadataKind, host: number, length: number): void {
    const last = clusterOf(this.#geometry, host + length - 1)
    for (let cluster = clusterOf(this.#geometry, host); cluster <= last; cluster++)
      this.#added.set(cluster, kind)
  }

  /** The range is free, or data, from now on. */
  remove(host: number, length: number): void {
    const last = clusterOf(this.#geometry, host + length - 1)
    for (let cluster = clusterOf(this.#geometry, host); cluster <= last; cluster++) {
      this.#added.delete(cluster)
      if (this.#foundAtOpen(cluster) !== undefined) this.#removed.add(cluster)
    }
  }

  /**
   * Refuse a data write or an allocation that would hit metadata.
   * @throws ERR_CORRUPT  it would: two structures of the image claim the cluster
   */
  refuse(use: string, host: number, length: number): void {
    const last = clusterOf(this.#geometry, host + length - 1)
    for (let cluster = clusterOf(this.#geometry, host); cluster <= last; cluster++) {
      const kind = this.kindOf(cluster)
      if (kind !== undefined) throw corrupt(kind, cluster * this.#geometry.clusterSize, `${use} overlaps it`)
    }
  }

  kindOf(cluster: number): MetadataKind | undefined {
    const added = this.#added.get(cluster)
    if (added !== undefined) return added
    return this.#removed.has(cluster) ? undefined : this.#foundAtOpen(cluster)
  }

  #foundAtOpen(cluster: number): MetadataKind | undefined {
    let low = 0
    let high = this.#atOpen.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#atOpen[middle] ?? 0) < cluster * kinds.length) low = middle + 1
      else high = middle
    }
    const found = this.#atOpen[low]
    return found !== undefined && Math.floor(found / kinds.length) === cluster
      ? kinds[found % kinds.length]
      : undefined
  }
}

/** One cluster in the form that MetadataMap is built from. */
export function metadataEntry(kind: MetadataKind, cluster: number): number {
  return cluster * kinds.length + kindNumbers[kind]
}
