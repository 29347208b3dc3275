import { SeededRandom } from '../support/seeded-random.js'
import { disagreement, qemuDisagreement } from './cross-check.js'
import { type Explored, explore, type ExploreOptions, type SampledState } from './explore.js'
import type { Mutant } from './mutant.js'
import { randomWorkload } from './random-workload.js'
import { headerOperation, type OperationName, operationsOn, sequenceWorkload } from './sequences.js'
import { usual, withSetting } from './setting.js'
import { type StartName, withFree } from './start-images.js'
import { record, type Workload } from './workload.js'

export type Hunt = {
  readonly mutant: string
  /** Crash states looked at until it was found out, or in all. */
  readonly states: number
  readonly workloads: number
  /** How it was found out. */
  readonly killedBy: string | undefined
  /** Where the library's checker, or the stock tool's, judges the state that gave it away otherwise than the explorer. */
  readonly disagreement: string | undefined
}

/** Where a mutant is hunted: rules may hide behind clusters that are reserved, or that nobody has used before. */
export type HuntingGround = { readonly reserves: boolean; readonly free: 'fresh' | 'used' }

export const huntingGrounds: readonly HuntingGround[] = [
  { reserves: true, free: 'fresh' },
  { reserves: true, free: 'used' },
  { reserves: false, free: 'fresh' },
  { reserves: false, free: 'used' },
]

export function describeGround({ reserves, free }: HuntingGround): string {
  return `${reserves ? 'with' : 'without'} reservation, on ${free} clusters`
}

export type HuntOptions = {
  readonly ground: HuntingGround
  readonly mostStates: number
  readonly mostWorkloads: number
  readonly seed: number
  /** A file for the stock tool to look at the state that gave the mutant away. */
  readonly scratch?: string
  /** Leave the rule in: nothing must be found then. */
  readonly rightOne?: boolean
  /** As in ExploreOptions. */
  readonly wholeEvery?: number
}

/** Requests of a random workload in a hunt. */
const huntSteps = 60

/** Fewer states of each crash, and more crashes. */
const huntLimits = { perPoint: 50, exhaustive: 64 }

/** Of one workload: a race that has not come up in it does not come up by looking longer. */
const mostOfWorkload = 300

/**
 * Hunt a mutant: short and long workloads on the images where it shows, until one of its crash states is wrong.
 */
export async function hunt(mutant: Mutant, options: HuntOptions): Promise<Hunt> {
  const random = new SeededRandom(options.seed)
  let states = 0
  let workloads = 0
  while (states < options.mostStates && workloads < options.mostWorkloads) {
    const workload = await anyWorkload(mutant, options.ground, random)
    workloads++
    let broken: SampledState | undefined
    const limits = {
      onSample: (sample: SampledState): void => {
        broken = sample
      },
      limits: huntLimits,
      mostStates: Math.min(mostOfWorkload, options.mostStates - states),
      seed: workloads,
      ...(options.wholeEvery === undefined ? {} : { wholeEvery: options.wholeEvery }),
    }
    const { explored, failure } = await runOne(
      workload,
      options.rightOne === true ? undefined : mutant,
      limits,
    )
    states += explored?.states ?? 0
    const problem = failure ?? explored?.finding?.problem
    if (problem === undefined) continue
    const verdict = broken === undefined ? undefined : await crossCheck(workload, broken, options.scratch)
    const killedBy = `${workload.name}: ${problem}`
    return { mutant: mutant.name, states, workloads, killedBy, disagreement: verdict }
  }
  return { mutant: mutant.name, states, workloads, killedBy: undefined, disagreement: undefined }
}

async function crossCheck(
  { start }: Workload,
  sample: SampledState,
  scratch: string | undefined,
): Promise<string | undefined> {
  const ours = await disagreement(start, sample)
  return ours ?? (scratch === undefined ? undefined : await qemuDisagreement(start, sample, scratch))
}

/** Run a workload with a mutant in place, and explore what it leaves. What the run itself throws counts too. */
export async function runOne(
  workload: Workload,
  mutant: Mutant | undefined,
  options: ExploreOptions,
): Promise<{ explored: Explored | undefined; failure: string | undefined }> {
  const undo = mutant?.install()
  try {
    const tampering = mutant?.tampering?.()
    const recording = await record(workload, tampering === undefined ? {} : { tampering })
    return { explored: explore(recording, options), failure: undefined }
  } catch (error) {
    return { explored: undefined, failure: error instanceof Error ? error.message : String(error) }
  } finally {
    undo?.()
  }
}

async function anyWorkload(mutant: Mutant, ground: HuntingGround, random: SeededRandom): Promise<Workload> {
  const workload = await anySteps(mutant, withFree(random.pick(mutant.starts), ground.free), random)
  const setting = { ...usual, ...mutant.setting }
  return withSetting(workload, ground.reserves ? setting : { ...setting, reserves: false })
}

async function anySteps(mutant: Mutant, start: StartName, random: SeededRandom): Promise<Workload> {
  const clusterSize = start === 'near-table' ? 512 : random.pick(mutant.clusterSizes)
  // What is done to snapshots takes long to look at, and hides no other rule.
  const isNeeded = mutant.needs?.some((name) => name.startsWith('snapshot-')) ?? false
  if (random.chance(mutant.needs === undefined ? 0.8 : 0.15)) {
    const workload = await randomWorkload(random.integer(2 ** 31), {
      steps: huntSteps,
      start,
      clusterSize,
      isStill: !isNeeded,
    })
    return mutant.isUncached === true ? { ...workload, uncached: true } : workload
  }
  const known = operationsOn(start).filter((name) => isNeeded || !name.startsWith('snapshot-'))
  const needed = (mutant.needs ?? []).filter((name) => known.includes(name) || name === headerOperation)
  const names: OperationName[] = [...needed]
  const extra = needed.length > 0 && random.chance(0.7) ? 0 : 1 + random.integer(4)
  while (names.length < needed.length + extra) {
    names.splice(random.integer(names.length + 1), 0, random.pick(known))
  }
  // Most of what goes wrong takes a flush that runs meanwhile.
  const window = mutant.window ?? random.pick([1, 2, 2, 3, 4])
  const deviceSeed = window === 1 && mutant.window === undefined ? 0 : random.integer(10_000)
  // Odd ones hold requests up.
  const order = mutant.isRace === true ? deviceSeed | 1 : deviceSeed
  return await sequenceWorkload(start, clusterSize, names, window, order)
}
