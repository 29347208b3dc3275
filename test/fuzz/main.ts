import { readFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { type FuzzTotals, fuzzCampaign, tryNumber } from './campaign.js'

/**
 * npm run fuzz -- [--count IMAGES] [--seed N]
 * npm run fuzz -- --replay FILE --seed N --index N
 */
const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '10000' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 20) },
    replay: { type: 'string' },
    index: { type: 'string', default: '0' },
  },
})

const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

function report(total: FuzzTotals): void {
  for (const [outcome, count] of [...total.outcomes].sort()) say(`${String(count).padStart(8)}  ${outcome}`)
  say(`${String(total.count).padStart(8)}  unsound images tried`)
  const mebibytes = Math.round(total.mostResidentBytes / 2 ** 20)
  say(`the slowest took ${total.slowestMilliseconds.toFixed(0)} ms; no process grew above ${mebibytes} MiB`)
  for (const problem of total.problems) say(`FAILED: ${problem}`)
}

async function main(): Promise<boolean> {
  const seed = Number(values.seed)
  if (values.replay !== undefined) {
    const { outcomes, problem } = await tryNumber(await readFile(values.replay), seed, Number(values.index))
    say(JSON.stringify(outcomes))
    say(problem ?? 'nothing is wrong with this image')
    return problem === undefined
  }
  say(`seed ${seed}`)
  let told = performance.now()
  const total = await fuzzCampaign({
    count: Number(values.count),
    seed,
    keep: 'out/fuzz',
    progress: ({ count }) => {
      if (performance.now() - told < 10_000) return
      told = performance.now()
      say(`${count} images`)
    },
  })
  report(total)
  return total.problems.length === 0
}

process.exitCode = (await main()) ? 0 : 1
