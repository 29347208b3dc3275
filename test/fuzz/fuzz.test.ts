import { join } from 'node:path'
import test from 'ava'
import { seedOfRun, SeededRandom } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'
import { fuzzCampaign } from './campaign.js'
import { mutate } from './mutate.js'
import { sampleImages } from './sample-images.js'
import { tryOut } from './trial.js'

test.serial(
  'unsound images are refused with an error that says why, or read, written and repaired without getting worse',
  async (t) => {
    t.timeout(120_000)
    const seed = seedOfRun()
    t.log(`seed ${seed}`)
    const total = await fuzzCampaign({ count: 600, seed, keep: join(await makeFolder(t), 'kept') })
    t.deepEqual(total.problems, [])
    t.is(total.count, 600)
    // Both happen, or nothing was tried.
    t.true((total.outcomes.get('read ERR_CORRUPT') ?? 0) > 50)
    t.true((total.outcomes.get('write ok') ?? 0) > 50)
  },
)

test.serial('sound images pass all that is tried, but for what takes a permission', async (t) => {
  const samples = await sampleImages(await makeFolder(t))
  for (const { name, bytes } of samples) {
    const { outcomes, problem } = await tryOut(bytes, new SeededRandom(1))
    t.is(problem, undefined, name)
    t.is(outcomes.check, 'ok', name)
    t.is(outcomes.repair, 'ok', name)
    // Nothing beside the file is opened, and nobody has told a passphrase.
    const needs = Object.entries({ 'data-file': 'ERR_DATA_FILE_DENIED', luks: 'ERR_PASSPHRASE_REQUIRED' })
    const refusal = needs.find(([prefix]) => name.startsWith(prefix))?.[1]
    t.true(outcomes.read === (refusal ?? 'ok'), `${name}: ${outcomes.read}`)
    t.is(outcomes.write, outcomes.read, name)
  }
})

test.serial('the same number makes the same unsound image', async (t) => {
  const samples = await sampleImages(await makeFolder(t))
  for (const sample of samples) {
    const one = mutate(sample, new SeededRandom(7))
    const other = mutate(sample, new SeededRandom(7))
    t.true(one.bytes.equals(other.bytes))
    t.is(one.story, other.story)
    t.false(one.bytes.equals(sample.bytes) && one.story === '')
  }
})
