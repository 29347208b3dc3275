import type { EdgeScenario } from './edges.js'
import { explore } from './explore.js'
import { runOne } from './hunt.js'
import type { Mutant } from './mutant.js'
import { workloadFromName } from './replay.js'
import { record } from './workload.js'

/** More than any of the scenarios has at one crash. */
const limits = { perPoint: 1, exhaustive: 2 ** 18 }

export type EdgeExplored = {
  readonly states: number
  readonly points: number
  /** What is wrong with the right one, or that not all of its states were looked at, or that a mutant survives. */
  readonly problem: string | undefined
}

/** Look at every state that a crash of this workload can leave; and at those of its mutants, until each is found out. */
export async function exploreEdge(scenario: EdgeScenario, mutants: readonly Mutant[]): Promise<EdgeExplored> {
  const workload = await workloadFromName(scenario.workload)
  const { states, points, exhaustivePoints, finding } = explore(await record(workload), { limits })
  const problem =
    finding?.problem ??
    (points === exhaustivePoints ? undefined : `${points - exhaustivePoints} crashes only sampled`)
  if (problem !== undefined) return { states, points, problem }
  for (const name of scenario.mutants) {
    const mutant = mutants.find((one) => one.name === name)
    if (mutant === undefined) return { states, points, problem: `there is no mutant ${name}` }
    const { explored, failure } = await runOne(workload, mutant, { limits })
    if (explored?.finding === undefined && failure === undefined) {
      return { states, points, problem: `${name} survives all its states` }
    }
  }
  return { states, points, problem: undefined }
}
