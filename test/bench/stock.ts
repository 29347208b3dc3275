import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { setImmediate as turn } from 'node:timers/promises'
import { promisify } from 'node:util'
import { spread } from './row.js'

const execute = promisify(execFile)

/** What it needs besides Node.js, and the Debian package that has it. */
const tools = { 'qemu-img': 'qemu-utils', 'qemu-io': 'qemu-utils', strace: 'strace' }

/** @return one line for each tool that is missing, which says how to get it */
export async function missingTools(): Promise<string[]> {
  const missing: string[] = []
  for (const [tool, debianPackage] of Object.entries(tools)) {
    const there = await execute(tool, ['--version']).then(
      () => true,
      () => false,
    )
    if (!there) missing.push(`${tool} is missing: apt-get install ${debianPackage}`)
  }
  return missing
}

export async function stockVersion(): Promise<string> {
  const { stdout } = await execute('qemu-img', ['--version'])
  return stdout.split('\n')[0] ?? ''
}

/** Run a program of the stock tools to its end. */
export async function run(program: string, ...words: string[]): Promise<string> {
  const { stdout } = await execute(program, words, { maxBuffer: 2 ** 26 })
  return stdout
}

/** Milliseconds from start to end of a process, its start included. */
export async function timed(program: string, ...words: string[]): Promise<number> {
  const started = performance.now()
  await run(program, ...words)
  return performance.now() - started
}

/** Milliseconds that `qemu-img bench` says itself: the opening of the image and the process are not in it. */
export async function stockBench(path: string, ...words: string[]): Promise<number> {
  const text = await run('qemu-img', 'bench', '-f', 'qcow2', ...words, path)
  const seconds = /Run completed in ([\d.]+) seconds/.exec(text)?.[1]
  if (seconds === undefined) throw new Error(`qemu-img bench says no time: ${text}`)
  return Number(seconds) * 1000
}

/** The most memory that a process has resident, MiB: its high-water mark, looked at until it ends. */
export async function peakMiB(program: string, ...words: string[]): Promise<number> {
  const child = spawn(program, words, { stdio: 'ignore' })
  const ended = once(child, 'exit')
  let kibibytes = 0
  while (child.exitCode === null && child.signalCode === null) {
    const status = await readFile(`/proc/${String(child.pid)}/status`, 'utf8').catch(() => '')
    kibibytes = Math.max(kibibytes, Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0))
    await turn()
  }
  await ended
  if (child.exitCode !== 0) throw new Error(`${program} ended with status ${String(child.exitCode)}`)
  return kibibytes / 1024
}

/** What such a process takes that does nothing: the median, as the C library's pages are shared with whoever runs. */
export async function idleMiB(): Promise<number> {
  const peaks: number[] = []
  for (let index = 0; index < 5; index++) peaks.push(await peakMiB('qemu-img', '--help'))
  return spread(peaks).median
}

/** The ways in which the stock tool may make requests. @param direct  only without the page cache is there `native` */
export function aioModes(direct: boolean): string[] {
  return ['threads', ...(direct ? ['native'] : []), 'io_uring']
}
