import test from 'ava'
import { countOfRun, seedOfRun } from '../support/seeded-random.js'
import { Campaign } from './campaign.js'

/** Small enough for every day; `npm run crash` has no such limit. */
const limits = { perPoint: 100, exhaustive: 1024 }
const budget = countOfRun('QCOW2_CRASH_STATES', 10_000)

test.serial('no crash corrupts an image or loses what a flush has promised', async (t) => {
  t.timeout(20 * 60_000)
  const seed = seedOfRun()
  const campaign = new Campaign(seed, { every: 100, qemu: 8, states: budget }, { limits })
  t.teardown(() => campaign.end())
  t.true(await campaign.sequences(1, Number.POSITIVE_INFINITY), campaign.failure)
  t.true(await campaign.sequences(1, Number.POSITIVE_INFINITY, { title: 'encrypted', starts: ['encrypted'] }))
  await campaign.sequences(2, budget * 0.3)
  await campaign.sequences(3, budget * 0.2)
  await campaign.random(60, budget * 0.3)
  t.is(campaign.failure, undefined, `seed ${seed}`)
  t.true(campaign.states >= budget * 0.8, `${campaign.states} states`)
  t.true(
    campaign.checked > 10,
    `${campaign.checked} states judged by the library's checker and reader as well`,
  )
  t.true(campaign.checkedByQemu > 2, `${campaign.checkedByQemu} by the stock tool`)
  for (const scenario of ['used again after a crash', 'repaired after a crash']) {
    t.true((campaign.tallies.get(scenario)?.states ?? 0) > 10, scenario)
  }
  t.log([...campaign.tallies].map(([name, { states }]) => `${name}: ${states} states`).join('; '))
})
