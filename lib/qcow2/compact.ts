import { type LongWork, ProgressReporter, throwIfAborted } from '../base/abort.js'
import { assert } from '../base/assert.js'
import { corrupt, readOnly } from '../base/errors.js'
import type { BlockBackend } from '../queue/backend.js'
import { checkQcow2 } from './check.js'
import { ReferenceCounts } from './check-counts.js'
import { checkedState } from './check-only.js'
import type { CheckState } from './check-state.js'
import { CompactCounts } from './compact-counts.js'
import { ClusterMap, type Move, type Unit } from './compact-map.js'
import { moveUnits, type MoveWork } from './compact-moves.js'
import { CompactOrdering } from './compact-ordering.js'
import { planFill, planWindows } from './compact-plan.js'
import { eachPointer, levels, type Pointer } from './compact-pointers.js'
import { hasDataFile } from './data-file.js'
import { cryptMethods, type Encryption, openEncryption } from './encryption.js'
import { encryptionArea } from './encryption-header.js'
import { clusterOf } from './geometry.js'
import { type Header, refuseContradiction } from './header.js'
import { readFirstCluster, readHeader } from './open-metadata.js'
import { checkTablePlaces } from './open-checks.js'
import { keptAutoclear } from './repair.js'
import { RepairOrdering } from './repair-ordering.js'
import { incompatible } from './spec.js'

export type CompactQcow2Options = LongWork & {
  /** What opens it if it is encrypted by LUKS: where a cluster stands is part of its encryption. */
  readonly encryption?: Encryption | undefined
  /** References that are rewritten in one go; default 250,000, which take about 50 MiB. */
  readonly mostReferences?: number
  /** Bytes that may stand behind everything meanwhile, to make room in one piece; default 256 MiB. */
  readonly mostAwayBytes?: number
}

const defaults = { mostReferences: 250_000, mostAwayBytes: 256 * 1024 * 1024 }

type FoundHeader = Awaited<ReturnType<typeof readFirstCluster>>

/** As a check may take: one byte a cluster in use. */
const mapBytes = 512 * 1024 * 1024

/**
 * Make an image's file as small as what it holds allows. What stands high in the file is moved to free clusters below, then the end is cut off, and what is
 * still free is given back to the host. Clusters that nothing refers to are freed, as `check -r leaks` does. The guest's disk, snapshots with their VM states,
 * bitmaps and everything in the header stay as they are. The caller sees to it that nothing else uses the image.
 *
 * An abort, a failure or a crash leaves a whole image, with some of it moved; at worst it leaks until this, or `check -r leaks`, is run again.
 * What several entries share, and was being moved then, may be there twice.
 *
 * @returns bytes that were moved
 * @throws ERR_CORRUPT, ERR_NOT_SUPPORTED  the image is damaged, or has more than there is memory for: nothing was changed
 * @throws ERR_READ_ONLY, ERR_PASSPHRASE_REQUIRED, ERR_WRONG_PASSPHRASE; ERR_NO_SPACE, ERR_IO; the signal's reason
 */
export async function compactQcow2(
  backend: BlockBackend,
  options: CompactQcow2Options = {},
): Promise<number> {
  const { path } = backend
  if (backend.readOnly) throw readOnly('Cannot compact a file that is open read-only', { path })
  const { header } = await readHeader(backend)
  refuseContradiction(header, path)
  checkTablePlaces(header, { readOnly: false, repairing: false, path })
  // Clusters of a data file stay where they are, so that nothing is decrypted.
  const data =
    header.cryptMethod === cryptMethods.luks && !hasDataFile(header)
      ? await openEncryption(backend, header, backend, { encryption: options.encryption, readOnly: false })
      : undefined
  const state = await soundState(backend, header, options)
  const map = await mapOf(state)
  const ordering = new CompactOrdering(backend)
  const counts = new CompactCounts(backend, state.geometry, map, ordering)
  const work = { backend, geometry: state.geometry, map, counts, ordering, data, signal: options.signal }
  // A repair may have changed it.
  return await new Compaction(work, await readFirstCluster(backend), options).run()
}

/** All references counted, which the counts of the file equal. @throws ERR_CORRUPT */
async function soundState(
  backend: BlockBackend,
  header: Header,
  { signal, onProgress }: LongWork,
): Promise<CheckState> {
  const options = { signal, onProgress }
  if ((header.incompatibleFeatures & incompatible.dirty) !== 0n) {
    // Counts were written lazily, and it was not closed: as whoever opens it to write does.
    refuseDamage(await checkQcow2(backend, { ...options, repair: 'all' }))
  }
  const state = await checkedState(backend, options)
  refuseDamage(state.result)
  if (state.result.leaks === 0) return state
  // Only counts that are too high are lowered, to what has been counted: nothing that is referred to becomes free.
  await checkQcow2(backend, { ...options, repair: 'leaks' })
  const after = await checkedState(backend, options)
  refuseDamage(after.result)
  return after
}

function refuseDamage({ corruptions, checkErrors, findings }: CheckState['result']): void {
  if (corruptions === 0 && checkErrors === 0) return
  const found = findings.find(({ kind, repaired }) => kind !== 'leak' && kind !== 'note' && !repaired)
  const what = `the image is damaged, check and repair it first: ${found?.text ?? 'no finding'}`
  throw corrupt('image', found?.offset ?? 0, what)
}

/** @throws ERR_CORRUPT  two structures claim one cluster: whichever is moved, the other goes with it */
async function mapOf(state: CheckState): Promise<ClusterMap> {
  const { backend, geometry, header, counts } = state
  const map = new ClusterMap(counts, new ReferenceCounts(mapBytes, 'Compacting this image'))
  const unitOf = ({ host, bytes }: Pick<Pointer, 'host' | 'bytes'>): Unit => {
    const first = clusterOf(geometry, host)
    return { first, clusters: clusterOf(geometry, host + bytes - 1) - first + 1 }
  }
  const refuseShared = (host: number): never => {
    throw corrupt('image', host, 'two structures claim one cluster')
  }
  const ownedAlone = ({ first, clusters }: Unit): void => {
    for (let cluster = first; cluster < first + clusters; cluster++)
      if (counts.get(cluster) !== 1) refuseShared(cluster * geometry.clusterSize)
  }
  map.fix({ first: 0, clusters: 1 })
  ownedAlone({ first: 0, clusters: 1 })
  const area = encryptionArea(header)
  if (area !== undefined && area.length > 0) {
    // It was made with the image, so that it stands near its beginning. Moving it would leave key material in clusters that are given up.
    const unit = unitOf({ host: area.offset, bytes: area.length })
    ownedAlone(unit)
    map.fix(unit)
  }
  for (const level of levels) {
    await eachPointer(
      backend,
      level,
      (pointer) => {
        const unit = unitOf(pointer)
        if (level === 'tables' && state.l2References.get(unit.first) > 0) {
          if (!state.mayWriteL2(pointer.host)) refuseShared(pointer.host)
        } else if (level !== 'clusters') ownedAlone(unit)
        if (unit.clusters > 1) map.join(unit)
      },
      () => throwIfAborted(state.options.signal),
    )
  }
  return map
}

class Compaction {
  readonly #work: MoveWork
  readonly #firstCluster: Uint8Array
  readonly #header: Header
  readonly #reporter: ProgressReporter
  readonly #mostReferences: number
  /** Clusters. */
  readonly #mostAway: number
  #movedClusters = 0
  #hasBegun = false
  /** When room was made last: the end that was wanted, and clusters that found none. It has to become better. */
  #before = { least: Number.POSITIVE_INFINITY, unplaced: Number.POSITIVE_INFINITY }

  constructor(work: Omit<MoveWork, 'onMoved'>, found: FoundHeader, options: CompactQcow2Options) {
    const { clusterSize } = work.geometry
    this.#header = found.header
    this.#firstCluster = found.firstCluster
    this.#mostReferences = options.mostReferences ?? defaults.mostReferences
    this.#mostAway = Math.floor((options.mostAwayBytes ?? defaults.mostAwayBytes) / clusterSize)
    this.#reporter = new ProgressReporter(
      options.onProgress,
      'compact',
      clustersToMove(work.map) * clusterSize,
    )
    this.#work = {
      ...work,
      onMoved: (clusters) => {
        this.#movedClusters += clusters
        this.#reporter.advance(clusters * clusterSize)
      },
    }
  }

  /** @returns bytes that were moved */
  async run(): Promise<number> {
    await this.#work.counts.load(this.#header)
    while (await this.#round()) throwIfAborted(this.#work.signal)
    await this.#giveBack()
    this.#reporter.reach(Number.POSITIVE_INFINITY)
    return this.#movedClusters * this.#work.geometry.clusterSize
  }

  /**
   * One step towards the goal: blocks that count nothing go, and everything that is in use comes below an end that has room for just that.
   * @returns whether anything was changed: if not, nothing more can be done
   */
  async #round(): Promise<boolean> {
    const { map, counts } = this.#work
    const unused = counts.unused()
    if (unused.length > 0) {
      await this.#begin()
      await counts.drop(unused)
      return true
    }
    const { used, end } = map.extent()
    const least = counts.leastEnd(used)
    if (end <= least) return false
    const { moves, unplaced } = planFill(map, least, this.#mostReferences)
    if (moves.length === 0) return unplaced.length > 0 && (await this.#makeRoom({ least, end }, unplaced))
    await this.#begin()
    await this.#provide(0, least)
    // Again: where a block stands now nothing else can go.
    await moveUnits(this.#work, planFill(map, least, this.#mostReferences).moves)
    return true
  }

  /** @returns whether there was a way to */
  async #makeRoom(
    { least, end }: { readonly least: number; readonly end: number },
    unplaced: readonly Unit[],
  ): Promise<boolean> {
    const { map, counts, geometry } = this.#work
    const now = { least, unplaced: clustersOf(unplaced) }
    if (now.least >= this.#before.least && now.unplaced >= this.#before.unplaced) return false
    this.#before = now
    const trial = planWindows(map, least, unplaced, this.#mostAway)
    if (trial.placements.length === 0) return false
    // Blocks for what stands behind everything count themselves, and cut it up. There must be no need for another refcount table.
    const longest = Math.max(0, ...trial.away.map((unit) => unit.clusters))
    const furthest = end + 2 * clustersOf(trial.away) + 4 * geometry.refcountsPerBlock
    if (trial.away.length > 0 && (longest >= geometry.refcountsPerBlock || furthest > counts.capacity))
      return false
    await this.#begin()
    await this.#provide(0, least)
    const plan = planWindows(map, least, unplaced, this.#mostAway)
    const away = await this.#placesBehind(end, plan.away)
    await moveUnits(this.#work, inOrder([...plan.moves, ...away]))
    const gone = new Map(away.map(({ first, to }) => [first, to]))
    const back = plan.placements.map((move) => ({ ...move, first: gone.get(move.first) ?? move.first }))
    await moveUnits(this.#work, inOrder(back))
    return true
  }

  async #placesBehind(end: number, units: readonly Unit[]): Promise<Move[]> {
    const moves: Move[] = []
    let to = end
    for (const unit of units) {
      for (;;) {
        await this.#provide(to, to + unit.clusters)
        const used = this.#work.map.counts.counted(to, to + unit.clusters).next()
        if (used.done === true) break
        to = used.value + 1
      }
      moves.push({ ...unit, to })
      to += unit.clusters
    }
    return moves
  }

  async #provide(from: number, to: number): Promise<void> {
    const hasRoom = await this.#work.counts.provide(from, to)
    assert(hasRoom, 'the refcount table reaches so far')
  }

  /** Cut off the end, and let the host have what is free before it. What it cannot take stays: the clusters are free all the same. */
  async #giveBack(): Promise<void> {
    const { map, backend, ordering, geometry, counts } = this.#work
    const { clusterSize } = geometry
    const { end } = map.extent()
    const holes = [...map.freeRuns(end)]
    const length = end * clusterSize
    if (backend.length <= length && holes.length === 0 && !this.#hasBegun) return
    await this.#begin()
    await counts.write()
    await ordering.settled()
    if (backend.length > length) await this.#cutOff(length)
    for (const { first, clusters } of holes)
      await backend.punch(first * clusterSize, clusters * clusterSize).catch(() => undefined)
    await ordering.over()
  }

  /** A block device keeps its length: what it holds behind is given back like a hole. */
  async #cutOff(length: number): Promise<void> {
    const { backend } = this.#work
    if (backend.isDevice !== true) await backend.truncate(length)
    else await backend.punch(length, backend.length - length).catch(() => undefined)
  }

  /** Before the first change: bits that promise that nobody has touched the image. */
  async #begin(): Promise<void> {
    if (this.#hasBegun) return
    this.#hasBegun = true
    const { autoclearFeatures } = this.#header
    if ((autoclearFeatures & ~keptAutoclear) === 0n) return
    const ordering = new RepairOrdering(this.#work.backend)
    await ordering.clearAutoclear(this.#firstCluster, autoclearFeatures & keptAutoclear)
  }
}

/** For progress. */
function clustersToMove(map: ClusterMap): number {
  const { used } = map.extent()
  let clusters = 0
  for (const unit of map.units(used)) clusters += unit.clusters
  return clusters
}

function clustersOf(units: readonly Unit[]): number {
  return units.reduce((sum, { clusters }) => sum + clusters, 0)
}

function inOrder(moves: Move[]): Move[] {
  return moves.sort((a, b) => a.first - b.first)
}
