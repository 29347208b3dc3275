import test from 'ava'
import { faultLoop } from './faults.js'
import { faultWorkloads } from './fault-workloads.js'
import { faultMutants } from './queue-mutants.js'

for (const mutant of faultMutants) {
  test.serial(`the fault loop finds out ${mutant.name}, which lacks: ${mutant.lacks}`, async (t) => {
    t.timeout(10 * 60_000)
    const problems: (string | undefined)[] = []
    for (const workload of (await faultWorkloads()).slice(0, 2)) {
      for (const kind of ['EIO', 'ENOSPC'] as const)
        problems.push((await faultLoop(workload, kind, { mutant })).problem)
    }
    t.true(problems.some((problem) => problem !== undefined))
  })
}
