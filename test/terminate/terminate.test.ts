import test from 'ava'
import { seedOfRun, SeededRandom } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'
import { makeSource, tasks, terminateRound } from './round.js'

/** `npm run terminate` has two hundred threads, and looks for what they leak. */
const rounds = 5

test('threads that are ended amid their work leave nothing open and nothing corrupt', async (t) => {
  t.timeout(5 * 60_000)
  const folder = await makeFolder(t)
  const source = await makeSource(folder)
  const seed = seedOfRun()
  for (let index = 0; index < rounds; index++) {
    const { threads, problems } = await terminateRound(folder, source, new SeededRandom(seed + index))
    t.true(threads > 0)
    t.deepEqual(problems, [], `QCOW2_SEED=${seed + index}`)
  }
})

for (const task of tasks) {
  test.serial(`a thread can be ended amid ${task}`, async (t) => {
    const folder = await makeFolder(t)
    const source = await makeSource(folder)
    const outcome = await terminateRound(folder, source, new SeededRandom(1), { task, threads: 1 })
    t.deepEqual(outcome, { threads: 1, problems: [] })
  })
}
