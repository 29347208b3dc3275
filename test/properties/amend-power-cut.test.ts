import test from 'ava'
import { downgradeHeader, upgradeHeader } from '../../lib/qcow2/amend-header.js'
import { changeRefcountWidth } from '../../lib/qcow2/amend-refcounts.js'
import { expandZeros } from '../../lib/qcow2/amend-tables.js'
import { createQcow2 } from '../../lib/qcow2/create.js'
import { openQcow2 } from '../../lib/qcow2/image.js'
import { readHeader } from '../../lib/qcow2/open-metadata.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import type { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { afterPowerCut } from '../support/power-cut.js'
import { checkContents, fill, source } from '../support/qcow2-disk.js'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'

/*
 * An image becomes one of another kind: other refcounts, the other version; the power goes at any moment. Whatever the disk has made of
 * what no sync covered: it is sound, of the one kind or of the other, and disk and snapshot show what they showed.
 */

const runs = countOfRun('QCOW2_AMEND_CUTS', 12)
const seed = seedOfRun()
const cutsPerRun = 20

type Kind = {
  readonly version: 2 | 3
  readonly clusterSize: number
  readonly refcountBits: number
  readonly size: number
  readonly backing: Uint8Array | undefined
  /** Of a backing file, behind the first sector where there is room; in the header alone. */
  readonly name: string | undefined
}

type Shown = { readonly disk: Uint8Array; readonly snapshot: Uint8Array }

function randomKind(random: SeededRandom, version: 2 | 3): Kind {
  const clusterSize = random.pick([512, 4096])
  return {
    version,
    clusterSize,
    refcountBits: version === 2 ? 16 : random.pick([4, 8, 16, 32, 64]),
    size: random.between(20, 90) * clusterSize - 512,
    name: clusterSize === 4096 && random.chance(0.7) ? 'n'.repeat(random.between(300, 1000)) : undefined,
    backing: random.chance(0.5) ? fill(30 * clusterSize + 512, 251) : undefined,
  }
}

function opened(contents: SparseBytes, { backing }: Kind, snapshot?: string): ReturnType<typeof openQcow2> {
  const memory = new MemoryBackend({ contents, readOnly: true })
  return openQcow2(memory, {
    readOnly: true,
    backing: backing && source(backing),
    ...(snapshot === undefined ? {} : { snapshot }),
  })
}

/** Data, zeros of both kinds, compressed clusters, before a snapshot and after it. */
async function makeImage(kind: Kind, random: SeededRandom): Promise<SparseBytes> {
  const { clusterSize, size, version } = kind
  const memory = new MemoryBackend()
  await createQcow2(memory, {
    size,
    clusterSize,
    version,
    refcountBits: kind.refcountBits,
    lazyRefcounts: false,
    ...(kind.name === undefined ? {} : { backingFile: kind.name, backingFormat: 'raw' }),
  })
  const backing = kind.backing && source(kind.backing)
  const image = await openQcow2(memory, { readOnly: false, reservation: 0, backing })
  const clusters = Math.floor(size / clusterSize)
  const change = async (): Promise<void> => {
    const first = random.integer(clusters)
    const length = Math.min(random.between(1, 5), clusters - first) * clusterSize
    const choice = random.integer(8)
    if (choice < 4) await image.write(fill(length, random.between(1, 250)), first * clusterSize)
    else if (choice === 4)
      await image.writeCompressed(fill(clusterSize, random.between(1, 250)), first * clusterSize)
    else await image.writeZeroes(first * clusterSize, length, { unmap: choice === 5 })
  }
  for (let count = random.between(6, 14); count > 0; count--) await change()
  await image.snapshots.creating('one', {})()
  for (let count = random.between(3, 8); count > 0; count--) await change()
  await image.close()
  return memory.contents
}

async function shownBy(contents: SparseBytes, kind: Kind): Promise<Shown> {
  const read = async (snapshot?: string): Promise<Uint8Array> => {
    const image = await opened(contents, kind, snapshot)
    const bytes = new Uint8Array(image.size)
    await image.read(bytes, 0)
    await image.close()
    return bytes
  }
  return { disk: await read(), snapshot: await read('one') }
}

function mustShow(seen: Uint8Array, wanted: Uint8Array, what: string): void {
  if (seen.length !== wanted.length) throw new Error(`${what} has ${seen.length} bytes`)
  const at = seen.findIndex((byte, index) => byte !== wanted[index])
  if (at >= 0) throw new Error(`${what} shows ${seen[at]} at ${at}, not ${wanted[at]}`)
}

async function mustBeSound(contents: SparseBytes, kind: Kind, wanted: Shown): Promise<void> {
  const { corruptions, checkErrors, findings } = await checkContents(contents)
  const worst = findings.find(({ kind: found }) => found !== 'leak')
  if (corruptions + checkErrors > 0) throw new Error(`it is damaged: ${worst?.text}`)
  const { disk, snapshot } = await shownBy(contents, kind)
  mustShow(disk, wanted.disk, 'the disk')
  mustShow(snapshot, wanted.snapshot, 'the snapshot')
}

/**
 * @param amend     changes the image, and leaves its file open
 * @param isAmended of the header, when all of it is over
 */
async function cutAndLook(
  kindOf: (random: SeededRandom) => Kind,
  amend: (memory: MemoryBackend, kind: Kind, random: SeededRandom) => Promise<void>,
  isAmended: (header: Awaited<ReturnType<typeof readHeader>>['header'], kind: Kind) => boolean,
): Promise<{ before: number; after: number }> {
  const seen = { before: 0, after: 0 }
  for (let index = 0; index < runs; index++) {
    const random = new SeededRandom((seed + index) >>> 0)
    const kind = kindOf(random)
    const contents = await makeImage(kind, random)
    const bytes = contents.toBytes()
    const wanted = await shownBy(contents, kind)
    const memory = new MemoryBackend({ contents, record: true, seed: random.integer(2 ** 30) })
    await amend(memory, kind, random)
    await memory.close()
    const { log } = memory
    const cuts = [log.length, ...Array.from({ length: cutsPerRun }, () => random.integer(log.length + 1))]
    for (const cut of cuts) {
      const then = afterPowerCut(bytes, log, cut, random)
      try {
        await mustBeSound(then, kind, wanted)
        const { header } = await readHeader(new MemoryBackend({ contents: then, readOnly: true }))
        if (header.backingFile !== kind.name) throw new Error(`its backing file is '${header.backingFile}'`)
        if (isAmended(header, kind)) seen.after++
        else if (cut === log.length) throw new Error('nothing has been amended')
        else seen.before++
      } catch (error) {
        const replay = `QCOW2_SEED=${seed + index} QCOW2_AMEND_CUTS=1`
        throw new Error(`${replay}: after ${cut} of ${log.length} events: ${String(error)}`, { cause: error })
      }
    }
  }
  return seen
}

test('whenever the power goes while refcounts get another width, the counts are all of the one or of the other', async (t) => {
  t.timeout(24 * 3600 * 1000)
  t.log(`QCOW2_SEED=${seed} QCOW2_AMEND_CUTS=${runs}`)
  const seen = await cutAndLook(
    (random) => randomKind(random, 3),
    (memory, { refcountBits }) => changeRefcountWidth(memory, refcountBits === 16 ? 6 : 4, {}),
    ({ refcountOrder }, { refcountBits }) => 2 ** refcountOrder !== refcountBits,
  )
  t.true(seen.before > 0 && seen.after >= runs, JSON.stringify(seen))
})

test('whenever the power goes while an image becomes one of version 3, it is of the one or of the other', async (t) => {
  t.timeout(24 * 3600 * 1000)
  t.log(`QCOW2_SEED=${seed} QCOW2_AMEND_CUTS=${runs}`)
  // Version 2 has no zeros over a backing file.
  const seen = await cutAndLook(
    (random) => ({ ...randomKind(random, 2), backing: undefined }),
    (memory) => upgradeHeader(memory),
    ({ version }) => version === 3,
  )
  t.true(seen.before > 0 && seen.after >= runs, JSON.stringify(seen))
})

test('whenever the power goes while an image becomes one of version 2, what reads as zeros still does', async (t) => {
  t.timeout(24 * 3600 * 1000)
  t.log(`QCOW2_SEED=${seed} QCOW2_AMEND_CUTS=${runs}`)
  const seen = await cutAndLook(
    (random) => ({ ...randomKind(random, 3), refcountBits: 16 }),
    async (memory, { backing }) => {
      const image = await openQcow2(memory, {
        readOnly: false,
        reservation: 0,
        backing: backing && source(backing),
      })
      await image.reorganise((parts, snapshots) => expandZeros(parts, snapshots, () => undefined))
      await image.freeze()
      await downgradeHeader(memory)
    },
    ({ version }) => version === 2,
  )
  t.true(seen.before > 0 && seen.after >= runs, JSON.stringify(seen))
})
