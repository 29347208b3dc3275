import test from 'ava'
import { compactQcow2 } from '../../lib/qcow2/compact.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { compactionMutants } from './compaction-mutants.js'
import { holedImage, recordCompaction, wornBy } from './compaction.js'
import type { ChoiceLimits } from './choices.js'
import { type Explored, explore, type SampledState } from './explore.js'
import type { StartImage } from './start-images.js'

/** Workloads whose images are compacted beside those below; QCOW2_COMPACTION_CRASHES=300 for a full run. */
const worn = countOfRun('QCOW2_COMPACTION_CRASHES', 6)
const seed = seedOfRun()

/** More than any of the scenarios has at one crash; without a barrier it may be more. */
const limits = { perPoint: 2000, exhaustive: 2 ** 16 }

/** What stands in the middle of each file has been given up again. */
const scenarios: Readonly<Record<string, () => Promise<StartImage>>> = {
  plain: () => wornBy('sequence/half-full/512/discard-more,discard,flush/1/0|flush,exact'),
  'plain, 4 KiB': () => wornBy('sequence/half-full/4096/discard-more,write,discard/1/0|flush,exact'),
  snapshot: () =>
    wornBy('sequence/snapshot/512/overwrite,write,snapshot-create,snapshot-delete/1/0|flush,exact'),
  compressed: () =>
    wornBy('sequence/half-full/512/compress,compress,discard-more,compress-over/1/0|flush,exact'),
  'compressed, 4 KiB': () =>
    wornBy('sequence/half-full/4096/compress,compress,discard-more,compress-over,discard/1/0|flush,exact'),
  extended: () => wornBy('sequence/extended-backing/32768/sub,sub-over,write,discard/1/0|flush,exact'),
  'extended, snapshot': () =>
    wornBy('sequence/extended-snapshot/32768/sub-over,write,snapshot-create,snapshot-delete/1/0|flush,exact'),
  bitmaps: () => wornBy('sequence/bitmaps/512/bitmap-add,discard-more,write/1/0|flush,exact'),
  tables: () =>
    wornBy(
      'sequence/half-full/512/grow-l1,snapshot-create,write,discard-more,snapshot-delete,grow-l1/1/0|flush,exact',
    ),
  'refcount table': () => wornBy('sequence/near-table/512/write,write,discard-more/1/0|flush,exact'),
  'version 2': () => wornBy('sequence/version-2/512/write,discard-more/1/0|flush,exact'),
  'unknown autoclear bits': () => wornBy('sequence/autoclear/512/discard-more/1/0|flush,exact'),
  holed: holedImage,
}

/** Whatever was left is compacted in the end. */
async function finishes({ bytes }: SampledState, compact: Uint8Array): Promise<string | undefined> {
  const memory = new MemoryBackend({ contents: SparseBytes.from(bytes) })
  await compactQcow2(memory)
  await memory.close()
  const { length } = memory.snapshot()
  return length > compact.length ? `compacted again it has ${length} bytes, not ${compact.length}` : undefined
}

/** Clusters behind the end of the file that are counted, which no check sees: for good, then. */
function countsBehindEnd({ leaks, leaksInFile }: SampledState): string | undefined {
  return leaks > leaksInFile
    ? `${leaks - leaksInFile} clusters are counted behind the end of the file`
    : undefined
}

async function everyCrash(
  name: string,
  start: StartImage,
  options: {
    readonly wrap?: Parameters<typeof recordCompaction>[3]
    readonly limits?: ChoiceLimits
    /** Room was made behind the end of the file meanwhile. */
    readonly mayCountBehind?: boolean
  } = {},
): Promise<{ explored: Explored; problem: string | undefined; samples: SampledState[]; moved: number }> {
  const recording = await recordCompaction(name, start, {}, options.wrap)
  const samples: SampledState[] = []
  let behind: string | undefined
  const explored = explore(recording, {
    limits: options.limits ?? limits,
    mostLeaks: Number.POSITIVE_INFINITY,
    sampleEvery: 1,
    onSample: (sample) => {
      if (options.mayCountBehind !== true) behind ??= countsBehindEnd(sample)
      if (samples.length < 400) samples.push(sample)
    },
  })
  return { explored, problem: explored.finding?.problem ?? behind, samples, moved: recording.moved }
}

for (const [name, make] of Object.entries(scenarios)) {
  test.serial(`E25: all crash states of a compaction: ${name}`, async (t) => {
    t.timeout(5 * 60_000)
    const start = await make()
    const { explored, problem, samples, moved } = await everyCrash(name, start)
    t.true(moved > 0)
    t.is(problem, undefined)
    t.is(explored.exhaustivePoints, explored.points)
    const memory = new MemoryBackend({ contents: SparseBytes.from(start.bytes) })
    await compactQcow2(memory)
    await memory.close()
    for (const sample of samples.filter((_, index) => index % 7 === 0))
      t.is(await finishes(sample, memory.snapshot()), undefined)
    t.log(
      `${explored.states} states at ${explored.points} crashes, at most ${explored.mostLeaks} clusters leaked`,
    )
  })
}

for (const mutant of compactionMutants) {
  for (const name of mutant.shows) {
    test.serial(`without its rule a crash shows it, ${name}: ${mutant.name}, ${mutant.lacks}`, async (t) => {
      const make = scenarios[name]
      if (make === undefined) return t.fail()
      const start = await make()
      const undo = mutant.install()
      try {
        const { problem } = await everyCrash(
          name,
          start,
          mutant.wrap === undefined ? {} : { wrap: mutant.wrap },
        )
        t.not(problem, undefined)
        t.log(problem)
      } finally {
        undo()
      }
    })
  }
}

const starts = ['half-full', 'backing', 'snapshot', 'near-block', 'version-2', 'half-full+used'] as const

/** A disk that has grown by a gibibyte is compared in part only. */
const mostSectors = 65536

test('E25: crashes of compactions of what random workloads leave, and what they leave is compacted', async (t) => {
  t.timeout(24 * 3600 * 1000)
  let states = 0
  for (let index = 0; index < worn; index++) {
    const ownSeed = (seed + index) % 2 ** 31
    const random = new SeededRandom(ownSeed)
    const name = `random/${ownSeed}/50,${random.pick(starts)},${random.pick([512, 512, 4096])}`
    try {
      const start = await wornBy(name)
      if (start.initial.length >= mostSectors) continue
      const sampling = { perPoint: 60, exhaustive: 64 }
      const { explored, problem, samples } = await everyCrash(name, start, {
        limits: sampling,
        mayCountBehind: true,
      })
      if (problem !== undefined)
        throw new Error(`${problem} (at ${explored.finding?.time}: ${explored.finding?.choice})`)
      const memory = new MemoryBackend({ contents: SparseBytes.from(start.bytes) })
      await compactQcow2(memory)
      await memory.close()
      for (const sample of samples.filter((_, number) => number % 40 === 0)) {
        const unfinished = await finishes(sample, memory.snapshot())
        if (unfinished !== undefined) throw new Error(unfinished)
      }
      states += explored.states
    } catch (error) {
      const line = `QCOW2_SEED=${ownSeed} QCOW2_COMPACTION_CRASHES=1: ${name}`
      throw new Error(`${line}: ${String(error)}`, { cause: error })
    }
  }
  t.log(`${states} states`)
  t.pass()
})
