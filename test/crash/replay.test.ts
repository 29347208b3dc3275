import test from 'ava'
import { explore } from './explore.js'
import { randomWorkload } from './random-workload.js'
import { replayLine } from './replay.js'
import { runOne } from './hunt.js'
import { mutants } from './mutants.js'
import { record } from './workload.js'

test.serial('the same workload leaves the same log', async (t) => {
  const workload = await randomWorkload(11, { steps: 40 })
  const [one, other] = [await record(workload), await record(workload)]
  t.deepEqual(one.events, other.events)
  t.deepEqual(explore(one, { mostStates: 200 }), explore(other, { mostStates: 200 }))
})

test.serial(
  'a failure is shown again by the line that it prints, and is no failure of the right implementation',
  async (t) => {
    const mutant = mutants.find(({ name }) => name === 'M2')
    const workload = await randomWorkload(5, { steps: 40, start: 'half-full', clusterSize: 512 })
    const { explored } = await runOne(workload, mutant, {})
    const finding = explored?.finding
    if (finding === undefined) return t.fail('the mutant is found out')
    const line = `${finding.workload}@${finding.time}:${finding.choice}`
    const undo = mutant?.install()
    try {
      const { problem, bytes } = await replayLine(line)
      t.is(problem, finding.problem)
      t.true((bytes?.length ?? 0) > 0)
    } finally {
      undo?.()
    }
  },
)

test.serial('a state after a second crash is found by its line', async (t) => {
  const inner = `${(await randomWorkload(11, { steps: 10, start: 'empty', clusterSize: 512 })).name}@0:S`
  t.is((await replayLine(`reuse/4 of ${inner}@0:`)).problem, undefined)
  t.is((await replayLine(`repair of ${inner}@0:`)).problem, undefined)
})

test('what is mapped ahead of its use lies within the file, also where that was cut before', async (t) => {
  const crashed = 'sequence/extended-backing/32768/snapshot-create,snapshot-delete,sub/1/0@40:S10[01]0'
  t.is((await replayLine(`reuse/15117 of ${crashed}@72:S1`)).problem, undefined)
})
