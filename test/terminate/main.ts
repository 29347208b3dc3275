import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { SeededRandom } from '../support/seeded-random.js'
import { makeSource, terminateRound } from './round.js'

/** npm run terminate -- [--count N] [--seed S]: load the addon in so many threads, and end each of them amid its work. */
const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '200' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 20) },
  },
})
const count = Number(values.count)
const seed = Number(values.seed)
const folder = await mkdtemp(join(tmpdir(), 'qcow2-terminate-'))
const problems: string[] = []
let threads = 0
let rounds = 0

process.stdout.write(`seed ${seed}\n`)
try {
  const source = await makeSource(folder)
  while (threads < count && problems.length === 0) {
    const outcome = await terminateRound(folder, source, new SeededRandom(seed + rounds))
    threads += outcome.threads
    problems.push(...outcome.problems)
    rounds++
  }
} finally {
  await rm(folder, { recursive: true, force: true })
}
for (const problem of problems)
  process.stdout.write(`FAILED: ${problem} (round ${rounds - 1} of seed ${seed})\n`)
process.stdout.write(`${threads} threads ended, ${problems.length} problems\n`)
process.exitCode = problems.length === 0 ? 0 : 1
