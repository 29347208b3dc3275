import { armFault, type FaultKind, type PlannedFault } from './fault-kinds.js'
import { judgeRun } from './fault-judge.js'
import { runFaulty } from './fault-run.js'
import type { Mutant } from './mutant.js'
import { unhandledRejections } from './unhandled.js'
import type { Workload } from './workload.js'

export type FaultLoop = {
  /** Runs in which something failed. */
  readonly faults: number
  /** Crash states that were looked at. */
  readonly states: number
  /** The first that went wrong, in words. */
  readonly problem: string | undefined
}

/**
 * Run a workload again and again; in run k the k-th operation that the kind can hit is hit. Every failure must end in a clean error, the image be
 * sound at every crash before and after, and keep what flushes have promised; once a sync has failed no flush may succeed.
 * @param mutant  a wrong implementation to be found out
 */
export async function faultLoop(
  workload: Workload,
  kind: FaultKind,
  options: { readonly seed?: number; readonly mutant?: Mutant } = {},
): Promise<FaultLoop> {
  const { seed = 1, mutant } = options
  let faults = 0
  let states = 0
  for (let index = 0; ; index++) {
    const run = await faultRun(workload, { kind, index, seed }, mutant)
    if (!run.hit) return { faults, states, problem: undefined }
    faults++
    states += run.states
    if (run.problem !== undefined)
      return { faults, states, problem: `${run.problem}\n  ${replayLine(workload, { kind, index, seed })}` }
  }
}

/** What shows one run again. */
export function replayLine(workload: Workload, { kind, index, seed }: PlannedFault): string {
  return `npm run faults -- --replay '${workload.name}|${kind}|${index}|${seed}'`
}

export async function faultRun(
  workload: Workload,
  planned: PlannedFault,
  mutant?: Mutant,
): Promise<{ hit: boolean; states: number; problem: string | undefined }> {
  const { start } = workload
  const armed = armFault(planned, { end: start.bytes.length, clusterSize: start.clusterSize })
  const undo = mutant?.install()
  const rejections = unhandledRejections()
  let problem: string | undefined
  let states = 0
  try {
    const recording = await runFaulty(workload, { fault: armed.fault })
    if (armed.hits() > 0)
      ({ problem, states } = await judgeRun(recording, planned.kind, planned.seed + planned.index))
  } catch (error) {
    // A hang, or a broken invariant.
    problem = error instanceof Error ? error.message : String(error)
  } finally {
    undo?.()
  }
  const unhandled = await rejections.end()
  problem ??= unhandled
  return { hit: armed.hits() > 0 || problem !== undefined, states, problem }
}
