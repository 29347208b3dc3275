import { constants } from 'node:os'
import type { ImageEvent } from '../../lib/image/failure-policy.js'
import type { Fault } from '../../lib/queue/memory-device.js'
import { SeededRandom } from '../support/seeded-random.js'
import { judgeRun } from './fault-judge.js'
import { runFaulty } from './fault-run.js'
import type { Mutant } from './mutant.js'
import { unhandledRejections } from './unhandled.js'
import type { Workload } from './workload.js'

/** What was full, in the order in which it was met. */
export type Meeting = 'data' | 'metadata' | 'reservation' | 'header'

export type FullDevice = {
  readonly fault: Fault
  /** Something was refused. */
  readonly wasFull: () => boolean
  readonly met: ReadonlySet<Meeting>
  readonly makeRoom: () => void
}

/** A device that is full from the operation number `index` on, among those that need room, until there is some. */
export function fullDevice(index: number): FullDevice {
  let counted = 0
  let hasRoom = false
  const met = new Set<Meeting>()
  return {
    wasFull: () => met.size > 0,
    met,
    makeRoom: () => {
      hasRoom = true
    },
    fault: ({ kind, offset, section }) => {
      if (kind !== 'write' && kind !== 'zero' && kind !== 'allocate') return undefined
      if (hasRoom || counted++ < index) return undefined
      const isNode = section !== undefined
      met.add(kind === 'allocate' ? 'reservation' : !isNode ? 'data' : offset === 0 ? 'header' : 'metadata')
      return constants.errno.ENOSPC
    },
  }
}

export type FullLoop = {
  readonly faults: number
  readonly stops: number
  readonly met: ReadonlySet<Meeting>
  readonly problem: string | undefined
}

/**
 * Run a workload again and again with 'enospc'; in run k the device is full from its operation k on. The owner is told, finds room (now
 * and then only at the second attempt), resumes. Then all must be as if nothing had happened: no request fails, nothing leaks, nothing is lost.
 */
export async function fullLoop(
  workload: Workload,
  options: { readonly seed: number; readonly mutant?: Mutant },
): Promise<FullLoop> {
  const met = new Set<Meeting>()
  let stops = 0
  for (let index = 0; ; index++) {
    const run = await fullRun(workload, index, options.seed, options.mutant)
    for (const meeting of run.met) met.add(meeting)
    stops += run.stops
    if (run.met.size === 0) return { faults: index, stops, met, problem: run.problem }
    if (run.problem === undefined) continue
    const problem = `${run.problem}\n  npm run faults -- --replay '${workload.name}|full|${index}|${options.seed}'`
    return { faults: index + 1, stops, met, problem }
  }
}

export async function fullRun(
  workload: Workload,
  index: number,
  seed: number,
  mutant?: Mutant,
): Promise<{ met: ReadonlySet<Meeting>; stops: number; problem: string | undefined }> {
  const device = fullDevice(index)
  const random = new SeededRandom(seed * 1000 + index)
  const isStubborn = random.chance(0.3)
  const undo = mutant?.install()
  const rejections = unhandledRejections()
  let stops = 0
  let isStopped = false
  let problem: string | undefined
  try {
    const recording = await runFaulty(workload, {
      fault: device.fault,
      onError: random.chance(0.5) ? 'enospc' : 'stop',
      onEvent: (event, image) => {
        problem ??= wrongEvent(event, isStopped)
        isStopped = true
        const isInVain = isStubborn && stops === 0
        stops++
        void turns(random.integer(60)).then(() => {
          isStopped = false
          if (!isInVain) device.makeRoom()
          image.resume()
          return undefined
        })
      },
      settled: device.makeRoom,
    })
    const [failure] = [
      ...recording.failures.values(),
      ...(recording.openError === undefined ? [] : [recording.openError]),
    ]
    if (failure !== undefined)
      problem ??= `a request fails: ${failure instanceof Error ? failure.message : 'oddly'}`
    problem ??= (await judgeRun(recording, 'ENOSPC', seed + index)).problem
  } catch (error) {
    problem ??= error instanceof Error ? error.message : String(error)
  } finally {
    undo?.()
  }
  const unhandled = await rejections.end()
  return { met: device.met, stops, problem: problem ?? unhandled }
}

function wrongEvent({ type, stopped, error }: ImageEvent, isStopped: boolean): string | undefined {
  if (type !== 'no-space' || !stopped) return `told of '${type}', stopped: ${String(stopped)}`
  if (error.code !== 'ERR_NO_SPACE' || error.errno !== constants.errno.ENOSPC)
    return `told of ${error.message}`
  return isStopped ? 'told twice of one stop' : undefined
}

export async function turns(count: number): Promise<void> {
  for (let left = count; left > 0; left--) await new Promise((resolve) => setImmediate(resolve))
}
