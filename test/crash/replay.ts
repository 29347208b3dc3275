import { assert } from '../../lib/base/assert.js'
import { type Finding, explore, replay, type SampledState } from './explore.js'
import { exploreRepair, exploreReuse } from './nested.js'
import { randomFromName } from './random-workload.js'
import { sequenceFromName } from './sequences.js'
import { settingOf, withSetting } from './setting.js'
import { record, type Workload } from './workload.js'

/** What a line names that a failure has printed. */
export type Replayed = {
  readonly problem: string | undefined
  /** The file; undefined where it was the run itself that went wrong. */
  readonly bytes: Uint8Array | undefined
}

/**
 * Show a crash state again.
 * @param line  `WORKLOAD@TIME:CHOICE`; of a second crash `reuse/SEED of WORKLOAD@TIME:CHOICE@TIME:CHOICE`
 */
export async function replayLine(line: string): Promise<Replayed> {
  const nested = /^(?:reuse\/(?<seed>\d+)|repair) of (?<inner>.*)@[^@]*$/.exec(line)
  if (nested !== null) {
    const inner = await stateOf(nested.groups?.['inner'] ?? '')
    const seed = nested.groups?.['seed']
    const explored =
      seed === undefined
        ? await exploreRepair(inner.workload, inner.sample)
        : await exploreReuse(inner.workload, inner.sample, Number(seed))
    return { problem: told(explored?.finding), bytes: inner.sample.bytes }
  }
  const { workload, choice } = await parse(line)
  if (choice === '') return { problem: told(explore(await record(workload)).finding), bytes: undefined }
  const { sample } = await stateOf(line)
  return { problem: sample.problem, bytes: sample.bytes }
}

async function stateOf(line: string): Promise<{ workload: Workload; sample: SampledState }> {
  const { workload, time, choice } = await parse(line)
  return { workload, sample: replay(await record(workload), time, choice) }
}

async function parse(line: string): Promise<{ workload: Workload; time: number; choice: string }> {
  const at = line.lastIndexOf('@')
  const [time = '', choice = ''] = line.slice(at + 1).split(':')
  const name = line.slice(0, at)
  return { workload: await workloadFromName(name), time: Number(time), choice }
}

/** The workload of a name, in the setting that it tells. */
export async function workloadFromName(name: string): Promise<Workload> {
  assert(/^(random|sequence)\//.test(name), `'${name}' is the name of a workload`)
  const [inner = '', words] = name.split('|')
  const workload = inner.startsWith('random/') ? await randomFromName(inner) : await sequenceFromName(inner)
  return words === undefined ? workload : withSetting(workload, settingOf(name))
}

function told(finding: Finding | undefined): string | undefined {
  return finding && `${finding.problem} (at ${finding.time}: ${finding.choice})`
}
