import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Campaign, otherSettings, type Tally } from './campaign.js'
import { exploreEdge } from './edge-scenarios.js'
import { allEdges, edges, elsewhere } from './edges.js'
import { faultLoop } from './faults.js'
import { faultKinds } from './fault-kinds.js'
import { faultWorkloads } from './fault-workloads.js'
import { describeGround, hunt, huntingGrounds } from './hunt.js'
import { mutants } from './mutants.js'
import { huntInFaults } from './fault-hunt.js'
import { faultMutants } from './fault-mutants.js'
import { replayLine } from './replay.js'
import { headerOperation, shortOperations, shortStarts } from './sequences.js'

/**
 * npm run crash -- [--budget STATES] [--all] [--seed N] [--no-mutants] [--no-faults] [--qemu SAMPLES]
 * npm run crash -- --replay LINE [--save FILE]
 *
 * --all: all sequences of one and two operations, and of three of the short list, whatever the budget is.
 */
const { values } = parseArgs({
  options: {
    budget: { type: 'string', default: '100000' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
    qemu: { type: 'string', default: '50' },
    'no-mutants': { type: 'boolean', default: false },
    all: { type: 'boolean', default: false },
    'no-faults': { type: 'boolean', default: false },
    replay: { type: 'string' },
    save: { type: 'string' },
  },
})

const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

/** Beside what a guest does. */
const headerSequences = {
  title: 'header strings, 3',
  operations: [headerOperation, 'write', 'overwrite', 'flush', 'grow'],
} as const

/** Images with bitmaps are looked at for themselves. */
const bitmapSequences = { title: 'bitmaps, 2', starts: ['bitmaps'] } as const

/** So are encrypted ones. */
const encryptedSequences = { title: 'encrypted, 2', starts: ['encrypted'] } as const

/** The specification's limit: a mutant that takes longer is a hole in the tests. */
const mutantStates = 10_000

async function explored(budget: number, seed: number): Promise<boolean> {
  const sampling = { every: values.all ? 50 : 100, qemu: Number(values.qemu), states: budget }
  const campaign = new Campaign(seed, sampling, { progress: progressLine() })
  const share = (part: number): number => (values.all ? Number.POSITIVE_INFINITY : budget * part)
  try {
    const all = [await campaign.sequences(1, budget)]
    for (const setting of otherSettings) await campaign.sequences(1, budget, { setting })
    all.push(await campaign.sequences(2, share(0.2)))
    const short = { title: 'sequences of 3', starts: shortStarts, operations: shortOperations }
    all.push(await campaign.sequences(3, share(0.3), short))
    await campaign.sequences(3, budget * 0.02, headerSequences)
    await campaign.sequences(2, budget * 0.05, bitmapSequences)
    await campaign.sequences(2, budget * 0.05, encryptedSequences)
    await campaign.sequences(3, budget * 0.1, { title: 'other sequences of 3' })
    // Enough of these, whatever came before.
    await campaign.random(200, Math.max(budget - campaign.states, budget * 0.3))
    say('')
    for (const [scenario, tally] of campaign.tallies) say(line(scenario, tally))
    say(`sequences of 3: of ${shortOperations.join(', ')}; on ${shortStarts.join(', ')}`)
    all.forEach((isAll, index) =>
      say(`sequences of ${index + 1}: ${isAll ? 'all of them' : 'some of them, by seed'}`),
    )
    say(
      `${campaign.states} states; ${campaign.checked} judged by check and read as well, ${campaign.checkedByQemu} by qemu-img`,
    )
    say(`most leaks in a state: ${campaign.mostLeaks} clusters`)
    if (campaign.failure !== undefined) say(`FAILED: ${campaign.failure}`)
    return campaign.failure === undefined
  } finally {
    await campaign.end()
  }
}

async function edgesExplored(): Promise<boolean> {
  let isGood = true
  for (const [edge, scenarios] of Object.entries(edges)) {
    for (const scenario of scenarios) {
      const { states, points, problem } = await exploreEdge(scenario, mutants)
      if (problem !== undefined) isGood = false
      const found = `${states} states at ${points} crashes, all of them; finds out ${scenario.mutants.join(', ')}`
      say(`${edge.padEnd(4)} ${scenario.workload}: ${problem === undefined ? found : `FAILED: ${problem}`}`)
    }
  }
  const others = Object.entries(elsewhere).map(([edge, file]) => `${edge} by ${file}`)
  say(`${Object.keys(edges).length} of ${allEdges.length} edges here; ${others.join(', ')}`)
  return isGood
}

function line(
  scenario: string,
  { workloads, states, points, exhaustivePoints, milliseconds }: Tally,
): string {
  const rate = Math.round((states * 1000) / Math.max(1, milliseconds))
  return `${scenario.padEnd(26)} ${workloads} workloads, ${states} states at ${points} crashes (${exhaustivePoints} of them exhaustively), ${rate} a second`
}

/** Every two seconds, on the same line where that is possible. */
function progressLine(): (scenario: string, tally: Tally) => void {
  let last = performance.now()
  return (scenario, tally) => {
    if (performance.now() - last < 2000) return
    last = performance.now()
    process.stdout.write(
      `${process.stdout.isTTY ? '\r\u001b[K' : ''}${line(scenario, tally)}${process.stdout.isTTY ? '' : '\n'}`,
    )
  }
}

async function hunted(seed: number): Promise<boolean> {
  let survivors = 0
  let hunts = 0
  for (const mutant of mutants) {
    const fates: string[] = []
    for (const ground of huntingGrounds) {
      if (mutant.hidden?.on(ground) === true) continue
      hunts++
      const found = await hunt(mutant, { ground, mostStates: mutantStates, mostWorkloads: 1000, seed })
      if (found.killedBy === undefined) {
        survivors++
        fates.push(`SURVIVES ${describeGround(ground)}`)
      } else fates.push(String(found.states))
    }
    say(`${mutant.name.padEnd(10)} without "${mutant.lacks}": killed after states ${fates.join(', ')}`)
  }
  say(
    `${mutants.length} mutants hunted on ${hunts} grounds, with and without reservation, on fresh and on used clusters: ${survivors} survive`,
  )
  return survivors === 0
}

async function failed(): Promise<boolean> {
  let faults = 0
  const workloads = await faultWorkloads()
  for (const workload of workloads) {
    for (const kind of faultKinds) {
      const loop = await faultLoop(workload, kind)
      faults += loop.faults
      if (loop.problem === undefined) continue
      say(`FAILED: ${loop.problem}`)
      return false
    }
  }
  say(`${faults} faults in ${workloads.length} workloads: all clean`)
  let survivors = 0
  for (const mutant of faultMutants) {
    for (const way of mutant.foundBy) {
      const problem = await huntInFaults(mutant, way, workloads)
      if (problem === undefined) survivors++
      const fate = problem === undefined ? 'SURVIVES' : `killed: ${problem}`
      say(`${mutant.name.padEnd(10)} without "${mutant.lacks}", ${way}: ${fate}`)
    }
  }
  return survivors === 0
}

async function replayed(text: string): Promise<boolean> {
  const { problem, bytes } = await replayLine(text)
  say(problem ?? 'nothing is wrong with this state')
  if (bytes !== undefined) {
    const file = values.save ?? join(tmpdir(), 'crash.qcow2')
    await writeFile(file, bytes)
    say(`the image is in ${file}`)
  }
  return problem === undefined
}

async function main(): Promise<void> {
  const seed = Number(values.seed)
  let isGood: boolean
  if (values.replay !== undefined) isGood = await replayed(values.replay)
  else {
    say(`seed ${seed}`)
    isGood = await explored(Number(values.budget), seed)
    isGood = (await edgesExplored()) && isGood
    if (!values['no-mutants']) isGood = (await hunted(seed)) && isGood
    if (!values['no-faults']) isGood = (await failed()) && isGood
  }
  process.exitCode = isGood ? 0 : 1
}

await main()
