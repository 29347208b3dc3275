import { type ChildProcess, fork } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { SeededRandom } from '../support/seeded-random.js'
import { type Mutant, mutate } from './mutate.js'
import { type Sample, sampleImages } from './sample-images.js'
import { type Fate, tryOut } from './trial.js'

/** Most of a processor's time that all attempts with one unsound image may take. */
const mostMilliseconds = 10_000

/** What has not ended by then never will, however busy the machine is. */
const patienceMilliseconds = 120_000

/** What a process may take while it tries them. */
const mostResidentBytes = 320 * 1024 * 1024

export type FuzzOptions = {
  /** Unsound images. */
  readonly count: number
  readonly seed: number
  /** Where an image is kept that something is wrong with. */
  readonly keep: string
  readonly progress?: (total: FuzzTotals) => void
}

export type FuzzTotals = {
  count: number
  /** What became of them: 'read ok', 'write ERR_CORRUPT', ... */
  readonly outcomes: Map<string, number>
  readonly problems: string[]
  slowestMilliseconds: number
  mostResidentBytes: number
}

/** To a process: which image to try; and back: how it went. */
export type Order = {
  readonly folder: string
  readonly seed: number
  readonly first: number
  readonly step: number
}
export type Word =
  | { readonly type: 'begin'; readonly index: number }
  | {
      readonly type: 'end'
      readonly fate: Fate
      readonly residentBytes: number
      readonly milliseconds: number
    }

/** Try unsound images in processes of their own, one on each processor: one that hangs or crashes is told of like any other. */
export async function fuzzCampaign(options: FuzzOptions): Promise<FuzzTotals> {
  const total: FuzzTotals = {
    count: 0,
    outcomes: new Map(),
    problems: [],
    slowestMilliseconds: 0,
    mostResidentBytes: 0,
  }
  const folder = await mkdtemp(join(tmpdir(), 'qcow2-fuzz-'))
  try {
    const samples = await sampleImages(folder)
    for (const { name, bytes } of samples) await writeFile(join(folder, `${name}.sample`), bytes)
    const names = samples.map(({ name }) => name).join(',')
    await writeFile(join(folder, 'names'), names)
    const step = availableParallelism()
    const lanes = Array.from({ length: step }, (_, first) => ({ folder, seed: options.seed, first, step }))
    await Promise.all(lanes.map((lane) => runLane(lane, samples, total, options)))
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
  return total
}

/** The unsound image number `index` of a seed. */
function unsoundImage(samples: readonly Sample[], seed: number, index: number): Mutant {
  return mutate(samples[index % samples.length] as Sample, new SeededRandom(seed * 1_000_003 + index))
}

/** What is tried with it is chosen anew, so that an image that was kept meets the same again. */
export async function tryNumber(bytes: Uint8Array, seed: number, index: number): Promise<Fate> {
  return await tryOut(bytes, new SeededRandom(seed * 1_000_033 + index))
}

async function runLane(
  order: Order,
  samples: readonly Sample[],
  total: FuzzTotals,
  options: FuzzOptions,
): Promise<void> {
  for (let first = order.first; first < options.count && total.problems.length < 10;) {
    const stopped = await runProcess({ ...order, first }, total, options)
    if (stopped === undefined) return
    const { bytes, story } = unsoundImage(samples, options.seed, stopped.index)
    await mkdir(options.keep, { recursive: true })
    const path = join(options.keep, `${options.seed}-${stopped.index}.qcow2`)
    await writeFile(path, bytes)
    const replay = `npm run fuzz -- --replay ${path} --seed ${options.seed} --index ${stopped.index}`
    total.problems.push(`${stopped.problem}\n  ${story}\n  ${replay}`)
    first = stopped.index + order.step
  }
}

/** Runs until something is wrong. @returns what, with which image; undefined: all have been tried */
function runProcess(
  order: Order,
  total: FuzzTotals,
  options: FuzzOptions,
): Promise<{ index: number; problem: string } | undefined> {
  const child: ChildProcess = fork(fileURLToPath(new URL('child.js', import.meta.url)), { stdio: 'inherit' })
  return new Promise((resolve) => {
    let index = order.first
    let watch: NodeJS.Timeout | undefined
    const stop = (problem: string | undefined): void => {
      clearTimeout(watch)
      child.removeAllListeners()
      child.kill('SIGKILL')
      resolve(problem === undefined ? undefined : { index, problem })
    }
    child.on('exit', (code, signal) => stop(`the process ended: ${signal ?? code}`))
    child.on('message', (word: Word) => {
      if (word.type === 'begin') {
        index = word.index
        clearTimeout(watch)
        watch = setTimeout(() => stop('it hangs'), patienceMilliseconds)
        return
      }
      clearTimeout(watch)
      note(total, word)
      options.progress?.(total)
      if (word.fate.problem !== undefined) stop(word.fate.problem)
      else if (word.milliseconds > mostMilliseconds) stop(`it takes ${word.milliseconds.toFixed(0)} ms`)
      else if (word.residentBytes > mostResidentBytes) {
        stop(`the process has grown to ${Math.round(word.residentBytes / 2 ** 20)} MiB`)
      } else if (index + order.step >= options.count) stop(undefined)
      else child.send({ ...order, first: index + order.step })
    })
    child.send(order)
  })
}

function note(total: FuzzTotals, word: Word & { type: 'end' }): void {
  total.count++
  total.slowestMilliseconds = Math.max(total.slowestMilliseconds, word.milliseconds)
  total.mostResidentBytes = Math.max(total.mostResidentBytes, word.residentBytes)
  for (const [attempt, outcome] of Object.entries(word.fate.outcomes)) {
    const key = `${attempt} ${outcome}`
    total.outcomes.set(key, (total.outcomes.get(key) ?? 0) + 1)
  }
}

/** In a process of its own: try what it is told to, and tell how it went. */
export async function obey(
  order: Order,
  samples: readonly Sample[],
  say: (word: Word) => void,
): Promise<void> {
  say({ type: 'begin', index: order.first })
  const { bytes } = unsoundImage(samples, order.seed, order.first)
  const before = process.cpuUsage()
  const fate = await tryNumber(bytes, order.seed, order.first)
  const { user, system } = process.cpuUsage(before)
  say({
    type: 'end',
    fate,
    residentBytes: process.memoryUsage.rss(),
    milliseconds: (user + system) / 1000,
  })
}
