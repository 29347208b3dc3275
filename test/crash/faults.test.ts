import test from 'ava'
import { seedOfRun } from '../support/seeded-random.js'
import { type FaultKind, faultKinds } from './fault-kinds.js'
import { huntInFaults } from './fault-hunt.js'
import { faultMutants } from './fault-mutants.js'
import { faultWorkloads, slowWorkload } from './fault-workloads.js'
import { faultLoop, faultRun } from './faults.js'

/** Of all that can fail, one in so many; which ones is up to the seed. */
const share = 6

test.serial(
  'whatever fails at the device ends in a clean error, corrupts nothing and loses nothing',
  async (t) => {
    t.timeout(10 * 60_000)
    const seed = seedOfRun()
    t.log(`seed ${seed}`)
    let faults = 0
    const kinds = new Set<FaultKind>()
    for (const [place, workload] of (await faultWorkloads()).entries()) {
      for (const [number, kind] of faultKinds.entries()) {
        for (let index = (seed + place + number) % share; ; index += share) {
          const run = await faultRun(workload, { kind, index, seed })
          if (!run.hit) break
          t.is(run.problem, undefined, `${workload.name}|${kind}|${index}|${seed}`)
          faults++
          kinds.add(kind)
        }
      }
    }
    t.log(`${faults} faults`)
    t.is(kinds.size, faultKinds.length)
    t.true(faults > 1000)
  },
)

test.serial(
  'every sync of every workload: once it has failed no flush succeeds, and nothing foreign is read',
  async (t) => {
    t.timeout(10 * 60_000)
    let faults = 0
    for (const workload of await faultWorkloads()) {
      for (const kind of ['sync loses all', 'sync loses some'] as const) {
        const loop = await faultLoop(workload, kind)
        t.is(loop.problem, undefined)
        faults += loop.faults
      }
    }
    t.true(faults > 200, `${faults} faults`)
  },
)

test.serial('a larger refcount table on a failing device', async (t) => {
  const workload = await slowWorkload()
  for (const kind of ['ENOSPC', 'sync loses some'] as const)
    t.is((await faultLoop(workload, kind)).problem, undefined)
})

for (const mutant of faultMutants) {
  test.serial(`the loops find out ${mutant.name}, which lacks: ${mutant.lacks}`, async (t) => {
    t.timeout(10 * 60_000)
    const workloads = await faultWorkloads()
    for (const way of mutant.foundBy) {
      const problem = await huntInFaults(mutant, way, workloads)
      t.log(`${way}: ${problem?.split('\n')[0]}`)
      t.not(problem, undefined, `not by ${way}`)
    }
  })
}
