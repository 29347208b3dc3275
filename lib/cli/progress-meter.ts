import { isatty } from 'node:tty'
import type { Progress, ProgressListener } from '../base/abort.js'
import { interruptible } from './interrupts.js'
import { print, printError } from './output.js'

export type MeterOptions = {
  /** -p */
  readonly asked: boolean
  /** -q */
  readonly quiet: boolean
  /** --json-progress */
  readonly json: boolean
  /** Nothing is shown before the first report, not even that nothing has been done. Default false. */
  readonly startsLate?: boolean
}

/** Shows how far a long operation has come, and cleans up after itself. */
export type ProgressMeter = {
  readonly listener: ProgressListener
  /** The operation is over: the bar goes away, or its line ends. To be called before anything else is printed. */
  finish(outcome: 'done' | 'failed'): void
  /** Everything is done, but words of its own end the work and follow on what is shown; `finish('failed')` then ends the line behind them. */
  reachEnd(): void
}

/** What a verb that shows its progress asks its operation for. */
export type MeteredWork = { readonly signal: AbortSignal; readonly onProgress: ProgressListener }

/**
 * Run an operation that shows how far it has come, and that Ctrl-C ends. The meter is out of the way when this settles.
 * @param line  the verb's arguments: those of -p, -q and --json-progress that it has
 */
export async function metered<T>(
  line: { has(name: string): boolean },
  work: (control: MeteredWork) => Promise<T>,
): Promise<T> {
  const meter = progressMeter({
    asked: line.has('progress'),
    quiet: line.has('quiet'),
    json: line.has('jsonProgress'),
  })
  try {
    const result = await interruptible((signal) => work({ signal, onProgress: meter.listener }))
    meter.finish('done')
    return result
  } catch (error) {
    meter.finish('failed')
    throw error
  }
}

/**
 * The meter for where we run: lines of JSON on standard error if asked for; on a terminal a bar on standard error, which
 * disappears at the end; with -p and no terminal qemu-img's `    (12.34/100%)` on standard output; otherwise none.
 */
export function progressMeter({ asked, quiet, json, startsLate = false }: MeterOptions): ProgressMeter {
  if (json) return jsonMeter()
  if (quiet) return silentMeter
  if (isatty(2)) return barMeter(asked)
  return asked ? percentMeter(startsLate) : silentMeter
}

const silentMeter: ProgressMeter = {
  listener: () => undefined,
  finish: () => undefined,
  reachEnd: () => undefined,
}

function jsonMeter(): ProgressMeter {
  return { ...silentMeter, listener: (progress) => printError(`${JSON.stringify(progress)}\n`) }
}

const fraction = ({ bytesDone, bytesTotal }: Progress): number =>
  bytesTotal === 0 ? 0 : bytesDone / bytesTotal

/** Other programs read this form: percentages with a carriage return after each, 100.00 and a newline at the end. */
function percentMeter(startsLate: boolean): ProgressMeter {
  let last = Number.NEGATIVE_INFINITY
  const show = (percent: number): void => {
    last = percent
    print(`    (${percent.toFixed(2)}/100%)\r`)
  }
  if (!startsLate) show(0)
  return {
    listener: (progress) => {
      const percent = 100 * fraction(progress)
      if (percent - last >= 1) show(percent)
    },
    finish: (outcome) => {
      if (outcome === 'done') show(100)
      print('\n')
    },
    reachEnd: () => show(100),
  }
}

/** Jobs that are over sooner show no bar at all, unless asked to. */
const barDelayMs = 300
/** A terminal shows no more pictures than this leaves room for. */
const barIntervalMs = 50
const barCells = 30

function barMeter(asked: boolean): ProgressMeter {
  const started = performance.now()
  let shown = Number.NEGATIVE_INFINITY
  let drawn = false
  const clear = (): void => {
    if (drawn) printError('\r\u001b[K')
    drawn = false
  }
  return {
    listener: (progress) => {
      const now = performance.now()
      if (now - shown < barIntervalMs || (!asked && now - started < barDelayMs)) return
      shown = now
      drawn = true
      printError(`\r${barLine(progress, (now - started) / 1000)}\u001b[K`)
    },
    finish: clear,
    reachEnd: clear,
  }
}

/** `convert [##########--------------------]  33 %  1.2 GiB of 3.6 GiB  12 s left` */
export function barLine(progress: Progress, seconds: number): string {
  const done = fraction(progress)
  const cells = Math.floor(done * barCells)
  const bar = '#'.repeat(cells) + '-'.repeat(barCells - cells)
  const percent = String(Math.floor(done * 100)).padStart(3)
  const left = done > 0.01 ? `  ${Math.ceil((seconds / done) * (1 - done))} s left` : ''
  return `${progress.phase} [${bar}] ${percent} %${left}`
}
