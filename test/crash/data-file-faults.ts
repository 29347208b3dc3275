import type { DeviceOperation, Failure, Fault } from '../../lib/queue/memory-device.js'
import { runTwoFiles, settingOf, type TwoFileSetting } from './data-file-disk.js'
import { judgeTwoFiles } from './data-file-states.js'

/** Which operation fails, of which file, and how. */
export type TwoFileFault = {
  readonly file: 'own' | 'data'
  /** Of those that can fail so, counted from 0. */
  readonly index: number
  readonly errno: number
  readonly forGood: boolean
}

/** Fails what changes or syncs the file; a sync loses all that it should have made durable. */
function faultOf({ index, errno, forGood }: TwoFileFault, seen: { count: number }): Fault {
  return ({ kind }: Omit<DeviceOperation, 'index'>): Failure | undefined => {
    if (kind === 'read') return undefined
    const at = seen.count++
    if (at !== index && !(forGood && at > index)) return undefined
    return { errno, loses: () => true }
  }
}

/**
 * Run with one fault, and look at what the process leaves in the files: the image is sound, and whatever a flush has acknowledged is there.
 * @returns what is wrong, if anything; and whether there was such an operation
 */
export async function runWithFault(
  setting: TwoFileSetting,
  fault: TwoFileFault,
): Promise<{ problem: string | undefined; happened: boolean; failures: number }> {
  const seen = { count: 0 }
  const run = await runTwoFiles(setting, {}, { [fault.file]: faultOf(fault, seen), mayLose: true })
  const files = { own: run.own.contents, data: run.data.contents }
  const problem = await judgeTwoFiles(run, files, run.order.length)
  return { problem, happened: seen.count > fault.index, failures: run.failures }
}

const errnos = [5, 28] as const

/** Fail each operation of a few runs in turn. @param every  only each so-manieth one */
export async function loopTwoFileFaults(
  seed: number,
  runs: number,
  every: number,
): Promise<{ problem: string | undefined; faults: number; failures: number }> {
  let faults = 0
  let failures = 0
  for (let number = 0; number < runs; number++) {
    const setting = settingOf(seed + number)
    for (const file of ['own', 'data'] as const) {
      for (let index = number % every; ; index += every) {
        const errno = errnos[(index + number) % errnos.length] ?? 5
        const fault = { file, index, errno, forGood: index % 2 === 0 }
        const found = await runWithFault(setting, fault)
        if (!found.happened) break
        faults++
        failures += found.failures
        if (found.problem !== undefined) {
          const problem = `${found.problem}: ${JSON.stringify(fault)} of ${JSON.stringify(setting)}`
          return { problem, faults, failures }
        }
      }
    }
  }
  return { problem: undefined, faults, failures }
}
