import test from 'ava'
import fc from 'fast-check'
import { extendedSettings, runSteps, settings, steps } from '../support/disk-plans.js'
import { countOfRun, seedOfRun } from '../support/seeded-random.js'

/** Every day some dozens for each cluster size; QCOW2_PROPERTY_RUNS=2000 or more for a full run. */
const runs = countOfRun('QCOW2_PROPERTY_RUNS', 25)
const seed = seedOfRun()

const kinds = [
  ...[512, 4096, 65536, 2 * 1024 * 1024].map((clusterSize) => ({ clusterSize, of: settings, entries: '' })),
  ...[16384, 65536, 2 * 1024 * 1024].map((clusterSize) => ({
    clusterSize,
    of: extendedSettings,
    entries: ', extended L2 entries',
  })),
]

for (const { clusterSize, of, entries } of kinds) {
  test(`any sequence of requests reads back like a byte array and leaves a clean image, clusters of ${clusterSize}${entries}`, async (t) => {
    t.timeout(24 * 3600 * 1000)
    t.log(`QCOW2_SEED=${seed} QCOW2_PROPERTY_RUNS=${runs}`)
    await fc.assert(
      fc.asyncProperty(of(clusterSize), steps(clusterSize), async (setting, planned) => {
        await runSteps(clusterSize, setting, planned)
      }),
      { seed, numRuns: clusterSize > 65536 ? Math.ceil(runs / 4) : runs },
    )
    t.pass()
  })
}
