import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { compressedLoop } from './compressed-faults.js'
import { faultKinds } from './fault-kinds.js'
import { faultWorkloads, slowWorkload } from './fault-workloads.js'
import { faultLoop } from './faults.js'
import { fullLoop } from './full-device.js'
import { heldInOrder } from './held-order.js'

/** What one round of one workload has come to. */
export type FaultTally = {
  /** Faults by their kind. */
  readonly faults: Readonly<Record<string, number>>
  readonly states: number
  readonly stops: number
  /** What went wrong, each with the line that shows it again. */
  readonly problems: readonly string[]
}

/** A round has as many of them as there are workloads, and what comes last. */
type Task = { readonly seed: number; readonly place: number }

/** Every so many rounds the slow workload is run as well. */
const slowEvery = 16

/** Of the device that is full: operations at which a guest is held. */
const heldRuns = 20

/** Run a workload with every fault of every kind. @returns undefined: there is no such workload in a round */
async function runTask({ seed, place }: Task): Promise<FaultTally | undefined> {
  const workloads = await faultWorkloads(seed)
  const workload =
    place === workloads.length && seed % slowEvery === 0 ? await slowWorkload() : workloads[place]
  const faults: Record<string, number> = {}
  const problems: string[] = []
  let states = 0
  let stops = 0
  if (workload === undefined) {
    if (place > workloads.length) return undefined
    for (let index = 0; index < heldRuns; index++) {
      const { problem, stops: held } = await heldInOrder(index, seed)
      stops += held
      faults['held, in order'] = index + 1
      if (problem !== undefined)
        problems.push(`${problem}\n  npm run faults -- --replay 'order|${index}|${seed}'`)
    }
    for (const kind of faultKinds) {
      const loop = await compressedLoop(kind, seed)
      faults[`compressed, ${kind}`] = loop.faults
      if (loop.problem !== undefined) problems.push(loop.problem)
    }
    return { faults, states, stops, problems }
  }
  for (const kind of faultKinds) {
    const loop = await faultLoop(workload, kind, { seed })
    faults[kind] = loop.faults
    states += loop.states
    if (loop.problem !== undefined) problems.push(loop.problem)
  }
  const loop = await fullLoop(workload, { seed })
  faults['full, then resumed'] = loop.faults
  stops += loop.stops
  if (loop.problem !== undefined) problems.push(loop.problem)
  return { faults, states, stops, problems }
}

export type CampaignOptions = {
  /** Faults to be injected at least. */
  readonly count: number
  readonly seed: number
  /** Threads; default: as many as there are processors. */
  readonly threads?: number
  readonly progress?: (total: Totals) => void
}

export type Totals = {
  readonly faults: Map<string, number>
  readonly problems: string[]
  count: number
  states: number
  stops: number
}

/** Inject faults, on all processors, until there were so many or something is wrong. */
export async function faultCampaign(options: CampaignOptions): Promise<Totals> {
  const total: Totals = { faults: new Map(), problems: [], count: 0, states: 0, stops: 0 }
  const tasks = tasksFrom(options.seed)
  const threads = options.threads ?? availableParallelism()
  await Promise.all(Array.from({ length: threads }, () => runThread(tasks, total, options)))
  return total
}

function tasksFrom(first: number): { next: () => Task; endRound: (seed: number) => void } {
  let seed = first
  let place = 0
  return {
    next: () => ({ seed, place: place++ }),
    endRound: (ended) => {
      if (ended !== seed) return
      seed++
      place = 0
    },
  }
}

async function runThread(
  tasks: ReturnType<typeof tasksFrom>,
  total: Totals,
  options: CampaignOptions,
): Promise<void> {
  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: 'faults' })
  try {
    while (total.count < options.count && total.problems.length === 0) {
      const task = tasks.next()
      const tally = await answer(worker, task)
      if (tally === undefined) {
        tasks.endRound(task.seed)
        continue
      }
      for (const [kind, count] of Object.entries(tally.faults)) {
        total.faults.set(kind, (total.faults.get(kind) ?? 0) + count)
        total.count += count
      }
      total.states += tally.states
      total.stops += tally.stops
      total.problems.push(...tally.problems)
      options.progress?.(total)
    }
  } finally {
    await worker.terminate()
  }
}

function answer(worker: Worker, task: Task): Promise<FaultTally | undefined> {
  return new Promise((resolve, reject) => {
    worker.once('error', reject)
    worker.once('message', (tally: FaultTally | undefined) => {
      worker.off('error', reject)
      resolve(tally)
    })
    worker.postMessage(task)
  })
}

if (!isMainThread && workerData === 'faults') {
  parentPort?.on('message', (task: Task) => {
    // What fails here ends the thread, which is told as its error.
    void runTask(task).then((tally) => parentPort?.postMessage(tally))
  })
}
