import { mkdtemp, rm } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SeededRandom } from '../support/seeded-random.js'
import { type ChoiceLimits, fullLimits } from './choices.js'
import { disagreement, qemuDisagreement } from './cross-check.js'
import { explore, type Explored, type Finding, type SampledState } from './explore.js'
import { exploreRepair, exploreReuse } from './nested.js'
import { randomWorkload } from './random-workload.js'
import {
  headerOperation,
  type OperationName,
  operationsOn,
  sequencesOf,
  sequenceWorkload,
} from './sequences.js'
import { type Setting, usual, withSetting } from './setting.js'
import { extendedClusterSize, type StartName, startsOf } from './start-images.js'
import { record, type Workload } from './workload.js'

/** What was looked at, of one kind of scenario. */
export type Tally = {
  workloads: number
  states: number
  points: number
  exhaustivePoints: number
  /** Of the processor, by this process. */
  milliseconds: number
}

export type Progress = (scenario: string, tally: Tally) => void

/** How much of what the explorer has judged others judge too. */
export type Sampling = {
  /** One state of so many goes to the library's checker and reader, and is used, and repaired, and crashed again. */
  readonly every: number
  /** States for `qemu-img check`, and its reading of the disk: evenly over so many states. */
  readonly qemu: number
  readonly states: number
}

const clusterSizes = [512, 4096, extendedClusterSize] as const

/** Sequences to be looked at. */
export type SequencesOf = {
  readonly title?: string
  readonly starts?: readonly StartName[]
  readonly operations?: readonly OperationName[]
  readonly setting?: Setting
}

/** Half of all runs are in the usual one. */
export const otherSettings: readonly Setting[] = [
  { ...usual, reserves: false },
  { ...usual, lazy: true },
  { ...usual, syncPolicy: 'write' },
  { ...usual, reserves: false, tiny: true },
  { ...usual, zeros: true },
]
const settings: readonly Setting[] = [usual, ...otherSettings, usual, usual, usual, usual]

/** Version 2 has no features, so no lazy counts. */
function inSetting(workload: Workload, setting: Setting): Workload {
  if (setting === usual || (setting.lazy && workload.start.version === 2)) return workload
  return withSetting(workload, setting)
}

/**
 * Explores workloads of many kinds, counts what it has looked at, and stops at the first state that is wrong. One at a time: what
 * mutants change is common to all.
 */
export class Campaign {
  readonly tallies = new Map<string, Tally>()
  /** States that the library's own checker and reader have judged alike. */
  checked = 0
  /** States that the stock tool has judged alike. */
  checkedByQemu = 0
  mostLeaks = 0
  /** What is wrong, in words, with the line that shows it again. */
  failure: string | undefined
  readonly #seed: number
  readonly #sampling: Sampling
  readonly #progress: Progress
  readonly #limits: ChoiceLimits
  #folder: string | undefined

  constructor(
    seed: number,
    sampling: Sampling,
    options: { progress?: Progress; limits?: ChoiceLimits } = {},
  ) {
    this.#seed = seed
    this.#sampling = sampling
    this.#progress = options.progress ?? (() => undefined)
    this.#limits = options.limits ?? fullLimits
  }

  get states(): number {
    let states = 0
    for (const tally of this.tallies.values()) states += tally.states
    return states
  }

  /**
   * All sequences of so many operations on start images, one after the other and at the same time; or, if that would be more than
   * `mostStates`, some of them by seed.
   * @param of  default: all operations on all images, in the usual setting
   * @returns whether it was all of them
   */
  async sequences(length: number, mostStates: number, of: SequencesOf = {}): Promise<boolean> {
    const plans: (() => Promise<Workload>)[] = []
    const setting = of.setting ?? usual
    for (const clusterSize of clusterSizes) {
      for (const start of startsOf(clusterSize, of.starts)) {
        const all = [...operationsOn(start), headerOperation] as const
        const known = all.filter((name) => of.operations?.includes(name) ?? name !== headerOperation)
        for (const names of sequencesOf(length, known)) {
          const made = this.#plansOf(start, clusterSize, names, plans.length)
          plans.push(...made.map((make) => async () => inSetting(await make(), setting)))
        }
      }
    }
    const scenario = of.title ?? `sequences of ${length}`
    shuffle(plans, new SeededRandom(this.#seed))
    for (const plan of plans) {
      if (this.failure !== undefined || this.#tally(scenario).states >= mostStates) return false
      await this.#explore(scenario, await plan())
    }
    return true
  }

  #plansOf(
    start: StartName,
    clusterSize: number,
    names: readonly OperationName[],
    index: number,
  ): (() => Promise<Workload>)[] {
    const together = (): Promise<Workload> => sequenceWorkload(start, clusterSize, names, 3, 2 + index)
    return [() => sequenceWorkload(start, clusterSize, names, 1), ...(names.length > 1 ? [together] : [])]
  }

  /** Random workloads of so many requests each, in any setting. */
  async random(steps: number, mostStates: number): Promise<void> {
    const scenario = `random, ${steps} requests`
    const random = new SeededRandom(this.#seed)
    while (this.failure === undefined && this.#tally(scenario).states < mostStates) {
      const workload = await randomWorkload(random.integer(2 ** 31), { steps })
      await this.#explore(scenario, inSetting(workload, random.pick(settings)))
    }
  }

  /** Remove what the stock tool has looked at. */
  async end(): Promise<void> {
    if (this.#folder !== undefined) await rm(this.#folder, { recursive: true, force: true })
    this.#folder = undefined
  }

  #tally(scenario: string): Tally {
    let tally = this.tallies.get(scenario)
    if (tally === undefined) {
      tally = { workloads: 0, states: 0, points: 0, exhaustivePoints: 0, milliseconds: 0 }
      this.tallies.set(scenario, tally)
    }
    return tally
  }

  async #explore(scenario: string, workload: Workload): Promise<void> {
    const tally = this.#tally(scenario)
    const began = processorTime()
    const samples: SampledState[] = []
    try {
      const explored = explore(await record(workload), {
        limits: this.#limits,
        seed: this.#seed,
        sampleEvery: Math.min(this.#sampling.every, 1 + (tally.workloads % this.#sampling.every)),
        mostSamples: 3,
        onSample: (sample) => {
          samples.push(sample)
        },
      })
      this.#add(tally, explored)
    } catch (error) {
      this.#fail(`${workload.name}: the run itself failed: ${String(error)}`)
    }
    tally.milliseconds += processorTime() - began
    this.#progress(scenario, tally)
    for (const sample of samples) {
      const isDue = (this.states % this.#sampling.every) * samples.length < this.#sampling.every
      if (this.failure === undefined && isDue) await this.#judgeAgain(workload, sample)
    }
  }

  #add(tally: Tally, explored: Explored): void {
    tally.workloads++
    tally.states += explored.states
    tally.points += explored.points
    tally.exhaustivePoints += explored.exhaustivePoints
    this.mostLeaks = Math.max(this.mostLeaks, explored.mostLeaks)
    if (explored.finding !== undefined) this.#fail(describeFinding(explored.finding))
  }

  async #judgeAgain(workload: Workload, sample: SampledState): Promise<void> {
    const where = `${workload.name}@${sample.time}:${sample.choice}`
    const ours = await disagreement(workload.start, sample)
    if (ours !== undefined) {
      this.#fail(`${where}: ${ours}`)
      return
    }
    this.checked++
    // Evenly over the campaign: the stock tool takes longer than a hundred states.
    const share = Math.min(1, this.states / this.#sampling.states)
    if (this.checkedByQemu < this.#sampling.qemu * share) {
      const theirs = await qemuDisagreement(workload.start, sample, await this.#scratch())
      if (theirs !== undefined) {
        this.#fail(`${where}: ${theirs}`)
        return
      }
      this.checkedByQemu++
    }
    await this.#again('used again after a crash', () => exploreReuse(workload, sample, this.checked))
    await this.#again('repaired after a crash', () => exploreRepair(workload, sample))
  }

  async #again(scenario: string, run: () => Promise<Explored | undefined>): Promise<void> {
    const tally = this.#tally(scenario)
    const began = processorTime()
    const explored = await run()
    tally.milliseconds += processorTime() - began
    if (explored !== undefined) this.#add(tally, explored)
    this.#progress(scenario, tally)
  }

  #fail(problem: string): void {
    this.failure ??= problem
  }

  async #scratch(): Promise<string> {
    const parent = existsSync(inMemory) ? inMemory : tmpdir()
    this.#folder ??= await mkdtemp(join(parent, 'qcow2-crash-'))
    return join(this.#folder, 'disk.qcow2')
  }
}

/** Milliseconds that this process has run on any processor: others on the machine do not slow that down much. */
function processorTime(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

/** Where Linux keeps files in memory. */
const inMemory = '/dev/shm'

/** With the line that shows it again. */
export function describeFinding({ workload, time, choice, problem }: Finding): string {
  return `${problem}\n  npm run crash -- --replay '${workload}@${time}:${choice}'`
}

function shuffle(items: unknown[], random: SeededRandom): void {
  for (let index = items.length - 1; index > 0; index--) {
    const other = random.integer(index + 1)
    const item = items[index]
    items[index] = items[other]
    items[other] = item
  }
}
