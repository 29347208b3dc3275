import { Qcow2Error } from '../base/errors.js'
import { addon } from '../native/addon.js'

/** Counts of neighbouring clusters stand together: a byte each, or one number for all of them where they are alike. */
const clustersPerChunk = 256
/** Few: a small image's counts are not worth pages of their own. */
const chunksPerSlab = 64
/** One entry of the index for this many. */
const chunksPerGroup = 16
const clustersPerGroup = clustersPerChunk * chunksPerGroup
/** What the entry costs: a number for each chunk, and its place in the index. */
const bytesPerGroup = chunksPerGroup * 8 + 100
/** A native call costs as much as a look at so many counts here. */
const longerThan = 32
/** Held in the byte of a cluster whose count stands in the overflow map. */
export const standsApart = 255

/** The chunks whose counts are alike, by that count, each made when it is first looked at. */
const alike: Buffer[] = []

function chunkOfAlike(count: number): Buffer {
  return (alike[count] ??= Buffer.alloc(clustersPerChunk, count))
}

const noCounts = chunkOfAlike(0)
const oneEach = chunkOfAlike(1)

/**
 * How often each cluster of a file is referred to. Memory follows the clusters that are referred to, never the length of the
 * file: a sparse file of many terabytes costs what its few tables cost. One byte a cluster, and next to nothing for long runs that are counted as
 * such; counts of 255 and more, which only small compressed clusters and many snapshots bring about, stand apart.
 */
export class ReferenceCounts {
  /** How many clusters' counts stand together, from a multiple of it on. */
  static readonly perChunk = clustersPerChunk
  readonly #limitBytes: number
  /** Taken of these. */
  #bytes = 0
  /** By group, for each chunk: where it stands in the slabs, from 1 on; or what all its counts are, negated. */
  readonly #index = new Map<number, number[]>()
  readonly #slabs: Uint8Array[] = []
  #chunksInSlabs = 0
  readonly #large = new Map<number, number>()
  #sortedGroups: number[] | undefined
  /** What was looked at last: neighbours come one after the other. */
  #base = -Infinity
  #chunk: Uint8Array = noCounts
  /** Whether that one stands in a slab. */
  #isOwn = false

  readonly #purpose: string

  /**
   * @param limitBytes  memory that counts may take
   * @param purpose     what they are taken for, for the message when that is too little
   */
  constructor(limitBytes: number, purpose = 'Checking this image') {
    this.#limitBytes = limitBytes
    this.#purpose = purpose
  }

  get(cluster: number): number {
    const count = this.chunkOf(cluster)[cluster - this.#base] as number
    return count === standsApart ? (this.#large.get(cluster) ?? standsApart) : count
  }

  /** @throws ERR_NOT_SUPPORTED  more memory is needed than allowed */
  set(cluster: number, count: number): void {
    const chunk = this.#ownChunkOf(cluster)
    if (count >= standsApart) this.#large.set(cluster, count)
    chunk[cluster - this.#base] = Math.min(count, standsApart)
  }

  /**
   * Count one more.
   * @returns false where there are `max` already; nothing is changed then
   * @throws as `set`
   */
  increment(cluster: number, max: number): boolean {
    const chunk = this.#ownChunkOf(cluster)
    const count = chunk[cluster - this.#base] as number
    if (count < max && count < standsApart - 1) {
      chunk[cluster - this.#base] = count + 1
      return true
    }
    const exact = this.get(cluster)
    if (exact >= max) return false
    this.set(cluster, exact + 1)
    return true
  }

  /**
   * Count one more of each of a run of clusters.
   * @returns how many of them, from the first on: up to one that has `max` already, or more than its byte can say. That and those behind it are `increment`'s
   * @throws as `set`
   */
  incrementRun(first: number, clusters: number, max: number): number {
    const most = Math.min(max, standsApart - 1)
    for (let done = 0; done < clusters;) {
      const counted = this.#incrementAlike(first + done, clusters - done, most)
      done += counted
      if (counted > 0) continue
      const chunk = this.#ownChunkOf(first + done)
      const from = first + done - this.#base
      const to = Math.min(clustersPerChunk, from + clusters - done)
      const here = chunk[from] as number
      const mayBeAlike = to - from > longerThan && here < most
      if (mayBeAlike && chunkOfAlike(here).compare(chunk, from, to, from, to) === 0) {
        chunk.fill(here + 1, from, to)
      } else {
        for (let at = from; at < to; at++) {
          const count = chunk[at] as number
          if (count >= most) return done + at - from
          chunk[at] = count + 1
        }
      }
      done += to - from
    }
    return clusters
  }

  /**
   * The counts that stand together with a cluster's, `#base` being the first one's, a byte each; of one that stands apart, `standsApart`. Good until the
   * next is set, and not to be written to.
   */
  chunkOf(cluster: number): Uint8Array {
    const within = cluster - this.#base
    if (within >= 0 && within < clustersPerChunk) return this.#chunk
    const group = this.#index.get(Math.floor(cluster / clustersPerGroup))
    return this.#see(cluster, group?.[chunkInGroup(cluster)] ?? 0)
  }

  /** How many of a run of clusters, from the first on, stand in chunks in which every count is 1. */
  onesFrom(cluster: number, most: number): number {
    const end = cluster + most
    for (let at = cluster; at < end;) {
      const group = this.#index.get(Math.floor(at / clustersPerGroup))
      let chunk = chunkInGroup(at)
      if (group?.[chunk] !== -1 && oneEach.compare(this.chunkOf(at)) !== 0) return at - cluster
      do chunk++
      while (group?.[chunk] === -1)
      at += chunk * clustersPerChunk - (at % clustersPerGroup)
    }
    return most
  }

  /** The clusters from `from` to below `to` whose count is not 0, in order. */
  *counted(from: number, to: number): Generator<number> {
    this.#sortedGroups ??= [...this.#index.keys()].sort((left, right) => left - right)
    const groups = this.#sortedGroups
    for (let at = lowerBound(groups, Math.floor(from / clustersPerGroup)); at < groups.length; at++) {
      const number = groups[at] as number
      const group = this.#index.get(number) as number[]
      const first = number * clustersPerGroup
      if (first >= to) return
      const end = Math.min(to, first + clustersPerGroup)
      for (let cluster = Math.max(from, first); cluster < end;) {
        if (group[chunkInGroup(cluster)] === 0) {
          cluster += clustersPerChunk - (cluster % clustersPerChunk)
          continue
        }
        const chunk = this.chunkOf(cluster)
        const within = firstCounted(chunk, cluster - this.#base)
        cluster = this.#base + within
        if (within < clustersPerChunk && cluster < end) yield cluster++
      }
    }
  }

  /** As chunkOf, to be written to. */
  #ownChunkOf(cluster: number): Uint8Array {
    const counts = this.chunkOf(cluster)
    if (this.#isOwn) return counts
    const group = this.#ownGroupOf(cluster)
    this.#take(clustersPerChunk)
    if (this.#chunksInSlabs % chunksPerSlab === 0)
      this.#slabs.push(new Uint8Array(chunksPerSlab * clustersPerChunk))
    const place = ++this.#chunksInSlabs
    group[chunkInGroup(cluster)] = place
    const own = this.#see(cluster, place)
    own.set(counts)
    return own
  }

  /** Count one more of each cluster of some whole chunks whose counts are alike, and below `max`. @returns how many clusters these are */
  #incrementAlike(first: number, most: number, max: number): number {
    if (first % clustersPerChunk !== 0 || most < clustersPerChunk) return 0
    const group = this.#ownGroupOf(first)
    const from = chunkInGroup(first)
    const place = group[from] as number
    if (place > 0 || -place >= max) return 0
    const end = Math.min(chunksPerGroup, from + Math.floor(most / clustersPerChunk))
    let chunk = from
    while (chunk < end && group[chunk] === place) group[chunk++] = place - 1
    this.#see(first, place - 1)
    return (chunk - from) * clustersPerChunk
  }

  #see(cluster: number, place: number): Uint8Array {
    this.#base = cluster - (cluster % clustersPerChunk)
    this.#isOwn = place > 0
    this.#chunk = this.#isOwn ? this.#bytesOf(place - 1) : chunkOfAlike(-place)
    return this.#chunk
  }

  #ownGroupOf(cluster: number): number[] {
    const number = Math.floor(cluster / clustersPerGroup)
    const found = this.#index.get(number)
    if (found !== undefined) return found
    this.#take(bytesPerGroup)
    const group = new Array<number>(chunksPerGroup).fill(0)
    this.#index.set(number, group)
    this.#sortedGroups = undefined
    return group
  }

  #take(bytes: number): void {
    if (this.#bytes + bytes > this.#limitBytes) {
      const what = `${this.#purpose} needs more than ${this.#limitBytes} bytes of memory`
      throw new Qcow2Error('ERR_NOT_SUPPORTED', `${what}: it refers to too many scattered clusters`)
    }
    this.#bytes += bytes
  }

  #bytesOf(slot: number): Uint8Array {
    const first = (slot % chunksPerSlab) * clustersPerChunk
    const slab = this.#slabs[Math.floor(slot / chunksPerSlab)] as Uint8Array
    return slab.subarray(first, first + clustersPerChunk)
  }
}

function chunkInGroup(cluster: number): number {
  return Math.floor((cluster % clustersPerGroup) / clustersPerChunk)
}

/** Index of the first count from `from` on that is not 0; as many as there are, if all are. */
function firstCounted(chunk: Uint8Array, from: number): number {
  let at = from
  while (at < clustersPerChunk && chunk[at] === 0) {
    if (at % 8 === 0 && noCounts.compare(chunk, at, at + 8, 0, 8) === 0) {
      at += addon().wordRun(chunk, at, (clustersPerChunk - at) / 8, 0) * 8
    } else at++
  }
  return at
}

/** Index of the first element that is not below `value`. */
function lowerBound(sorted: readonly number[], value: number): number {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((sorted[middle] ?? 0) < value) low = middle + 1
    else high = middle
  }
  return low
}
