import { constants } from 'node:os'
import { Qcow2Error } from '../../lib/base/errors.js'
import { explore } from './explore.js'
import type { Mutant } from './mutant.js'
import { type NotedRequest, type Recording, record, type Workload } from './workload.js'

export type FaultKind = {
  readonly errno: 'EIO' | 'ENOSPC'
  /** From operation k on all fail, and not only that one. */
  readonly forEver: boolean
}

export type FaultLoop = {
  /** Runs in which something failed. */
  readonly faults: number
  readonly states: number
  /** The first that went wrong, in words. */
  readonly problem: string | undefined
}

const faultLimits = { perPoint: 12, exhaustive: 16 }

/**
 * Run a workload again and again; in run k the device's operation k fails. Every failure must end in a clean error, the image be
 * sound at every crash before and after, and keep what flushes have promised; once a sync has failed no flush may succeed.
 * @param mutant  a wrong implementation to be found out
 */
export async function faultLoop(workload: Workload, kind: FaultKind, mutant?: Mutant): Promise<FaultLoop> {
  let faults = 0
  let states = 0
  for (let index = 0; ; index++) {
    const run = await runWithFault(workload, kind, index, mutant)
    if (!run.hit) return { faults, states, problem: undefined }
    faults++
    states += run.states
    if (run.problem !== undefined) {
      const named = `${kind.errno} at operation ${index}${kind.forEver ? ' and for ever' : ''} of ${workload.name}`
      return { faults, states, problem: `${named}: ${run.problem}` }
    }
  }
}

async function runWithFault(
  workload: Workload,
  kind: FaultKind,
  index: number,
  mutant: Mutant | undefined,
): Promise<{ hit: boolean; states: number; problem: string | undefined }> {
  let hit = false
  const undo = mutant?.install()
  try {
    const recording = await record(workload, {
      mayFail: true,
      fault: (operation) => {
        if (operation.index !== index && !(kind.forEver && operation.index > index)) return undefined
        hit = true
        return constants.errno[kind.errno]
      },
    })
    if (!hit) return { hit, states: 0, problem: undefined }
    const problem = uncleanError(recording) ?? believedAgain(recording)
    if (problem !== undefined) return { hit, states: 0, problem }
    const explored = explore(recording, { limits: faultLimits, mayLeak: true, seed: index })
    return { hit, states: explored.states, problem: explored.finding?.problem }
  } catch (error) {
    // Opening failed, and must say so cleanly. Anything else is a failure of the run: a hang, or a broken invariant.
    if (error instanceof Qcow2Error && hit) return { hit, states: 0, problem: undefined }
    return { hit: true, states: 0, problem: error instanceof Error ? error.message : String(error) }
  } finally {
    undo?.()
  }
}

function uncleanError(recording: Recording): string | undefined {
  const errors = [...recording.errors, ...(recording.closeError === undefined ? [] : [recording.closeError])]
  const unclean = errors.find((error) => !(error instanceof Qcow2Error))
  return unclean === undefined ? undefined : `an error that is not clean: ${JSON.stringify(unclean)}`
}

/** A flush that succeeds after a sync has failed is a lie: what the failed one should have covered may be gone. */
function believedAgain({ events, requests }: Recording): string | undefined {
  const failed = events.findIndex((event) => event.type === 'SEND' && event.error !== 0)
  if (failed < 0) return undefined
  const isFlush = (id: number): boolean =>
    requests.some((request: NotedRequest) => request.id === id && request.step.kind === 'flush')
  const lie = events.findIndex(
    (event, time) => time > failed && event.type === 'GEND' && event.error === 0 && isFlush(event.id),
  )
  return lie < 0 ? undefined : 'a flush succeeds after a sync has failed'
}
