import { assert } from '../base/assert.js'
import type { ClusterMap, Move, Unit } from './compact-map.js'

/**
 * What is moved where, so that everything ends up below `end`: pure, and the same for the same map, so that an image which is as compact as this can make
 * it is left alone.
 */
export type FillPlan = {
  /** By ascending `first`. */
  readonly moves: readonly Move[]
  /** Of several clusters, and there is no room in one piece for them. */
  readonly unplaced: readonly Unit[]
}

/**
 * Move what stands at or behind `end` into free clusters below it: what takes several to the smallest room that it fits into, large ones first; the rest
 * to the lowest clusters that are left, in order.
 * @param mostReferences  that the clusters moved may have, so that memory is bounded; one unit may have more
 */
export function planFill(map: ClusterMap, end: number, mostReferences: number): FillPlan {
  const singles: number[] = []
  const large: Unit[] = []
  let references = 0
  for (const unit of map.units(end)) {
    if (references >= mostReferences) break
    if (map.isFixed(unit.first)) continue
    if (unit.clusters === 1) singles.push(unit.first)
    else large.push(unit)
    for (let step = 0; step < unit.clusters; step++) references += map.counts.get(unit.first + step)
  }
  const { moves, unplaced } = placeLarge(map, end, large)
  const taken = new Set<number>()
  for (const { to, clusters } of moves) for (let step = 0; step < clusters; step++) taken.add(to + step)
  const free = freeClusters(map, end, (cluster) => taken.has(cluster))
  for (const first of singles) {
    const to = free.next()
    if (to.done === true) break
    moves.push({ first, clusters: 1, to: to.value })
  }
  return { moves: moves.sort((a, b) => a.first - b.first), unplaced }
}

function placeLarge(
  map: ClusterMap,
  end: number,
  large: readonly Unit[],
): { moves: Move[]; unplaced: Unit[] } {
  if (large.length === 0) return { moves: [], unplaced: [] }
  const rooms = new Rooms(map, end)
  const moves: Move[] = []
  const unplaced: Unit[] = []
  for (const unit of [...large].sort((a, b) => b.clusters - a.clusters || a.first - b.first)) {
    const to = rooms.take(unit.clusters)
    if (to === undefined) unplaced.push(unit)
    else moves.push({ ...unit, to })
  }
  return { moves, unplaced }
}

/** Runs of at least two free clusters, by their length. */
class Rooms {
  readonly #byLength = new Map<number, number[]>()
  #lengths: number[]

  constructor(map: ClusterMap, end: number) {
    for (const { first, clusters } of map.freeRuns(end)) if (clusters > 1) this.#add(first, clusters)
    for (const starts of this.#byLength.values()) starts.reverse()
    this.#lengths = [...this.#byLength.keys()].sort((a, b) => a - b)
  }

  /** The first clusters of the smallest run that is large enough. */
  take(clusters: number): number | undefined {
    const length = this.#lengths.find((one) => one >= clusters)
    if (length === undefined) return undefined
    const starts = this.#byLength.get(length) ?? []
    const first = starts.pop()
    assert(first !== undefined, 'a length that is kept has a run')
    if (starts.length === 0) {
      this.#byLength.delete(length)
      this.#lengths = this.#lengths.filter((one) => one !== length)
    }
    const left = length - clusters
    if (left > 1) {
      this.#add(first + clusters, left)
      if (!this.#lengths.includes(left)) this.#lengths = [...this.#lengths, left].sort((a, b) => a - b)
    }
    return first
  }

  #add(first: number, clusters: number): void {
    const starts = this.#byLength.get(clusters)
    if (starts === undefined) this.#byLength.set(clusters, [first])
    else starts.push(first)
  }
}

function* freeClusters(
  map: ClusterMap,
  end: number,
  isTaken: (cluster: number) => boolean,
): Generator<number> {
  for (const { first, clusters } of map.freeRuns(end)) {
    for (let cluster = first; cluster < first + clusters; cluster++) if (!isTaken(cluster)) yield cluster
  }
}

/** A range below the end that is emptied for units that fit nowhere as it is. */
type Window = {
  readonly first: number
  readonly end: number
  /** What stands there, each of one cluster. */
  readonly singles: readonly number[]
  /** What has to leave, and comes back with the others behind it: they fit then. */
  readonly large: readonly Unit[]
  readonly unit: Unit
  /** Part of it stands in the window. */
  readonly straddles: boolean
}

export type WindowPlan = {
  /** First step: what leaves, to these free clusters. */
  readonly moves: readonly Move[]
  /** ... and what leaves for clusters behind everything, one behind the other. */
  readonly away: readonly Unit[]
  /** Second step: what then comes to where, by where it was before the first. */
  readonly placements: readonly Move[]
}

/**
 * Make room for units of several clusters that fit nowhere, near the end: single clusters go to free ones elsewhere, what has to stay together leaves and
 * comes back, packed. Nothing is moved for what would take more than that.
 * @param mostAway  clusters that may stand behind everything meanwhile
 */
export function planWindows(
  map: ClusterMap,
  end: number,
  unplaced: readonly Unit[],
  mostAway: number,
): WindowPlan {
  const windows = chooseWindows(map, end, unplaced, mostAway)
  const isInWindow = (cluster: number): boolean =>
    windows.some((window) => cluster >= window.first && cluster < window.end)
  const free = freeClusters(map, end, isInWindow)
  const moves: Move[] = []
  const away: Unit[] = []
  const placements: Move[] = []
  for (const { first, singles, large, unit, straddles } of windows) {
    for (const single of singles) {
      const to = free.next()
      const one = { first: single, clusters: 1 }
      if (to.done === true) away.push(one)
      else moves.push({ ...one, to: to.value })
    }
    away.push(...large, ...(straddles ? [unit] : []))
    let to = first
    for (const back of [...large, unit]) {
      placements.push({ ...back, to })
      to += back.clusters
    }
  }
  return { moves, away, placements }
}

function chooseWindows(map: ClusterMap, end: number, unplaced: readonly Unit[], mostAway: number): Window[] {
  const windows: Window[] = []
  let below = end
  let left = mostAway
  const isStraddling = ({ first }: Unit): boolean => first < end
  const inOrder = [...unplaced].sort((a, b) => Number(isStraddling(b)) - Number(isStraddling(a)))
  for (const unit of inOrder) {
    const straddles = isStraddling(unit)
    if (straddles) {
      below = unit.first
      if (unit.clusters > left) continue
    }
    const needed = straddles ? unit.first + unit.clusters - end : unit.clusters
    const most = straddles ? left - unit.clusters : left
    const found = windowBelow(map, below, needed, { mostLarge: most, isAnchored: straddles })
    if (found === undefined) continue
    windows.push({ ...found, unit, straddles, end: straddles ? end : found.end })
    below = found.first
    for (const { clusters } of found.large) left -= clusters
    if (straddles) left -= unit.clusters
    // What single clusters have no free ones to go to is away as well.
    left = Math.max(0, left - found.singles.length)
  }
  return windows
}

/** The highest range below `below` with so much room, whatever is single counted as room. */
function windowBelow(
  map: ClusterMap,
  below: number,
  needed: number,
  { mostLarge, isAnchored }: { readonly mostLarge: number; readonly isAnchored: boolean },
): Pick<Window, 'first' | 'end' | 'singles' | 'large'> | undefined {
  let end = below
  let room = 0
  let large: Unit[] = []
  let largeClusters = 0
  let singles: number[] = []
  for (let cluster = below - 1; cluster > 0;) {
    const unit = map.isFree(cluster) ? undefined : map.unitAt(cluster)
    if (map.isFixed(cluster)) {
      if (isAnchored) return undefined
      end = cluster
      room = 0
      large = []
      largeClusters = 0
      singles = []
      cluster--
      continue
    }
    if (unit === undefined || unit.clusters === 1) {
      room++
      if (unit !== undefined) singles.push(cluster)
    } else {
      largeClusters += unit.clusters
      if (largeClusters > mostLarge) return undefined
      large.push(unit)
    }
    const first = unit?.first ?? cluster
    if (room >= needed) return { first, end, singles: singles.reverse(), large: large.reverse() }
    cluster = first - 1
  }
  return undefined
}
