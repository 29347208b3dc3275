import type { FaultMutant } from './fault-mutants.js'
import { faultLoop } from './faults.js'
import { fullLoop } from './full-device.js'
import { heldInOrder } from './held-order.js'
import type { Workload } from './workload.js'

/** Runs of the order of held requests in which a mutant is looked for. */
const heldRuns = 30

/** Look for a mutant where it is said to show. @returns what gave it away; undefined: nothing */
export async function huntInFaults(
  mutant: FaultMutant,
  way: FaultMutant['foundBy'][number],
  workloads: readonly Workload[],
): Promise<string | undefined> {
  if (way === 'order') {
    for (let index = 0; index < heldRuns; index++) {
      const { problem } = await heldInOrder(index, 1, mutant)
      if (problem !== undefined) return problem
    }
    return undefined
  }
  for (const workload of workloads) {
    const loop =
      way === 'full'
        ? await fullLoop(workload, { seed: 1, mutant })
        : await faultLoop(workload, way, { mutant })
    if (loop.problem !== undefined) return loop.problem
  }
  return undefined
}
