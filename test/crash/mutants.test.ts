import { join } from 'node:path'
import test from 'ava'
import { makeFolder } from '../support/temp-folder.js'
import { describeGround, hunt, huntingGrounds } from './hunt.js'
import { mutants } from './mutants.js'

/** A mutant that takes more crash states than this is a hole in the tests. */
const mostStates = 10_000

/** The same every day: whether a race comes up in so many states is a matter of luck, which must not turn with the clock. */
const seed = Number(process.env['QCOW2_SEED'] ?? 1)

for (const mutant of mutants) {
  test.serial(`the explorer finds out ${mutant.name}, which lacks: ${mutant.lacks}`, async (t) => {
    t.timeout(5 * 60_000)
    const scratch = join(await makeFolder(t, { fast: true }), 'disk.qcow2')
    const grounds = huntingGrounds.filter((ground) => mutant.hidden?.on(ground) !== true)
    t.true(grounds.length > 0)
    for (const ground of grounds) {
      // What seems sound by what has changed is looked at as a whole, each time: the short cut must not miss what it is there to find.
      const options = { ground, mostStates, mostWorkloads: 1000, seed, scratch, wholeEvery: 1 }
      const found = await hunt(mutant, options)
      const where = `${describeGround(ground)}, seed ${seed}`
      t.notRegex(found.killedBy ?? '', /by what has changed/)
      t.not(found.killedBy, undefined, `${where}: it survives ${found.states} states`)
      t.is(found.disagreement, undefined, found.killedBy)

      // The same workloads, and no fewer states of them, find nothing wrong with the right one.
      const limits = {
        ground,
        mostStates: Math.max(found.states, 1),
        mostWorkloads: found.workloads,
        seed,
      }
      const right = await hunt(mutant, { ...limits, rightOne: true })
      t.is(right.killedBy, undefined, where)
    }
  })
}
