import test from 'ava'
import { seedOfRun, SeededRandom } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'
import { imageRound } from './image-round.js'
import { queueRound } from './queue-round.js'
import { threadRound } from './thread-round.js'

const kinds = { imageRound, queueRound, threadRound }

for (const [name, round] of Object.entries(kinds)) {
  test.serial(`a few rounds of all at once, in miniature: ${name}`, async (t) => {
    t.timeout(5 * 60_000)
    const folder = await makeFolder(t)
    const seed = seedOfRun()
    for (let index = 0; index < 2; index++) {
      const { requests, problems } = await round(folder, new SeededRandom(seed + index))
      t.deepEqual(problems, [], `seed ${seed}, round ${index}`)
      t.true(requests > 0)
    }
  })
}
