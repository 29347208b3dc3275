import test from 'ava'
import { compressedLoop } from './compressed-faults.js'
import { faultKinds } from './fault-kinds.js'
import { faultMutants } from './fault-mutants.js'

test.serial(
  'whatever fails while compressed clusters are written corrupts nothing and leaks nothing',
  async (t) => {
    t.timeout(5 * 60_000)
    let faults = 0
    for (const kind of faultKinds) {
      for (const seed of [4]) {
        const loop = await compressedLoop(kind, seed)
        t.is(loop.problem, undefined, kind)
        faults += loop.faults
      }
    }
    t.log(`${faults} faults`)
    t.true(faults > 300)
  },
)

test.serial('compressed clusters that a failed sync may have lost are not read', async (t) => {
  const mutant = faultMutants.find(({ name }) => name === 'F6')
  t.truthy(mutant)
  const problems: unknown[] = []
  for (const seed of [3, 4, 5]) problems.push((await compressedLoop('sync loses all', seed, mutant)).problem)
  t.true(problems.some((problem) => problem !== undefined))
})
