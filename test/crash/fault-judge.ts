import { Qcow2Error } from '../../lib/base/errors.js'
import { checkQcow2 } from '../../lib/qcow2/check.js'
import type { DeviceEvent } from '../../lib/queue/memory-device.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { SeededRandom } from '../support/seeded-random.js'
import { eachChoice } from './choices.js'
import { type DeviceLog, readLog } from './device-log.js'
import { DurableDisk } from './durable-disk.js'
import { explore, historyOf } from './explore.js'
import { isSnapshotStep } from './frozen-disk.js'
import { closingId, type FaultRecording } from './fault-run.js'
import { type FaultKind, isHarmless, isTransient } from './fault-kinds.js'
import type { GuestHistory } from './guest-history.js'
import { judgeContents } from './judge-contents.js'
import { describeValue } from './payload.js'

export type Verdict = { readonly problem: string | undefined; readonly states: number }

/** Sampled at each crash point: there are thousands of runs. */
const limits = { perPoint: 12, exhaustive: 16 }

/** Of states that a repair has to come before. */
const lazyLimits = { perPoint: 3, exhaustive: 1 }

/**
 * Whether a run on a failing device has kept what is promised: clean errors, nothing corrupt and nothing lost that a flush has promised, in
 * any crash and after the closing; reads that show old or new; and after a failed sync no flush that succeeds and no write.
 */
export async function judgeRun(recording: FaultRecording, kind: FaultKind, seed: number): Promise<Verdict> {
  const problem =
    uncleanError(recording) ??
    (isHarmless(kind) ? anyError(recording) : undefined) ??
    afterFailedSync(recording)
  if (problem !== undefined) return { problem, states: 0 }
  const log = readLog(recording.events, recording.start)
  const history = historyOf(recording, log)
  const shown = wrongRead(recording, log, history) ?? (await wrongAtLast(recording, log, history, kind))
  if (shown !== undefined) return { problem: shown, states: 0 }
  if (recording.workload.setting.lazy) return await exploreLazy(recording, log, history, seed)
  const { states, finding } = explore({ ...recording, reads: [] }, { limits, mayLeak: true, seed })
  return { states, problem: finding?.problem }
}

/** Every failure says what it is, of which file, and in the system's own terms. */
function uncleanError(recording: FaultRecording): string | undefined {
  const errors = [...recording.failures]
  if (recording.openError !== undefined) errors.push([-1, recording.openError])
  const resizeFailed = recording.requests.some(
    ({ id, step }) =>
      (step.kind === 'resize' || step.kind === 'snapshot-apply') && recording.failures.has(id),
  )
  for (const [id, error] of errors) {
    // Behind the end of a disk that could not be made larger.
    if (error instanceof RangeError && resizeFailed) continue
    // A snapshot that could not be made, or was deleted although that seemed to fail.
    if (codeOf(error) === 'ERR_SNAPSHOT_NOT_FOUND' && isMissing(recording, id)) continue
    const isClean =
      error instanceof Qcow2Error &&
      ['ERR_IO', 'ERR_NO_SPACE', 'ERR_POISONED'].includes(error.code) &&
      error.path !== undefined &&
      error.errno !== undefined
    if (!isClean)
      return `request ${id}: an error that is not clean: ${String(error)} ${JSON.stringify(error)}`
  }
  return undefined
}

/** Whether what was to be done to a snapshot may have met none: not all that was done before has succeeded. */
function isMissing({ workload, frozen, failures, requests }: FaultRecording, id: number): boolean {
  const step = workload.steps[id]
  if (step === undefined || !isSnapshotStep(step)) return false
  const made = [...frozen].find(([, one]) => one.name === step.name)
  const earlier = requests.filter(
    (other) => other.id < id && isSnapshotStep(other.step) && other.step.name === step.name,
  )
  const isOld = workload.start.snapshots.some(({ name }) => name === step.name)
  return (!isOld && made === undefined) || earlier.some((other) => failures.has(other.id))
}

function anyError({ failures, openError }: FaultRecording): string | undefined {
  const [first] = openError === undefined ? failures.values() : [openError]
  if (first === undefined) return undefined
  return `nothing has failed, but: ${first instanceof Error ? first.message : 'something'}`
}

/** When the first sync had failed; infinity: none has. */
function firstFailedSync(events: readonly DeviceEvent[]): number {
  const at = events.findIndex((event) => event.type === 'SEND' && event.error !== 0)
  return at < 0 ? Number.POSITIVE_INFINITY : at
}

/** A flush that succeeds afterwards is a lie: what the failed one should have covered may be gone. And nothing is written any more. */
function afterFailedSync(recording: FaultRecording): string | undefined {
  const failed = firstFailedSync(recording.events)
  const steps = new Map(recording.requests.map(({ id, step }) => [id, step]))
  const late = new Set<number>()
  for (const [time, event] of recording.events.entries()) {
    if (time < failed) continue
    if (event.type === 'GSUB') late.add(event.id)
    if (event.type !== 'GEND') continue
    const kind = steps.get(event.id)?.kind
    if (kind === undefined) continue
    if (event.error === 0 && kind === 'flush') return `a flush (${event.id}) succeeds after a sync has failed`
    if (event.error === 0 && late.has(event.id))
      return `a ${kind} (${event.id}) succeeds after a sync has failed`
    const error = recording.failures.get(event.id)
    if (late.has(event.id) && !(error instanceof RangeError) && codeOf(error) !== 'ERR_POISONED')
      return `a ${kind} (${event.id}) after a failed sync does not say so: ${String(error)}`
  }
  const told = recording.told.filter(({ type }) => type === 'poisoned').length
  if (told > 1) return `that the file is poisoned was told ${told} times`
  return undefined
}

function codeOf(error: unknown): string {
  return error instanceof Qcow2Error ? error.code : ''
}

/** Reads show what is there; after a failed sync what was there when something was last durable, or newer, and never anything else. */
function wrongRead(recording: FaultRecording, log: DeviceLog, history: GuestHistory): string | undefined {
  const failed = firstFailedSync(recording.events)
  for (const { id, lba, values } of [...recording.reads, ...recording.lastReads]) {
    const times = log.requests.get(id)
    if (times === undefined) continue
    const allowed = times.ended > failed ? history.at(times.ended).values : undefined
    for (const [step, value] of values.entries()) {
      const at = lba + step
      const isNow = history.mayRead(at, value, times.submitted, times.ended)
      // It may have fallen back to what was durable.
      const isOld = allowed?.get(at)?.some((one) => one.value === value) ?? false
      if (!isNow && !isOld) {
        const when = allowed === undefined ? '' : ' after a failed sync'
        return `read: lba ${at} shows ${describeValue(value)} to the running guest${when}`
      }
    }
  }
  return undefined
}

/** What the file holds once it is closed. */
async function wrongAtLast(
  recording: FaultRecording,
  log: DeviceLog,
  history: GuestHistory,
  kind: FaultKind,
): Promise<string | undefined> {
  const { start } = recording.workload
  const isClosed = recording.openError === undefined && !recording.failures.has(closingId)
  const bytes =
    recording.workload.setting.lazy && !isClosed ? await repaired(recording.contents) : recording.contents
  if (typeof bytes === 'string') return bytes
  const { problem, leaks } = judgeContents(start, history, bytes, log.end)
  if (problem !== undefined) return `after the closing: ${problem}`
  if (!isClosed || !isTransient(kind) || leaks <= start.leaks) return undefined
  return `leaks: ${leaks} clusters after a clean close, where there were ${start.leaks} at first`
}

/** As opening it for writing would. @returns a problem in words, or the bytes */
async function repaired(bytes: Uint8Array): Promise<Uint8Array | string> {
  const memory = new MemoryBackend({ contents: SparseBytes.from(bytes) })
  const result = await checkQcow2(memory, { repair: 'all' })
  await memory.close()
  if (result.corruptions + result.checkErrors > 0) return `repair leaves ${result.corruptions} corruptions`
  return memory.snapshot()
}

/** As `explore`, where counts may lag: after a crash they are counted anew first. */
async function exploreLazy(
  recording: FaultRecording,
  log: DeviceLog,
  history: GuestHistory,
  seed: number,
): Promise<Verdict> {
  const random = new SeededRandom(seed)
  const durable = new DurableDisk(recording.start, log, recording.workload.start.reader)
  const syncEnds = log.syncs.map(({ ended }) => ended).filter((ended) => ended < log.end)
  const times = new Set([...syncEnds.slice(-2).map((ended) => ended - 1), log.end])
  let states = 0
  for (const time of times) {
    const found: Uint8Array[] = []
    const at = durable.statesAt(time)
    eachChoice(
      at,
      lazyLimits,
      random,
      (atom) => String(atom),
      () => {
        at.settleLength()
        found.push(at.disk.bytes.slice(0, at.disk.length))
        return false
      },
    )
    for (const bytes of found) {
      states++
      const sound = await repaired(bytes)
      const problem =
        typeof sound === 'string'
          ? sound
          : judgeContents(recording.workload.start, history, sound, time).problem
      if (problem !== undefined) return { states, problem: `counted anew after a crash: ${problem}` }
    }
  }
  return { states, problem: undefined }
}
