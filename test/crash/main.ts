import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Campaign, type Tally } from './campaign.js'
import { faultLoop } from './faults.js'
import { faultKinds } from './fault-kinds.js'
import { faultWorkloads } from './fault-workloads.js'
import { describeGround, hunt, huntingGrounds } from './hunt.js'
import { mutants } from './mutants.js'
import { faultMutants } from './fault-mutants.js'
import { replayLine } from './replay.js'

/**
 * npm run crash -- [--budget STATES] [--seed N] [--no-mutants] [--no-faults] [--qemu SAMPLES]
 * npm run crash -- --replay LINE [--save FILE]
 */
const { values } = parseArgs({
  options: {
    budget: { type: 'string', default: '100000' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
    qemu: { type: 'string', default: '50' },
    'no-mutants': { type: 'boolean', default: false },
    'no-faults': { type: 'boolean', default: false },
    replay: { type: 'string' },
    save: { type: 'string' },
  },
})

const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

/** The specification's limit: a mutant that takes longer is a hole in the tests. */
const mutantStates = 10_000

async function explored(budget: number, seed: number): Promise<boolean> {
  const campaign = new Campaign(seed, { every: 100, qemu: Number(values.qemu) }, { progress: progressLine() })
  try {
    const all = [await campaign.sequences(1, budget), await campaign.sequences(2, budget * 0.2)]
    all.push(await campaign.sequences(3, budget * 0.3))
    await campaign.random(200, budget - campaign.states)
    say('')
    for (const [scenario, tally] of campaign.tallies) say(line(scenario, tally))
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
  for (const mutant of faultMutants) {
    let problem: string | undefined
    for (const kind of faultKinds) {
      for (const workload of workloads) problem ??= (await faultLoop(workload, kind, { mutant })).problem
    }
    say(
      `${mutant.name.padEnd(10)} without "${mutant.lacks}": ${problem === undefined ? 'SURVIVES' : `killed: ${problem}`}`,
    )
    if (problem === undefined) return false
  }
  return true
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
    if (!values['no-mutants']) isGood = (await hunted(seed)) && isGood
    if (!values['no-faults']) isGood = (await failed()) && isGood
  }
  process.exitCode = isGood ? 0 : 1
}

await main()
