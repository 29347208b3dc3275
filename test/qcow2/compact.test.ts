import test, { type ExecutionContext } from 'ava'
import { compactQcow2, type CompactQcow2Options } from '../../lib/qcow2/compact.js'
import { createQcow2 } from '../../lib/qcow2/create.js'
import { openQcow2 } from '../../lib/qcow2/image.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import type { Fault } from '../../lib/queue/memory-device.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { countedClusters, needlessBlocks } from '../support/compact-image.js'
import { checkContents, fill } from '../support/qcow2-disk.js'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { differenceOf, randomWornShape, shownIn, wornImage, type WornShape } from '../support/worn-image.js'

/** Few every day; QCOW2_COMPACTIONS=10000 for a full run. */
const images = countOfRun('QCOW2_COMPACTIONS', 60)
const seed = seedOfRun()

async function compacted(contents: SparseBytes, options: CompactQcow2Options = {}): Promise<number> {
  const memory = new MemoryBackend({ contents })
  try {
    return await compactQcow2(memory, options)
  } finally {
    await memory.close()
  }
}

async function mustBeCompact(contents: SparseBytes, shape: WornShape): Promise<void> {
  const wanted = await shownIn(contents, shape)
  const moved = await compacted(contents)
  const { corruptions, leaks, checkErrors, findings } = await checkContents(contents)
  if (corruptions + leaks + checkErrors > 0) throw new Error(`it is damaged: ${findings[0]?.text}`)
  const difference = differenceOf(await shownIn(contents, shape), wanted)
  if (difference !== undefined) throw new Error(`${difference} is not what it was`)
  const file = Buffer.from(contents.toBytes())
  const needed = countedClusters(file) * shape.clusterSize
  if (file.length > needed) throw new Error(`${file.length} bytes, ${needed} are needed; ${moved} moved`)
  if (needlessBlocks(file) > 0) throw new Error(`${needlessBlocks(file)} refcount blocks count nothing`)
  const again = await compacted(contents)
  if (again !== 0 || !file.equals(contents.toBytes())) throw new Error('a second run changes it')
}

test('images of all kinds take what they need after compacting, and show what they showed', async (t) => {
  t.timeout(24 * 3600 * 1000)
  for (let index = 0; index < images; index++) {
    const ownSeed = (seed + index) >>> 0
    const random = new SeededRandom(ownSeed)
    const shape = randomWornShape(random)
    try {
      await mustBeCompact(await wornImage(shape, random), shape)
    } catch (error) {
      const what = JSON.stringify({ ...shape, backing: shape.backing?.length })
      throw new Error(`QCOW2_SEED=${ownSeed} QCOW2_COMPACTIONS=1: ${what}: ${String(error)}`, {
        cause: error,
      })
    }
  }
  t.pass()
})

const clusterSize = 512
const shape: WornShape = {
  version: 3,
  clusterSize,
  refcountBits: 16,
  extendedL2: false,
  size: 200,
  changes: 0,
  compressed: 0,
  backing: undefined,
}

/** Data, compressed clusters, a snapshot, a bitmap; every other cluster of it is free. */
async function holedImage(): Promise<SparseBytes> {
  const memory = new MemoryBackend()
  await createQcow2(memory, { ...shape, size: shape.size * clusterSize, lazyRefcounts: false })
  const image = await openQcow2(memory, { readOnly: false, reservation: 0 })
  for (let cluster = 0; cluster < 40; cluster++) {
    const at = cluster * clusterSize
    if (cluster % 5 === 4) await image.writeCompressed(fill(clusterSize, cluster + 1), at)
    else await image.write(fill(clusterSize, cluster + 1), at)
    if (cluster === 20) await image.snapshots.creating('one', {})()
  }
  await image.bitmaps.changing({ kind: 'add', name: 'changes', granularity: 512, enabled: true })()
  for (let cluster = 21; cluster < 38; cluster += 2) await image.discard(cluster * clusterSize, clusterSize)
  await image.close()
  return memory.contents
}

const copyOf = (contents: SparseBytes): SparseBytes => SparseBytes.from(contents.toBytes())

async function mustBeSound(
  t: ExecutionContext,
  contents: SparseBytes,
  wanted: Awaited<ReturnType<typeof shownIn>>,
): Promise<void> {
  const { corruptions, checkErrors, findings } = await checkContents(contents)
  t.deepEqual([corruptions, checkErrors], [0, 0], findings[0]?.text)
  t.is(differenceOf(await shownIn(contents, shape), wanted), undefined)
}

for (const [name, errno] of [
  ['an I/O error', 5],
  ['no space', 28],
] as const) {
  for (const how of ['once', 'for ever'] as const) {
    test(`whichever request fails, ${how}, by ${name}, the image is whole, and the next run finishes`, async (t) => {
      const start = await holedImage()
      const wanted = await shownIn(start, shape)
      const ideal = copyOf(start)
      await compacted(ideal)
      let failures = 0
      for (let nth = 0; ; nth++) {
        const contents = copyOf(start)
        let count = 0
        let isHit = false
        const fault: Fault = () => {
          const isMeant = how === 'once' ? count === nth : count >= nth
          count++
          if (isMeant) isHit = true
          return isMeant ? errno : undefined
        }
        const memory = new MemoryBackend({ contents, fault })
        const outcome = await compactQcow2(memory).then(
          () => undefined,
          (error: unknown) => error as { code?: string },
        )
        await memory.close().catch(() => undefined)
        if (!isHit) break
        // What the host does not take back is no failure.
        if (outcome !== undefined) failures++
        await mustBeSound(t, contents, wanted)
        await compacted(contents)
        await mustBeSound(t, contents, wanted)
        t.is(contents.toBytes().length, ideal.toBytes().length)
      }
      t.true(failures > 30, `${failures} failures`)
    })
  }
}

test('an abort leaves a whole image, wherever it comes, and nothing leaked between batches', async (t) => {
  const start = await holedImage()
  const wanted = await shownIn(start, shape)
  let aborts = 0
  for (let after = 0; ; after++) {
    const contents = copyOf(start)
    const controller = new AbortController()
    let seen = 0
    const options = {
      signal: controller.signal,
      onProgress: () => {
        if (seen++ === after) controller.abort(new Error('enough'))
      },
    }
    const outcome = await compacted(contents, options).then(
      () => undefined,
      (error: unknown) => error as Error,
    )
    if (outcome === undefined) break
    aborts++
    t.is(outcome.message, 'enough')
    await mustBeSound(t, contents, wanted)
    t.is((await checkContents(contents)).leaks, 0)
    await compacted(contents)
    await mustBeSound(t, contents, wanted)
  }
  t.true(aborts > 3, `${aborts} aborts`)
})

test('memory for references is bounded: many small steps end where one does', async (t) => {
  const [one, many] = [await holedImage(), await holedImage()]
  await compacted(one)
  await compacted(many, { mostReferences: 1 })
  t.is(many.toBytes().length, one.toBytes().length)
  await mustBeSound(t, many, await shownIn(one, shape))
})

test('a damaged image is refused, and left as it is', async (t) => {
  const contents = await holedImage()
  const bytes = Buffer.from(contents.toBytes())
  // The count of the header's own cluster.
  const block = Number(bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(48))))
  bytes.writeUInt16BE(0, block)
  const damaged = SparseBytes.from(bytes)
  await t.throwsAsync(compacted(damaged), {
    code: 'ERR_CORRUPT',
    message: /check and repair it first: ERROR cluster 0/,
  })
  t.deepEqual(Buffer.from(damaged.toBytes()), bytes)
})

test('what nothing refers to is freed first', async (t) => {
  const contents = await holedImage()
  const wanted = await shownIn(contents, shape)
  const ideal = copyOf(contents)
  await compacted(ideal)
  const bytes = Buffer.from(contents.toBytes())
  const block = Number(bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(48))))
  const free = Array.from({ length: 60 }, (_, cluster) => cluster).filter(
    (cluster) => bytes.readUInt16BE(block + 2 * cluster) === 0,
  )
  for (const cluster of free.slice(0, 3)) bytes.writeUInt16BE(1, block + 2 * cluster)
  const leaking = SparseBytes.from(bytes)
  t.is((await checkContents(leaking)).leaks, 3)
  await compacted(leaking)
  await mustBeSound(t, leaking, wanted)
  t.is(leaking.toBytes().length, ideal.toBytes().length)
})

test('an image that is compact is not written to', async (t) => {
  const contents = await holedImage()
  await compacted(contents)
  const memory = new MemoryBackend({ contents, record: true })
  t.is(await compactQcow2(memory), 0)
  t.deepEqual(
    memory.log.filter(({ type }) => type === 'NSUB'),
    [],
  )
})

test('a file that is read-only is refused', async (t) => {
  const memory = new MemoryBackend({ contents: await holedImage(), readOnly: true })
  await t.throwsAsync(compactQcow2(memory), { code: 'ERR_READ_ONLY' })
})
