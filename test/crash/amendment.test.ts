import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import type { BlockBackend } from '../../lib/queue/backend.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { run } from '../support/qemu.js'
import { seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'
import {
  type Amendment,
  amendedStart,
  amendMemory,
  everyAmendmentCrash,
  type Left,
  named,
  nearBlockWithZeros,
  wrongWith,
} from './amendment.js'
import { amendmentMutants, draining } from './amendment-mutants.js'
import { wornBy } from './compaction.js'
import { withoutBackingName } from './cross-check.js'
import { type StartImage, startImage } from './start-images.js'

const seed = seedOfRun()

/** More than any of the scenarios has at one crash; without a barrier it may be more. */
const limits = { perPoint: 300, exhaustive: 2 ** 12 }

/** Of so many states one is amended again, or looked at by the stock tool. */
const [finishEvery, checkEvery] = [29, 199]

type Scenario = {
  readonly start: () => Promise<StartImage>
  readonly wanted: Amendment
  readonly wrap?: (memory: MemoryBackend) => BlockBackend
}

const clusterSizes = [512, 4096]
const widths = [1, 2, 4, 8, 16, 32, 64]

/** A backing file's name that lies behind the header's first sector where clusters have more than one. */
const longName = 700

/** Its tables are shared, some with zeros that no longer are the disk's; of others each has its own, with clusters that both share. */
const shared = (clusterSize: number): Promise<StartImage> =>
  wornBy(`sequence/backing/${clusterSize}/zero,snapshot-create,overwrite,zero/1/0|flush,exact`)

const oldShared = (clusterSize: number): Promise<StartImage> =>
  wornBy(`sequence/version-2/${clusterSize}/snapshot-create,overwrite,write/1/0|flush,exact`)

function scenariosOf(clusterSize: number): Record<string, Scenario> {
  const plain = (): Promise<StartImage> => startImage('half-full', clusterSize)
  const backed = (): Promise<StartImage> => startImage('backing', clusterSize)
  const snapshot = (): Promise<StartImage> => startImage('snapshot', clusterSize)
  const old = (): Promise<StartImage> => startImage('version-2', clusterSize)
  const version2: Amendment = { version: 2 }
  const [at, withName] = [`, ${clusterSize}`, `, ${clusterSize}, named`]
  const found: Record<string, Scenario> = {
    [`version-2${at}: version 3`]: { start: old, wanted: { version: 3 } },
    [`version-2 with a snapshot${at}: version 3`]: {
      start: () => oldShared(clusterSize),
      wanted: { version: 3 },
    },
    [`half-full${at}: version 2`]: { start: plain, wanted: version2 },
    [`backing${at}: version 2`]: { start: backed, wanted: version2 },
    [`snapshot${at}: version 2`]: { start: snapshot, wanted: version2 },
    [`snapshot${at}, draining: version 2`]: { start: snapshot, wanted: version2, wrap: draining },
    [`shared${at}: version 2`]: { start: () => shared(clusterSize), wanted: version2 },
    [`shared${at}, draining: version 2`]: {
      start: () => shared(clusterSize),
      wanted: version2,
      wrap: draining,
    },
    [`half-full${at}: lazy refcounts`]: { start: plain, wanted: { lazyRefcounts: true } },
    [`lazy${at}: no lazy refcounts`]: {
      start: async () => amendedStart(await plain(), { lazyRefcounts: true }),
      wanted: { lazyRefcounts: false },
    },
    [`snapshot${at}: refcounts of 2 bits`]: { start: snapshot, wanted: { refcountBits: 2 } },
    [`snapshot${at}: refcounts of 64 bits`]: { start: snapshot, wanted: { refcountBits: 64 } },
    [`version-2${at}: version 3, lazy refcounts of 64 bits`]: {
      start: old,
      wanted: { version: 3, refcountBits: 64, lazyRefcounts: true },
    },
    [`version-2 with a snapshot${at}: version 3, refcounts of 4 bits`]: {
      start: () => oldShared(clusterSize),
      wanted: { version: 3, refcountBits: 4 },
    },
    [`lazy with refcounts of 8 bits${at}: version 2`]: {
      start: async () => amendedStart(await backed(), { lazyRefcounts: true, refcountBits: 8 }),
      wanted: { version: 2, refcountBits: 16 },
    },
    [`snapshot, lazy with refcounts of 32 bits${at}: version 2`]: {
      start: async () => amendedStart(await snapshot(), { lazyRefcounts: true, refcountBits: 32 }),
      wanted: { version: 2, refcountBits: 16 },
    },
  }
  if (clusterSize === 512) {
    found[`near-block with zeros${at}: version 2`] = { start: nearBlockWithZeros, wanted: version2 }
  } else {
    found[`version-2${withName}: version 3`] = {
      start: async () => named(await old(), longName),
      wanted: { version: 3 },
    }
    found[`half-full${withName}: version 2`] = {
      start: async () => named(await plain(), longName),
      wanted: version2,
    }
  }
  for (const from of widths) {
    const start = async (): Promise<StartImage> =>
      from === 16 ? plain() : amendedStart(await plain(), { refcountBits: from })
    for (const to of widths.filter((width) => width !== from))
      found[`refcounts of ${from} bits${at}: ${to}`] = { start, wanted: { refcountBits: to } }
  }
  return found
}

const scenarios = Object.assign({}, ...clusterSizes.map(scenariosOf)) as Record<string, Scenario>

/** Amend what a crash has left: it becomes what it was to be. @returns what is wrong then */
async function finishes(
  start: StartImage,
  wanted: Amendment,
  { bytes, leaks }: Left,
): Promise<string | undefined> {
  const memory = new MemoryBackend({ contents: SparseBytes.from(bytes) })
  await amendMemory(memory, start, wanted)
  await memory.close()
  return wrongWith(start, wanted, memory.snapshot(), leaks)
}

async function checkedByStockTool(bytes: Uint8Array, path: string): Promise<string | undefined> {
  await writeFile(path, withoutBackingName(bytes))
  const { code, stdout, stderr } = await run('qemu-img', ['check', '-f', 'qcow2', path])
  return code === 0 || code === 3 ? undefined : `qemu-img check ${code}: ${stdout}${stderr}`
}

/** Those whose amendments are alike are one test. */
function families(): Map<string, [string, Scenario][]> {
  const found = new Map<string, [string, Scenario][]>()
  for (const [name, scenario] of Object.entries(scenarios)) {
    const family = name.startsWith('refcounts of') ? name.replace(/:.*/, ': all others') : name
    found.set(family, [...(found.get(family) ?? []), [name, scenario]])
  }
  return found
}

let states = 0

for (const [family, members] of families()) {
  test.serial(`E26: all crash states of an amendment: ${family}`, async (t) => {
    t.timeout(5 * 60_000)
    const folder = await makeFolder(t, { fast: true })
    let [own, points] = [0, 0]
    for (const [name, { start: make, wanted, wrap }] of members) {
      const start = await make()
      const kept: Left[] = []
      const looked: Uint8Array[] = []
      const seen = await everyAmendmentCrash(start, wanted, {
        limits,
        seed,
        wrap,
        onState: ({ bytes, leaks }) => {
          states++
          if (states % finishEvery === 0) kept.push({ bytes: bytes.slice(), leaks })
          if (states % checkEvery === 0) looked.push(bytes.slice())
        },
      })
      t.is(seen.problem, undefined, `${name}, QCOW2_SEED=${seed}`)
      t.is(seen.exhaustivePoints, seen.points, name)
      // Both the image before and the image after were there.
      t.true(seen.kinds.size > 1, name)
      for (const left of kept) t.is(await finishes(start, wanted, left), undefined, name)
      for (const bytes of looked)
        t.is(await checkedByStockTool(bytes, join(folder, 'left.qcow2')), undefined, name)
      own += seen.states
      points += seen.points
    }
    t.log(`${own} states at ${points} crashes`)
  })
}

test('E26: what is refused is left alone: shared clusters cannot be counted by one bit', async (t) => {
  const start = await startImage('snapshot', 512)
  const memory = new MemoryBackend({ contents: SparseBytes.from(start.bytes), record: true })
  await t.throwsAsync(amendMemory(memory, start, { refcountBits: 1 }), { code: 'ERR_NOT_SUPPORTED' })
  t.false(memory.log.some(({ type }) => type === 'NSUB'))
})

for (const mutant of amendmentMutants) {
  for (const [name, expected] of Object.entries(mutant.shows)) {
    test.serial(`without its rule a crash shows it, ${name}: ${mutant.name}, ${mutant.lacks}`, async (t) => {
      const scenario = scenarios[name]
      if (scenario === undefined) return t.fail()
      const start = await scenario.start()
      const { wrap: usual = (memory: MemoryBackend): BlockBackend => memory } = scenario
      const undo = mutant.install()
      try {
        const { problem } = await everyAmendmentCrash(start, scenario.wanted, {
          limits,
          seed,
          wrap: mutant.wrap ?? usual,
          wanted: expected,
        })
        t.regex(problem ?? '', expected)
        t.log(problem)
      } finally {
        undo()
      }
    })
  }
}
