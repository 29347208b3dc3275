import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { ends, killOnce } from './kill.js'

/** npm run kills -- [--count N] [--seed S]: end so many guests, two at a time, and say what was left. */
const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '500' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
  },
})
const count = Number(values.count)
const seed = Number(values.seed)

const byEnd = Object.fromEntries(ends.map((end) => [end, 0]))
const problems: string[] = []
let promises = 0
let mostLeaks = 0
let next = 0

async function reaper(): Promise<void> {
  while (next < count) {
    const index = next++
    const folder = await mkdtemp(join(tmpdir(), 'qcow2-kills-'))
    try {
      const { end, scenario, problem, ...outcome } = await killOnce(folder, seed + index)
      byEnd[end] = (byEnd[end] ?? 0) + 1
      promises += outcome.promises
      mostLeaks = Math.max(mostLeaks, outcome.leaks)
      if (problem !== undefined) {
        problems.push(`${scenario}, ${end}: ${problem}; npm run kills -- --count 1 --seed ${seed + index}`)
      }
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
    if (index % 50 === 49) process.stdout.write(`${index + 1} of ${count}\n`)
  }
}

process.stdout.write(`seed ${seed}\n`)
await Promise.all([reaper(), reaper()])
const kinds = Object.entries(byEnd).map(([end, times]) => `${times} ${end}`)
process.stdout.write(
  `${count} kills (${kinds.join(', ')}): ${promises} promised changes looked for, at most ${mostLeaks} clusters leaked, ${problems.length} bad\n`,
)
for (const problem of problems) process.stdout.write(`FAILED: ${problem}\n`)
process.exitCode = problems.length === 0 ? 0 : 1
