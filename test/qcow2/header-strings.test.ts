import test, { type ExecutionContext } from 'ava'
import { type BackingStrings, planBacking, planDataFile } from '../../lib/qcow2/header-strings.js'
import { parseHeader } from '../../lib/qcow2/header.js'
import { headerCluster } from '../support/header-cluster.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'

const sector = 512
const unknownType = 0x11223344

type Case = {
  readonly clusterBits: number
  readonly version: 2 | 3
  readonly backing: BackingStrings | undefined
  /** Bytes of an extension that nobody knows; 0: none. */
  readonly unknown: number
}

/** The first cluster of an image, with an unknown extension in front of all others. */
function firstCluster({ clusterBits, version, backing, unknown }: Case): Uint8Array {
  const plain = headerCluster(clusterBits, version, backing)
  if (unknown === 0) return plain
  const start = version === 2 ? 72 : 112
  const added = 8 + Math.ceil(unknown / 8) * 8
  const cluster = new Uint8Array(plain.length)
  const view = new DataView(cluster.buffer)
  cluster.set(plain.subarray(0, start))
  view.setUint32(start, unknownType)
  view.setUint32(start + 4, unknown)
  cluster.fill(0xab, start + 8, start + 8 + unknown)
  cluster.set(plain.subarray(start, plain.length - added), start + added)
  const nameAt = view.getBigUint64(8)
  if (nameAt !== 0n) view.setBigUint64(8, nameAt + BigInt(added))
  return cluster
}

/** All that a header says beside its fields. */
function said(cluster: Uint8Array): unknown {
  const { backingFile, backingFormat, extensions } = parseHeader(cluster, 'test')
  const others = extensions.filter(({ type }) => type !== 0xe2792aca)
  return { backingFile, backingFormat, others: others.map(({ type, data }) => [type, Buffer.from(data)]) }
}

const withoutTable = (what: unknown): unknown => {
  const { others, ...rest } = what as { others: [number, Buffer][] }
  return { ...rest, others: others.filter(([type]) => type !== 0x6803f857) }
}

/** Follow a plan, with a crash in each of its steps. */
function mustBeSafe(t: ExecutionContext, before: Uint8Array, plan: readonly Uint8Array[]): void {
  let now = before
  for (const next of plan) {
    // What stands behind the first sector may be there in any part.
    for (let mask = 0; mask < 8; mask++) {
      const torn = next.slice()
      torn.set(now.subarray(0, sector))
      for (let at = sector; at < torn.length; at += sector) {
        if ((mask & (1 << ((at / sector) % 3))) === 0) torn.set(now.subarray(at, at + sector), at)
      }
      t.deepEqual(said(torn), said(now))
    }
    now = next
  }
}

const name = (length: number, letter: string): string => letter.repeat(length)

test('a name that replaces another stands where the other one is not', (t) => {
  for (const clusterBits of [9, 10, 12, 16]) {
    for (const version of [2, 3] as const) {
      for (const unknown of [0, 40]) {
        const backing = { file: name(100, 'a'), format: 'qcow2' }
        let cluster = firstCluster({ clusterBits, version, backing, unknown })
        for (const file of ['b', name(200, 'c'), name(30, 'd'), name(200, 'e')]) {
          const plan = planBacking(cluster, { file, format: 'raw' }, 'test')
          t.is(plan.length, 1)
          mustBeSafe(t, cluster, plan)
          const after = plan.at(-1) as Uint8Array
          t.like(parseHeader(after, 'test'), { backingFile: file, backingFormat: 'raw' })
          cluster = after
        }
      }
    }
  }
})

test('a format that comes or goes moves what stands behind it, and nothing of that is torn', (t) => {
  for (const unknown of [0, 8, 24, 300, 390, 600, 2000]) {
    for (const [from, to] of [
      [undefined, { file: name(300, 'n'), format: 'qcow2' }],
      [{ file: name(300, 'o'), format: 'raw' }, undefined],
      [
        { file: name(500, 'o'), format: undefined },
        { file: name(400, 'n'), format: 'qcow2' },
      ],
    ] as const) {
      const cluster = firstCluster({ clusterBits: 16, version: 3, backing: from, unknown })
      let plan: Uint8Array[]
      try {
        plan = planBacking(cluster, to, 'test')
      } catch (error) {
        // Unknown extensions that reach behind the first sector and have to move: better refused than torn.
        t.true(unknown > 300, String(error))
        continue
      }
      mustBeSafe(t, cluster, plan)
      t.deepEqual(withoutTable(said(plan.at(-1) as Uint8Array)), {
        ...(withoutTable(said(cluster)) as object),
        backingFile: to?.file,
        backingFormat: to?.format,
      })
    }
  }
})

test("a data file's name that changes, comes or goes tears nothing, and the bit goes with the first sector", (t) => {
  const isRawIn = (cluster: Uint8Array): boolean => parseHeader(cluster, 'test').autoclearFeatures === 2n
  for (const clusterBits of [10, 12, 16]) {
    for (const backing of [undefined, { file: name(100, 'b'), format: 'qcow2' }]) {
      let cluster = headerCluster(clusterBits, 3, backing, 'data')
      t.is(isRawIn(cluster), backing === undefined)
      for (const [dataFile, isRaw] of [
        [name(9, 'n'), true],
        [undefined, false],
        ['', false],
        [name(60, 'm'), false],
      ] as const) {
        const plan = planDataFile(cluster, { name: dataFile, isRaw }, 'test')
        mustBeSafe(t, cluster, plan)
        const after = plan.at(-1) as Uint8Array
        const before = parseHeader(cluster, 'test')
        const { dataFile: named } = parseHeader(after, 'test')
        t.is(named, dataFile === undefined ? before.dataFile : dataFile === '' ? undefined : dataFile)
        t.is(isRawIn(after), isRaw && isRawIn(cluster))
        t.like(parseHeader(after, 'test'), { backingFile: backing?.file, backingFormat: backing?.format })
        cluster = after
      }
    }
  }
  const refused = {
    code: 'ERR_NOT_SUPPORTED',
    message: /header: the data file name has \d+ bytes, /,
  } as const
  const small = headerCluster(9, 3, undefined, 'data')
  const plan = (length: number): Uint8Array[] =>
    planDataFile(small, { name: name(length, 'x'), isRaw: true }, 'test')
  // The header, two extensions' heads, and what is left.
  t.is(plan(512 - 112 - 16).length, 1)
  t.throws(() => plan(512 - 112 - 15), refused)
})

test('what does not fit is refused, and so is what only a torn header could hold', (t) => {
  const small = firstCluster({ clusterBits: 9, version: 3, backing: undefined, unknown: 0 })
  const refused = { code: 'ERR_NOT_SUPPORTED', message: /^No space left in the file header: / }
  t.throws(() => planBacking(small, { file: name(400, 'x'), format: 'raw' }, 'test'), refused)
  t.is(planBacking(small, { file: name(376, 'x'), format: 'raw' }, 'test').length, 1)
  const large = firstCluster({ clusterBits: 16, version: 3, backing: undefined, unknown: 0 })
  t.throws(() => planBacking(large, { file: name(1024, 'x'), format: 'raw' }, 'test'), refused)
  const crowded = firstCluster({
    clusterBits: 10,
    version: 3,
    backing: { file: name(800, 'a'), format: 'raw' },
    unknown: 0,
  })
  t.throws(() => planBacking(crowded, { file: name(800, 'b'), format: 'raw' }, 'test'), {
    ...refused,
    message: /no place for it beside the present one/,
  })
})

test('any sequence of names, formats and nothing at all is safe step by step', (t) => {
  const seed = seedOfRun()
  t.log(`QCOW2_SEED=${seed}`)
  const random = new SeededRandom(seed)
  let refusals = 0
  for (let run = 0; run < 60; run++) {
    const clusterBits = random.pick([10, 12, 16])
    const version = random.pick([2, 3] as const)
    let cluster = firstCluster({ clusterBits, version, backing: undefined, unknown: random.pick([0, 0, 64]) })
    for (let step = 0; step < 8; step++) {
      const length = random.between(1, clusterBits === 10 ? 400 : 1023)
      const backing = random.chance(0.2)
        ? undefined
        : {
            file: name(length, random.pick(['x', 'y'])),
            format: random.chance(0.3) ? undefined : random.pick(['raw', 'qcow2']),
          }
      let plan: Uint8Array[]
      try {
        plan = planBacking(cluster, backing, 'test')
      } catch {
        refusals++
        continue
      }
      mustBeSafe(t, cluster, plan)
      cluster = plan.at(-1) as Uint8Array
      t.is(parseHeader(cluster, 'test').backingFile, backing?.file)
    }
  }
  t.true(refusals < 60, `${refusals} of 480 refused`)
})
