import test from 'ava'
import { countOfRun, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'
import { killOnce } from './kill.js'

/** Every day a few; `npm run kills` has more. */
const kills = countOfRun('QCOW2_KILLS', 16)

test('what a flush promised survives SIGKILL, exit, an uncaught error and the end of a worker', async (t) => {
  t.timeout(20 * 60_000)
  const seed = seedOfRun()
  t.log(`QCOW2_SEED=${seed}, ${kills} kills`)
  let promises = 0
  for (let index = 0; index < kills; index++) {
    const outcome = await killOnce(await makeFolder(t), seed + index)
    promises += outcome.promises
    const replay = `QCOW2_SEED=${seed + index} QCOW2_KILLS=1 npx ava dist/test/kills/kills.test.js`
    t.is(outcome.problem, undefined, `${outcome.scenario}, ${outcome.end}: ${replay}`)
  }
  t.true(promises > 0, 'some of it had been promised')
})
