import { parseArgs } from 'node:util'
import { compressedRun } from './compressed-faults.js'
import { faultCampaign, type Totals } from './fault-campaign.js'
import { type FaultKind, faultKinds } from './fault-kinds.js'
import { faultRun } from './faults.js'
import { fullRun } from './full-device.js'
import { heldInOrder } from './held-order.js'
import { workloadFromName } from './replay.js'

/**
 * npm run faults -- [--count FAULTS] [--seed N] [--threads N]
 * npm run faults -- --replay LINE
 */
const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '50000' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 20) },
    threads: { type: 'string' },
    replay: { type: 'string' },
  },
})

const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

/** What a problem's text says it is. */
const kindsOfProblems: readonly [string, RegExp][] = [
  ['images corrupt', /corrupt|leaks|autoclear/],
  ['hangs', /hangs/],
  ['unhandled rejections', /unhandled/],
  ['acknowledged bytes lost or foreign ones shown', /content|read:|size:|snapshot:|shows/],
  ['other failures', /(?:)/],
]

function report({ faults, problems, count, states, stops }: Totals): void {
  for (const [kind, number] of faults) say(`${String(number).padStart(8)}  ${kind}`)
  say(`${String(count).padStart(8)}  faults in all; ${states} crash states; guests held ${stops} times`)
  const left = new Set(problems)
  for (const [name, pattern] of kindsOfProblems) {
    const mine = [...left].filter((problem) => pattern.test(problem.split('\n')[0] ?? ''))
    for (const problem of mine) left.delete(problem)
    say(`${String(mine.length).padStart(8)}  ${name}`)
  }
  for (const problem of problems) say(`FAILED: ${problem}`)
}

async function replayed(line: string): Promise<string | undefined> {
  const words = line.split('|')
  if (words[0] === 'order') return (await heldInOrder(Number(words[1]), Number(words[2]))).problem
  const [name = '', setting = '', kind = '', index, seed] = words
  const isKnown = kind === 'full' || faultKinds.some((known) => known === kind)
  if (!isKnown) throw new Error(`'${kind}' is no kind of fault`)
  if (name === 'compressed') {
    return (await compressedRun(kind as FaultKind, Number(index), Number(seed))).problem
  }
  const workload = await workloadFromName(`${name}|${setting}`)
  if (kind === 'full') return (await fullRun(workload, Number(index), Number(seed))).problem
  const planned = { kind: kind as FaultKind, index: Number(index), seed: Number(seed) }
  return (await faultRun(workload, planned)).problem
}

async function main(): Promise<boolean> {
  if (values.replay !== undefined) {
    const problem = await replayed(values.replay)
    say(problem ?? 'nothing is wrong with this run')
    return problem === undefined
  }
  const seed = Number(values.seed)
  say(`seed ${seed}`)
  const began = performance.now()
  let told = 0
  const total = await faultCampaign({
    count: Number(values.count),
    seed,
    ...(values.threads === undefined ? {} : { threads: Number(values.threads) }),
    progress: ({ count, states }) => {
      if (performance.now() - told < 10_000) return
      told = performance.now()
      say(`${count} faults, ${states} crash states`)
    },
  })
  report(total)
  say(`${((performance.now() - began) / 1000).toFixed(0)} s`)
  return total.problems.length === 0
}

process.exitCode = (await main()) ? 0 : 1
