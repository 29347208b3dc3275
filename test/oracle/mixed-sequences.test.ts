import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { MixedSequence } from '../support/mixed-sequence.js'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

/** A dozen every day; QCOW2_SEQUENCES=2000 or more for a full run. */
const sequences = countOfRun('QCOW2_SEQUENCES', 12)
const seed = seedOfRun()

/** Sequences at a time: while one waits for the stock tool, another runs. */
const lanes = 3

test('whatever we and the stock tools do in turn to a chain of images leaves what a model says, for both', async (t) => {
  t.timeout(24 * 3600 * 1000)
  t.log(`QCOW2_SEED=${seed}, ${sequences} sequences`)
  const folder = await makeFolder(t, { fast: true })
  let next = 0
  const lane = async (): Promise<void> => {
    for (let index = next++; index < sequences; index = next++) {
      const random = new SeededRandom((seed + index) >>> 0)
      const own = join(folder, String(index))
      await mkdir(own)
      const log: string[] = []
      try {
        const sequence = await MixedSequence.begin(own, random, log)
        await sequence.run(random.between(2, 6))
      } catch (error) {
        const replay = `QCOW2_SEED=${seed + index} QCOW2_SEQUENCES=1 npx ava dist/test/oracle/mixed-sequences.test.js`
        const story = log.map((line) => `  ${line}`).join('\n')
        const message = error instanceof Error ? (error.stack ?? error.message) : String(error)
        throw new Error(`replay: ${replay}\n${message}\n${story}`, { cause: error })
      }
      await rm(own, { recursive: true })
    }
  }
  await Promise.all(Array.from({ length: lanes }, lane))
  t.pass()
})
