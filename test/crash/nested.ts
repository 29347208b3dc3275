import { checkQcow2 } from '../../lib/qcow2/check.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { SeededRandom } from '../support/seeded-random.js'
import { type Explored, explore, mostSampledSectors, type SampledState } from './explore.js'
import { workloadOn } from './random-workload.js'
import type { StartImage } from './start-images.js'
import { type Recording, record, type Workload } from './workload.js'

/** Requests after a crash. */
const nestedSteps = 8

const nestedLimits = { perPoint: 40, exhaustive: 64 }

/** What a crash has left, as the image that the next one begins with. Undefined: too large. */
function startFrom(before: Workload, sample: SampledState): StartImage | undefined {
  if (sample.sizeSectors > mostSampledSectors || sample.bytes.length % 512 !== 0) return undefined
  return {
    ...before.start,
    name: `${before.name}@${sample.time}:${sample.choice}`,
    bytes: sample.bytes,
    initial: sample.values,
    leaks: sample.leaks,
    snapshots: sample.snapshots,
    copied: sample.copied,
    mapped: [],
    free: [],
  }
}

const isWithBitmaps = ({ start }: Workload): boolean => start.name.startsWith('bitmaps')

/** Use the image again after a crash, and crash again: what the first crash had left must not be lost either. */
export async function exploreReuse(
  before: Workload,
  sample: SampledState,
  seed: number,
): Promise<Explored | undefined> {
  const start = startFrom(before, sample)
  if (start === undefined) return undefined
  const random = new SeededRandom(seed)
  const name = `reuse/${seed} of ${start.name}`
  // A disk with bitmaps does not go back to a snapshot, and refuses another size while one of them is inconsistent.
  const isStill = isWithBitmaps(before)
  const fresh = workloadOn(start, name, random, { steps: nestedSteps, isStill })
  const workload = { ...fresh, setting: { ...before.setting, lazy: false } }
  return explore(await record(workload, { mayFail: isStill }), { limits: nestedLimits, seed })
}

/** Repair the leaks of a crash, or wrong counts that the header tells of, and crash meanwhile. */
export async function exploreRepair(before: Workload, sample: SampledState): Promise<Explored | undefined> {
  const start = startFrom(before, sample)
  if (start === undefined) return undefined
  const memory = new MemoryBackend({ contents: SparseBytes.from(start.bytes), record: true })
  const result = await checkQcow2(memory, { repair: sample.isDirty ? 'all' : 'leaks' })
  await memory.close()
  // As with the stock tool, counts behind the end of the file stay.
  const leaks = sample.leaks - sample.leaksInFile
  const setting = { ...before.setting, lazy: false }
  const workload = {
    ...before,
    setting,
    name: `repair of ${start.name}`,
    start: { ...start, leaks },
    steps: [],
  }
  const recording: Recording = {
    workload,
    start: start.bytes,
    events: memory.log,
    requests: [],
    reads: [],
    frozen: new Map(),
    errors: [],
    closeError: undefined,
  }
  // Repairing makes no new ones. Counts that are known to be wrong say nothing.
  const mostLeaks = sample.isDirty ? Number.POSITIVE_INFINITY : sample.leaks
  const explored = explore(recording, { limits: nestedLimits, mostLeaks })
  if (result.leaks + result.corruptions === 0 || explored.finding !== undefined) return explored
  const problem = `repair leaves ${result.leaks} leaks and ${result.corruptions} corruptions`
  return { ...explored, finding: { workload: workload.name, time: 0, choice: '', problem } }
}
