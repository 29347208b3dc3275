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
  'bitmap table',
  'bitmap data',
  'encryption header',
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
 * What is found at open, or when a snapshot is applied, stands in sorted arrays (8 bytes a cluster), what comes and goes later in sets.
 */
export class MetadataMap {
  readonly #geometry: Geometry
  #found: readonly Float64Array[] = []
  readonly #added = new Map<number, MetadataKind>()
  readonly #removed = new Set<number>()

  /**
   * @param found  cluster numbers times the number of kinds plus kind; see `metadataEntry`. Kept, and sorted
   * @throws ERR_CORRUPT  two structures claim one cluster: the first write to one destroys the other. An L2 table that several L1 entries name is one
   */
  constructor(geometry: Geometry, found: readonly Float64Array[]) {
    this.#geometry = geometry
    this.replace(found)
    refuseTwice(geometry, found)
  }

  /**
   * See that tables can be put in the place of what is known; see `replace`.
   * @throws ERR_CORRUPT  two structures claim one cluster
   */
  static check(geometry: Geometry, found: readonly Float64Array[]): void {
    for (const clusters of found) clusters.sort()
    refuseTwice(geometry, found)
  }

  /** All tables are others than before: these, of which no two claim one cluster. */
  replace(found: readonly Float64Array[]): void {
    this.#found = found
    this.#added.clear()
    this.#removed.clear()
    // Tables that came as the disk grew are in order already, and sorting a million takes longer than seeing that.
    for (const clusters of found) if (!isAscending(clusters)) clusters.sort()
  }

  add(kind: MetadataKind, host: number, length: number): void {
    const last = clusterOf(this.#geometry, host + length - 1)
    for (let cluster = clusterOf(this.#geometry, host); cluster <= last; cluster++)
      this.#added.set(cluster, kind)
  }

  /** @param clusters  as the constructor takes them, which may be known already */
  addFound(clusters: Float64Array): void {
    for (const entry of clusters)
      this.#added.set(Math.floor(entry / kinds.length), kinds[entry % kinds.length] as MetadataKind)
  }

  /** The range is free, or data, from now on. */
  remove(host: number, length: number): void {
    const last = clusterOf(this.#geometry, host + length - 1)
    for (let cluster = clusterOf(this.#geometry, host); cluster <= last; cluster++) {
      this.#added.delete(cluster)
      if (this.#foundBefore(cluster) !== undefined) this.#removed.add(cluster)
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
    return this.#removed.has(cluster) ? undefined : this.#foundBefore(cluster)
  }

  #foundBefore(cluster: number): MetadataKind | undefined {
    for (const clusters of this.#found) {
      const kind = find(clusters, cluster)
      if (kind !== undefined) return kind
    }
    return undefined
  }
}

/**
 * @param found  as MetadataMap takes it; each sorted
 * @throws ERR_CORRUPT  two structures claim one cluster
 */
function refuseTwice(geometry: Geometry, found: readonly Float64Array[]): void {
  for (const [index, clusters] of found.entries()) {
    const others = found.slice(index + 1)
    let before = Number.NaN
    for (const entry of clusters) {
      const cluster = Math.floor(entry / kinds.length)
      const isAgain = cluster === before && entry % kinds.length !== kindNumbers['L2 table']
      before = cluster
      if (!isAgain && !others.some((other) => find(other, cluster) !== undefined)) continue
      const kind = kinds[entry % kinds.length] ?? 'header'
      throw corrupt(kind, cluster * geometry.clusterSize, 'another structure claims the same cluster')
    }
  }
}

function find(ascending: Float64Array, cluster: number): MetadataKind | undefined {
  let low = 0
  let high = ascending.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((ascending[middle] as number) < cluster * kinds.length) low = middle + 1
    else high = middle
  }
  const found = ascending[low]
  return found !== undefined && Math.floor(found / kinds.length) === cluster
    ? kinds[found % kinds.length]
    : undefined
}

export function isAscending(numbers: Float64Array): boolean {
  for (let index = 1; index < numbers.length; index++) {
    if ((numbers[index] as number) < (numbers[index - 1] as number)) return false
  }
  return true
}

/** One cluster in the form that MetadataMap is built from. */
export function metadataEntry(kind: MetadataKind, cluster: number): number {
  return cluster * kinds.length + kindNumbers[kind]
}
