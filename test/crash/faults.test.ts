import test from 'ava'
import { faultLoop, type FaultKind } from './faults.js'
import { faultWorkloads } from './fault-workloads.js'
import { faultMutants } from './queue-mutants.js'

const once: FaultKind[] = [
  { errno: 'EIO', forEver: false },
  { errno: 'ENOSPC', forEver: false },
]

for (const kind of once) {
  test.serial(
    `${kind.errno} at any one operation of the device ends in a clean error and loses nothing`,
    async (t) => {
      t.timeout(10 * 60_000)
      let faults = 0
      for (const workload of await faultWorkloads()) {
        if (workload.start.name === 'near-table') continue
        const loop = await faultLoop(workload, kind)
        t.is(loop.problem, undefined)
        faults += loop.faults
      }
      t.true(faults > 250, `${faults} faults`)
    },
  )
}

test.serial(
  'a disk that fails for good from any operation on ends in clean errors and loses nothing',
  async (t) => {
    t.timeout(10 * 60_000)
    for (const workload of (await faultWorkloads()).slice(0, 4)) {
      t.is((await faultLoop(workload, { errno: 'EIO', forEver: true })).problem, undefined)
    }
  },
)

for (const mutant of faultMutants) {
  test.serial(`the fault loop finds out ${mutant.name}, which lacks: ${mutant.lacks}`, async (t) => {
    t.timeout(10 * 60_000)
    const problems: (string | undefined)[] = []
    for (const workload of (await faultWorkloads()).slice(0, 2)) {
      for (const kind of once) problems.push((await faultLoop(workload, kind, mutant)).problem)
    }
    t.true(problems.some((problem) => problem !== undefined))
  })
}
