import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { FailingMemory, variable } from './failing-memory.js'

/**
 * node dist/test/memory/main.js [WORK...]: let every allocation of the addon fail in turn, once and for ever, in each kind of work.
 * QCOW2_PREBUILD names the addon's variant `faulty`. Ends with the line `N passed, N failed`.
 */
const guest = fileURLToPath(new URL('guest.js', import.meta.url))
const everyWork = [
  'cached',
  'direct',
  'recorded',
  'image',
  'direct image',
  'image without a queue',
  'environment',
  'ended environment',
]
/** Without a word from it for so long it hangs. Milliseconds. */
const patience = 60_000

const chosen = process.argv.slice(2)
const runs = everyWork
  .filter((work) => chosen.length === 0 || chosen.includes(work))
  .flatMap((work) => [
    { work, when: 'once' },
    { work, when: 'for-ever' },
  ])

let passed = 0
let failed = 0
let faults = 0
const runner = async (): Promise<void> => {
  for (let run = runs.shift(); run !== undefined; run = runs.shift()) {
    const { work, when } = run
    const folder = await mkdtemp(join(tmpdir(), 'qcow2-memory-'))
    try {
      const { problems, injected, turns } = await perform(folder, work, when)
      // Nothing injected is no success: then it was the wrong addon.
      const isGood = problems.length === 0 && injected > 0
      faults += injected
      if (isGood) passed++
      else failed++
      process.stdout.write(
        `${isGood ? 'ok' : 'FAILED'}: ${work}, ${when}: ${injected} faults in ${turns} turns\n`,
      )
      for (const problem of problems.slice(0, 20)) process.stdout.write(`  ${problem}\n`)
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  }
}
await Promise.all([runner(), runner()])
process.stdout.write(`${faults} allocations failed\n${passed} passed, ${failed} failed\n`)
process.exitCode = failed === 0 ? 0 : 1

async function perform(
  folder: string,
  work: string,
  when: string,
): Promise<{ problems: string[]; injected: number; turns: number }> {
  const path = join(folder, 'failing-memory')
  using _memory = FailingMemory.create(path)
  const child = spawn(process.execPath, [guest, folder, work, when], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, [variable]: path },
  })
  let output = ''
  let errors = ''
  const timer = setTimeout(() => child.kill('SIGKILL'), patience)
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
    timer.refresh()
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text
  })
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve) => {
    child.once('close', (code, signal) => resolve([code, signal]))
  })
  clearTimeout(timer)
  const lines = output.trim().split('\n')
  const turns = lines.filter((line) => line.startsWith('at ')).length
  const problems = lines.filter((line) => line.startsWith('PROBLEM'))
  if (code !== 0) {
    const how = signal === 'SIGKILL' ? `hung for ${patience / 1000} s` : `ended with ${signal ?? code}`
    problems.push(`allocation ${turns}: ${how}: ${errors.trim().slice(0, 2000)}`)
  }
  const [, injected = '0'] = /^(\d+) faults$/m.exec(output) ?? []
  return { problems, injected: Number(injected), turns }
}
