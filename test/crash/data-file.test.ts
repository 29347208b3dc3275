import test from 'ava'
import { countOfRun, seedOfRun } from '../support/seeded-random.js'
import { otherwise } from './altered-backend.js'
import type { TwoFileMutant, TwoFileSetting } from './data-file-disk.js'
import { loopTwoFileFaults } from './data-file-faults.js'
import { exploreEmptying, exploreTwoFiles } from './data-file-states.js'
import { bitsBeforeBytes } from './subcluster-mutants.js'

/*
 * The power goes for an image and its data file at once. Whatever the disks have made of what no sync covered: the image is sound, the guest
 * sees what it may, and a raw data file is the disk.
 */

const budget = countOfRun('QCOW2_DATA_FILE_STATES', 1500)
const faultRuns = countOfRun('QCOW2_DATA_FILE_FAULT_RUNS', 12)
const seed = seedOfRun()

test('whenever the power goes, an image and its data file belong together', async (t) => {
  t.timeout(24 * 3600 * 1000)
  const { problem, states, runs } = await exploreTwoFiles(seed, budget)
  t.is(problem, undefined, `QCOW2_SEED=${seed}`)
  t.log(`QCOW2_SEED=${seed}: ${states} states of ${runs} runs`)
})

type Lacking = {
  readonly mutant: TwoFileMutant
  readonly more?: Partial<TwoFileSetting>
  /** @returns takes it back */
  readonly install?: () => () => void
}

const mutants: Record<string, Lacking> = {
  // W3: what flushes one file before metadata of it does not flush the other; only a guest's flush flushes both.
  'M22, data synced before the mapping': {
    mutant: {
      own: (own, data) =>
        otherwise(own, {
          syncWith: () => undefined,
          flush: async () => {
            await Promise.all([own.flush(), data.flush()])
          },
        }),
    },
  },
  'data synced at all': { mutant: { own: (own) => otherwise(own, { syncWith: () => undefined }) } },
  'the disk smaller before its data file': {
    mutant: { beforeResize: (data, size) => data.truncate(size) },
  },
  'a raw data file mapped before bytes go into it': {
    mutant: { own: (own) => otherwise(own, { durable: () => Promise.resolve() }) },
    more: { isRaw: true, isExtended: false },
  },
  'subclusters of a raw data file mapped before bytes go into them': {
    mutant: { own: (own) => otherwise(own, { durable: () => Promise.resolve() }) },
    more: { isRaw: true, isExtended: true },
  },
  'E4, bytes of a subcluster in a cluster that is there before its bit': {
    mutant: {},
    more: { isRaw: false, isExtended: true, syncPolicy: 'flush' },
    install: bitsBeforeBytes,
  },
  'zeros in a raw data file': {
    mutant: { data: (data) => Object.assign(data, { writeZeroes: () => Promise.resolve() }) },
    more: { isRaw: true, isExtended: false },
  },
  'zeros in subclusters of a raw data file': {
    mutant: { data: (data) => Object.assign(data, { writeZeroes: () => Promise.resolve() }) },
    more: { isRaw: true, isExtended: true },
  },
}

test('whatever fails of either file, once or for good, the image is sound and what was flushed is there', async (t) => {
  t.timeout(24 * 3600 * 1000)
  const { problem, faults, failures } = await loopTwoFileFaults(seed, faultRuns, 5)
  t.is(problem, undefined, `QCOW2_SEED=${seed}`)
  t.true(failures > 0)
  t.log(`QCOW2_SEED=${seed}: ${faults} faults, ${failures} requests failed`)
})

test('an image that gives up what its base holds shows it whenever the power goes', async (t) => {
  t.is(await exploreEmptying(seed, 150), undefined, `QCOW2_SEED=${seed}`)
  const found = await exploreEmptying(seed, 150, async (data) => data.punch(0, data.length))
  t.regex(found ?? '', /shows zeros/, 'bytes given back before the mappings are gone')
})

for (const [lacks, { mutant, more, install }] of Object.entries(mutants)) {
  // What is installed is there for every image of the process.
  const one = install === undefined ? test : test.serial
  one(`power cuts find out what lacks: ${lacks}`, async (t) => {
    const restore = install?.()
    const { problem, states } = await exploreTwoFiles(1, 10_000, mutant, more).finally(restore)
    t.not(problem, undefined, `it survives ${states} states`)
    t.log(`${states} states: ${problem}`)
  })
}
