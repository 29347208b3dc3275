import { sectorSize } from '../../lib/base/units.js'
import { SeededRandom } from '../support/seeded-random.js'
import { BitmapHistory, isBitmapStep } from './bitmap-history.js'
import { type ChoiceLimits, eachChoice, fullLimits } from './choices.js'
import { type DeviceLog, readLog } from './device-log.js'
import type { CrashedDisk, DiskStates } from './disk-states.js'
import type { CopiedRule } from './disk-walk.js'
import { DurableDisk } from './durable-disk.js'
import { type FrozenDisk, isSnapshotStep } from './frozen-disk.js'
import { GuestHistory } from './guest-history.js'
import { HeaderHistory } from './header-walk.js'
import { LeakBound } from './leak-bound.js'
import { Oracle } from './oracle.js'
import { isDirty, type Recording, type Step, type Workload } from './workload.js'

/** A crash state that is not as it must be. */
export type Finding = {
  readonly workload: string
  /** The crash: a position in the log. */
  readonly time: number
  /** What of the uncovered writes is there; see DiskStates.describe. Empty: the run itself was wrong. */
  readonly choice: string
  readonly problem: string
}

/** A state in which a workload could have ended. */
export type SampledState = {
  readonly time: number
  readonly choice: string
  /** The file. */
  readonly bytes: Uint8Array
  readonly sizeSectors: number
  /** By LBA. */
  readonly values: Int32Array
  readonly leaks: number
  readonly leaksInFile: number
  /** Its counts may be wrong, and the header says so. */
  readonly isDirty: boolean
  readonly snapshots: readonly FrozenDisk[]
  readonly copied: CopiedRule
  /** As the oracle says; then `values` is empty. */
  readonly problem: string | undefined
}

export type Explored = {
  readonly states: number
  readonly points: number
  /** Points of which every state was looked at. */
  readonly exhaustivePoints: number
  readonly mostLeaks: number
  readonly finding: Finding | undefined
}

export type ExploreOptions = {
  readonly limits?: ChoiceLimits
  readonly seed?: number
  /** No more states than this. */
  readonly mostStates?: number
  /** Called with one of so many states, and with the one that is wrong. */
  readonly sampleEvery?: number
  readonly onSample?: (sample: SampledState) => void
  /** Sound samples are called for so often; default: no limit. */
  readonly mostSamples?: number
  /** Of so many states that seem sound by what has changed one is looked at as a whole; see Oracle. */
  readonly wholeEvery?: number
  /** Some requests failed on purpose: clusters may be left over at the end. */
  readonly mayLeak?: boolean
  /** Clusters that a crash may leak; default: what the requests explain, see LeakBound. */
  readonly mostLeaks?: number
}

/** Look at the disks that a crash could have left at any time of a recorded run. Stops at the first that is wrong. */
export function explore(recording: Recording, options: ExploreOptions = {}): Explored {
  let log: DeviceLog
  try {
    log = readLog(recording.events, recording.start)
  } catch (error) {
    return nothing(recording, `the run: ${error instanceof Error ? error.message : String(error)}`)
  }
  return new Exploration(recording, log, options).run()
}

/** The one state that a replay line names. */
export function replay(recording: Recording, time: number, choice: string): SampledState {
  return new Exploration(recording, readLog(recording.events, recording.start), {}).judgeOne(time, choice)
}

function nothing(recording: Recording, problem: string): Explored {
  const finding = { workload: recording.workload.name, time: 0, choice: '', problem }
  return { states: 0, points: 0, exhaustivePoints: 0, mostLeaks: 0, finding }
}

class Exploration {
  readonly #recording: Recording
  readonly #log: DeviceLog
  readonly #options: ExploreOptions
  readonly #random: SeededRandom
  readonly #durable: DurableDisk
  readonly #history: GuestHistory
  readonly #header: HeaderHistory
  readonly #bitmaps: BitmapHistory
  readonly #promisesMade: readonly number[]
  readonly #leakBound: LeakBound
  #oracle: Oracle | undefined
  #states = 0
  #samples = 0
  #points = 0
  #exhaustivePoints = 0
  #mostLeaks = 0
  #finding: Finding | undefined

  constructor(recording: Recording, log: DeviceLog, options: ExploreOptions) {
    this.#recording = recording
    this.#log = log
    this.#options = options
    this.#random = new SeededRandom(options.seed ?? 1)
    this.#durable = new DurableDisk(recording.start, log, recording.workload.start.reader)
    this.#history = historyOf(recording, log)
    this.#header = new HeaderHistory(recording, log)
    this.#bitmaps = new BitmapHistory(recording, log)
    this.#promisesMade = promisesMade(recording, log)
    this.#leakBound = new LeakBound(recording, log)
  }

  run(): Explored {
    this.#checkReads()
    for (const time of crashTimes(this.#log, this.#recording)) {
      if (this.#finding !== undefined || this.#states >= this.#most) break
      this.#explorePoint(time)
    }
    const { states, points, exhaustivePoints, mostLeaks, finding } = {
      states: this.#states,
      points: this.#points,
      exhaustivePoints: this.#exhaustivePoints,
      mostLeaks: this.#mostLeaks,
      finding: this.#finding,
    }
    this.#durable.end()
    this.#oracle?.end()
    return { states, points, exhaustivePoints, mostLeaks, finding }
  }

  judgeOne(time: number, choice: string): SampledState {
    const states = this.#durable.statesAt(time)
    states.chooseDescribed(choice)
    states.settleLength()
    const at = Math.max(states.newestPresent(), this.#obligedSince(time))
    const problem =
      this.#theOracle(states.disk).judgeWhole(states.disk, this.#history.at(time), at) ??
      this.#header.judge(states.disk.bytes, time) ??
      this.#judgeBitmaps(states, time)
    return this.#sampleOf(states, time, problem)
  }

  get #most(): number {
    return this.#options.mostStates ?? Number.POSITIVE_INFINITY
  }

  #explorePoint(time: number): void {
    const states = this.#durable.statesAt(time)
    const allowed = this.#history.at(time)
    const since = this.#obligedSince(time)
    const seen = new Set<number>()
    const isEnd = time >= this.#log.end
    const mostLeaks = this.#mostLeaksAt(time)
    this.#points++
    const visit = (): boolean => {
      states.settleLength()
      const signature = states.signature()
      if (seen.has(signature)) return false
      seen.add(signature)
      this.#states++
      const problem =
        this.#judge(states, allowed, since) ??
        this.#header.judge(states.disk.bytes, time) ??
        this.#judgeBitmaps(states, time)
      const { leaks } = this.#theOracle(states.disk)
      this.#mostLeaks = Math.max(this.#mostLeaks, leaks)
      const wrong =
        problem ??
        (isEnd ? this.#leftOver(states.disk, leaks) : undefined) ??
        (leaks > mostLeaks ? `leaks: ${leaks} clusters, where ${mostLeaks} can be explained` : undefined)
      this.#sample(states, time, problem)
      if (wrong === undefined) return this.#states >= this.#most
      const { name } = this.#recording.workload
      this.#finding = { workload: name, time, choice: states.describe(), problem: wrong }
      return true
    }
    const classOf = (atom: number): string => classOfAtom(states, atom)
    const all = eachChoice(states, this.#options.limits ?? fullLimits, this.#random, classOf, visit)
    if (all) this.#exhaustivePoints++
  }

  #judge(states: DiskStates, allowed: ReturnType<GuestHistory['at']>, since: number): string | undefined {
    return this.#theOracle(states.disk).judge(states.disk, allowed, states.newestPresent(), since)
  }

  #judgeBitmaps({ disk }: DiskStates, time: number): string | undefined {
    if (!this.#bitmaps.isConcerned) return undefined
    const oracle = this.#theOracle(disk)
    oracle.look(disk)
    const seen = { sectors: oracle.sizeSectors, valueAt: (lba: number) => oracle.valueAt(lba) }
    return this.#bitmaps.judge(disk, time, seen, { isClosed: time >= this.#log.end })
  }

  #theOracle(disk: CrashedDisk): Oracle {
    this.#oracle ??= new Oracle(this.#recording.workload.start, this.#history, disk, this.#options.wholeEvery)
    return this.#oracle
  }

  #mostLeaksAt(time: number): number {
    if (this.#options.mayLeak === true) return Number.POSITIVE_INFINITY
    return this.#options.mostLeaks ?? this.#leakBound.at(time)
  }

  /** Closed in order, nothing is left over. */
  #leftOver(disk: CrashedDisk, leaks: number): string | undefined {
    if (isDirty(disk.bytes)) return 'the dirty bit is still set after a clean close'
    const before = this.#recording.workload.start.leaks
    if (this.#options.mayLeak === true) return undefined
    if (leaks <= before) return this.#flagsAtEnd(disk)
    return `leaks: ${leaks} clusters after a clean close, where there were ${before} at first`
  }

  /** What operations on snapshots do to flags on the way is over, unless the image began so. */
  #flagsAtEnd(disk: CrashedDisk): string | undefined {
    const { copied = 'exact' } = this.#recording.workload.start
    return copied === 'exact' ? this.#theOracle(disk).judgeFlags(disk) : undefined
  }

  /** What is durable, and what flushes have promised, has not changed since then. */
  #obligedSince(time: number): number {
    let since = -1
    for (const sync of this.#log.syncs) if (sync.ended <= time) since = Math.max(since, sync.ended)
    for (const ended of this.#promisesMade) if (ended <= time) since = Math.max(since, ended)
    return since
  }

  #checkReads(): void {
    for (const { id, lba, values } of this.#recording.reads) {
      const request = this.#log.requests.get(id)
      if (request === undefined) continue
      const wrong = values.findIndex(
        (value, step) => !this.#history.mayRead(lba + step, value, request.submitted, request.ended),
      )
      if (wrong < 0) continue
      const problem = `read: lba ${lba + wrong} showed ${values[wrong]} to the running guest`
      this.#finding = { workload: this.#recording.workload.name, time: request.ended, choice: '', problem }
      return
    }
  }

  #sample(states: DiskStates, time: number, problem: string | undefined): void {
    const { sampleEvery, onSample, mostSamples } = this.#options
    if (onSample === undefined) return
    if (problem === undefined) {
      if (sampleEvery === undefined || this.#states % sampleEvery !== 0) return
      if (this.#samples === mostSamples) return
      this.#samples++
    }
    onSample(this.#sampleOf(states, time, problem))
  }

  #sampleOf(states: DiskStates, time: number, problem: string | undefined): SampledState {
    const oracle = this.#theOracle(states.disk)
    oracle.look(states.disk)
    const { sizeSectors, leaks, leaksInFile, isDirty } = oracle
    const values = new Int32Array(problem === undefined ? Math.min(sizeSectors, mostSampledSectors) : 0)
    for (let lba = 0; lba < values.length; lba++) values[lba] = oracle.valueAt(lba)
    const bytes = states.disk.bytes.slice(0, states.disk.length)
    const snapshots = problem === undefined ? oracle.snapshotsOf(states.disk, this.#history.at(time)) : []
    return {
      time,
      choice: states.describe(),
      snapshots,
      copied: oracle.copied,
      bytes,
      sizeSectors,
      values,
      leaks,
      leaksInFile,
      isDirty,
      problem,
    }
  }
}

/** A disk that has grown by a gibibyte is compared up to here. */
export const mostSampledSectors = 65536

/** Just before each sync is over (most is undecided then), just after each flush is, and the end. */
function crashTimes(log: DeviceLog, recording: Recording): number[] {
  const times = new Set<number>([log.end])
  for (const { ended } of log.syncs) if (ended !== Number.POSITIVE_INFINITY) times.add(ended - 1)
  for (const ended of promisesMade(recording, log)) times.add(ended)
  return [...times].sort((a, b) => a - b)
}

/** When requests have ended that promise something: flushes, and what is durable when it ends. */
function promisesMade(recording: Recording, log: DeviceLog): number[] {
  return recording.requests
    .filter(({ step }) => step.kind === 'flush' || isDurable(step, recording.workload))
    .map(({ id }) => log.requests.get(id)?.ended ?? Number.POSITIVE_INFINITY)
    .filter((ended) => ended !== Number.POSITIVE_INFINITY)
}

/** Whether a request is durable when it ends. */
function isDurable(step: Step, { setting }: Workload): boolean {
  if (step.kind === 'rename' || (step.kind === 'write' && step.fua === true)) return true
  if (isSnapshotStep(step) || isBitmapStep(step)) return true
  return setting.syncPolicy === 'write' && step.kind !== 'read' && step.kind !== 'discard'
}

/** What the guest has done in a recorded run. */
export function historyOf(recording: Recording, log: DeviceLog): GuestHistory {
  const { start } = recording.workload
  const written = recording.requests.flatMap(({ step }) =>
    'lba' in step ? Array.from({ length: step.sectors }, (_, at) => step.lba + at) : [],
  )
  const history = new GuestHistory(start.initial, start.backingSectors, written, start.snapshots)
  for (const { id, step, generation } of recording.requests) {
    const times = log.requests.get(id)
    if (times === undefined) continue
    switch (step.kind) {
      case 'write':
      case 'compress': {
        history.write(step.lba, step.sectors, generation, times, isDurable(step, recording.workload))
        break
      }
      case 'zero':
      case 'unmap': {
        history.zero(step.lba, step.sectors, times, isDurable(step, recording.workload))
        break
      }
      case 'discard': {
        history.discard(step.lba, step.sectors, times)
        break
      }
      case 'flush': {
        history.flush(times)
        break
      }
      case 'resize': {
        history.resize(step.sectors, times, isDurable(step, recording.workload))
        break
      }
      case 'snapshot-create': {
        const frozen = recording.frozen.get(id)
        if (frozen !== undefined) history.createSnapshot(frozen, times)
        break
      }
      case 'snapshot-apply': {
        history.applySnapshot(step.name, times)
        break
      }
      case 'snapshot-delete': {
        history.deleteSnapshot(step.name, times)
        break
      }
      case 'rename':
      case 'bitmap-add':
      case 'bitmap-remove':
      case 'bitmap-clear':
      case 'bitmap-enable':
      case 'bitmap-disable':
      case 'read':
        break
    }
  }
  return history
}

/** Metadata by the cluster that it stands in, data by what it is: as good as the names of the tables, and known without them. */
function classOfAtom(states: DiskStates, atom: number): string {
  const found = states.atoms[atom]
  if (found === undefined) return ''
  if (!found.write.isNode) return found.write.kind
  return found.offset === 0 ? 'header' : `table ${Math.floor(found.offset / (8 * sectorSize))}`
}
