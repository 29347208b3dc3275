import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { SeededRandom } from '../support/seeded-random.js'
import { imageRound, type Outcome } from './image-round.js'
import { queueRound } from './queue-round.js'
import { threadRound } from './thread-round.js'

/** node dist/test/stress/main.js [--minutes N] [--seed S] [--rounds N]: everything at once, for so long or so often. */
const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '1' },
    rounds: { type: 'string', default: String(Number.MAX_SAFE_INTEGER) },
    seed: { type: 'string', default: String(Date.now() % 2 ** 20) },
  },
})
const seed = Number(values.seed)
const until = performance.now() + Number(values.minutes) * 60_000
const rounds = Number(values.rounds)
const folder = await mkdtemp(join(tmpdir(), 'qcow2-stress-'))

const kinds = { image: imageRound, queue: queueRound, thread: threadRound } as const
const total = { rounds: 0, requests: 0 }
const problems: string[] = []
let told = performance.now()

process.stdout.write(`seed ${seed}\n`)
try {
  while (performance.now() < until && total.rounds < rounds && problems.length === 0) {
    const random = new SeededRandom(seed + total.rounds)
    const name = random.pick(['image', 'image', 'image', 'queue', 'thread'] as const)
    // Two at a time, so that rounds of all kinds meet.
    const other = random.pick(['image', 'queue'] as const)
    const outcomes: Outcome[] = await Promise.all([
      kinds[name](folder, random.fork()),
      kinds[other](folder, random.fork()),
    ])
    for (const outcome of outcomes) {
      total.requests += outcome.requests
      problems.push(...outcome.problems)
    }
    total.rounds++
    if (performance.now() - told < 30_000) continue
    told = performance.now()
    process.stdout.write(`${total.rounds} rounds, ${total.requests} requests\n`)
  }
} finally {
  await rm(folder, { recursive: true, force: true })
}
process.stdout.write(`${total.rounds} rounds, ${total.requests} requests, ${problems.length} problems\n`)
for (const problem of problems)
  process.stdout.write(`FAILED: ${problem} (round ${total.rounds - 1} of seed ${seed})\n`)
process.exitCode = problems.length === 0 ? 0 : 1
