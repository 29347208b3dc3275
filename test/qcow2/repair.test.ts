import { copyFile, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { type CheckResult, checkQcow2 } from '../../lib/qcow2/check.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { ourCheck, theirCheck } from '../support/check-like-qemu.js'
import { crashImage } from '../support/crash-images.js'
import { FileBackend } from '../support/file-backend.js'
import { damage, placesOf, type SampleOptions, sampleImage } from '../support/image-bytes.js'
import { qemuRead } from '../support/qemu.js'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

const samples: SampleOptions[] = [512, 4096, 65536].flatMap((clusterSize) => [
  { clusterSize, snapshots: true },
  { clusterSize, refcountBits: 1 },
  { clusterSize, refcountBits: 64 },
  { clusterSize, version: 2, snapshots: true },
])
samples.push({ clusterSize: 65536, extendedL2: true })

async function repairFile(file: string, repair: 'leaks' | 'all'): Promise<CheckResult> {
  const backend = new FileBackend(file, { readOnly: false })
  try {
    return await checkQcow2(backend, { repair })
  } finally {
    await backend.close()
  }
}

/** Refcounts of the first block, by cluster: 16 bits each, changed in place. */
function setRefcounts(image: Buffer, counts: Record<number, number>): void {
  const block = placesOf(image).refcountBlocks[0] ?? 0
  for (const [cluster, count] of Object.entries(counts))
    image.writeUInt16BE(count, block + 2 * Number(cluster))
}

test('leaks are taken back, and nothing else is touched', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const image = await sampleImage(folder, { clusterSize: 65536, snapshots: true })
  const file = join(folder, 'sample.qcow2')
  const leaky = Buffer.from(image)
  setRefcounts(leaky, { 5: 7, 100: 1 })
  await writeFile(file, leaky)
  t.like(await theirCheck(file), { exit: 3, leaks: 1 })
  const result = await repairFile(file, 'leaks')
  t.like(result, { leaks: 0, leaksFixed: 1, corruptions: 0, corruptionsFixed: 0 })
  setRefcounts(image, { 100: 1 })
  t.true(image.equals(await readFile(file)))
})

test('refcounts that are too low are raised by repair all, and by it alone', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const image = await sampleImage(folder, { clusterSize: 65536, snapshots: true })
  const file = join(folder, 'sample.qcow2')
  const before = await qemuRead(file)
  const shared = Buffer.from(image)
  const { refcountBlocks } = placesOf(image)
  const count = (cluster: number): number => image.readUInt16BE((refcountBlocks[0] ?? 0) + 2 * cluster)
  const cluster = Array.from({ length: 20 }, (_, index) => index).find((index) => count(index) > 1) ?? 0
  setRefcounts(shared, { [cluster]: 1 })
  await writeFile(file, shared)
  t.not((await repairFile(file, 'leaks')).corruptions, 0)
  t.like(await repairFile(file, 'all'), { corruptions: 0, corruptionsFixed: 1 })
  t.true(image.equals(await readFile(file)))
  t.true(before.equals(await qemuRead(file)))
})

test('a lost refcount block is built anew, and guest data is as before', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  for (const options of samples) {
    const image = await sampleImage(folder, options)
    const file = join(folder, 'sample.qcow2')
    const before = await qemuRead(file)
    for (const at of placesOf(image).refcountTable.slice(0, 2)) {
      const lost = Buffer.from(image)
      lost.writeBigUInt64BE(0n, at)
      await writeFile(file, lost)
      const result = await repairFile(file, 'all')
      t.like(result, { corruptions: 0, leaks: 0, checkErrors: 0 }, JSON.stringify(options))
      t.like(await theirCheck(file), { exit: 0 }, JSON.stringify(options))
      t.true(before.equals(await qemuRead(file)))
    }
  }
})

test('dirty and corrupt bits are cleared by a repair that ends clean, not by one that does not', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const image = await sampleImage(folder, { clusterSize: 65536 })
  const file = join(folder, 'sample.qcow2')
  image[79] = 3
  await writeFile(file, image)
  t.like(await repairFile(file, 'all'), { corruptionsFixed: 0, leaksFixed: 0 })
  t.is((await readFile(file))[79], 0)

  // a data cluster where none can be: nobody knows where the data is
  const entry = placesOf(image).l2.find((at) => image.readBigUInt64BE(at) >> 62n === 2n) ?? 0
  image.writeBigUInt64BE(image.readBigUInt64BE(entry) + 512n, entry)
  await writeFile(file, image)
  t.not((await repairFile(file, 'all')).corruptions, 0)
  t.is((await readFile(file))[79], 3)
})

test('unknown autoclear bits are cleared before the first change, those of bitmaps are kept', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const image = await sampleImage(folder, { clusterSize: 65536, bitmap: true })
  const file = join(folder, 'sample.qcow2')
  image[88] = 0x80
  await writeFile(file, image)
  await repairFile(file, 'leaks')
  const after = await readFile(file)
  t.is(after.readBigUInt64BE(88), 1n)
})

test('a zero entry with a crooked cluster lets go of it; a shared flag is put right', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const image = await sampleImage(folder, { clusterSize: 65536 })
  const file = join(folder, 'sample.qcow2')
  const before = await qemuRead(file)
  const { l2 } = placesOf(image)
  image.writeBigUInt64BE(0x8000000000050201n, l2[100] ?? 0)
  const normal = l2.find((at) => image.readBigUInt64BE(at) >> 62n === 2n) ?? 0
  image.writeBigUInt64BE(image.readBigUInt64BE(normal) ^ (1n << 63n), normal)
  await writeFile(file, image)
  t.like(await repairFile(file, 'all'), { corruptions: 0, leaks: 0, corruptionsFixed: 2 })
  t.like(await theirCheck(file), { exit: 0 })
  t.is((await readFile(file)).readBigUInt64BE(l2[100] ?? 0), 1n)
  t.true(before.equals(await qemuRead(file)))
})

test('a file that is open for reading only is not repaired', async (t) => {
  const backend = new MemoryBackend({ readOnly: true, contents: SparseBytes.from(new Uint8Array(1024)) })
  await t.throwsAsync(checkQcow2(backend, { repair: 'all' }), { code: 'ERR_READ_ONLY' })
})

test('an image whose L1 lies within the header is not repaired: each repair would change what it reads', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const image = await sampleImage(folder, { clusterSize: 4096 })
  const file = join(folder, 'sample.qcow2')
  image.writeBigUInt64BE(0n, 40)
  await writeFile(file, image)
  await t.throwsAsync(repairFile(file, 'all'), { code: 'ERR_CORRUPT', message: /overlaps the/ })
  t.true(image.equals(await readFile(file)))
})

test('an aborted repair rejects with the reason, and leaves an image that can be repaired', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const image = await sampleImage(folder, { clusterSize: 4096, snapshots: true })
  image.writeBigUInt64BE(0n, placesOf(image).refcountTable[0] ?? 0)
  const file = join(folder, 'sample.qcow2')
  for (let steps = 1; ; steps++) {
    await writeFile(file, image)
    const backend = new FileBackend(file, { readOnly: false })
    const controller = new AbortController()
    let left = steps
    const repair = checkQcow2(backend, {
      repair: 'all',
      signal: controller.signal,
      onProgress: () => {
        if (--left === 0) controller.abort(new Error('enough'))
      },
    })
    const outcome = await repair.then(
      () => 'done',
      (error: Error) => error.message,
    )
    await backend.close()
    if (left > 0) break
    t.regex(outcome, /^(enough|done)$/)
    t.is((await repairFile(file, 'all')).corruptions, 0)
  }
  t.like(await theirCheck(file), { exit: 0 })
})

/** Words that a repair may change: flags and dropped zeros in L1 and L2 entries, refcounts; the first sector apart. */
function otherChanges(before: Buffer, after: Buffer): string[] {
  const { refcountTable, clusterSize } = placesOf(before)
  const blocks = new Set<number>()
  for (const at of refcountTable)
    blocks.add(Math.floor(Number(before.readBigUInt64BE(at) & ~511n) / clusterSize))
  const changes: string[] = []
  for (let at = 512; at + 16 <= before.length; at += 8) {
    if (before.compare(after, at, at + 8, at, at + 8) === 0) continue
    const [old, now] = [before.readBigUInt64BE(at), after.readBigUInt64BE(at)]
    const flag = (old ^ now) === 1n << 63n
    // Extended entries have their zeros in the second word: none of their subclusters is allocated then.
    const extended = ((before[79] ?? 0) & 16) !== 0 && (before.readBigUInt64BE(at + 8) & 0xffff_ffffn) === 0n
    const dropped = extended ? now === 0n : (old & 1n) === 1n && now === 1n
    if (!flag && !dropped && !blocks.has(Math.floor(at / clusterSize))) changes.push(`${at}: ${old} ${now}`)
  }
  return changes
}

/** What is said of guest data that a damaged L1 entry makes an L2 table: the stock tool writes zeros into that data. */
const entryErrors =
  /^ERROR (OFLAG_COPIED data cluster|found l2 entry with reserved bits|offset=[0-9a-f]+: Preallocated cluster is not properly aligned)|^ERROR: counting reference for region/

const damagedImages = countOfRun('QCOW2_REPAIR_ROUNDS', 40)

test('whatever is damaged: repair is checked by qemu-img, repeats itself, and touches nothing but metadata', async (t) => {
  t.timeout(60_000 + damagedImages * 5_000)
  const seed = seedOfRun()
  t.log(`seed ${seed}`)
  const random = new SeededRandom(seed)
  const folder = await makeFolder(t, { fast: true })
  const images: Buffer[] = []
  for (const options of samples) images.push(await sampleImage(folder, options))
  const file = join(folder, 'damaged.qcow2')
  for (let round = 0; round < damagedImages; round++) {
    const image = Buffer.from(random.pick(images))
    const what = damage(image, random)
    // a wild snapshot table reads other structures as its own, and them as changed when they are repaired
    if (/header at 64/.test(what)) continue
    const repair = random.pick(['all', 'leaks'] as const)
    const where = `seed ${seed}, round ${round}, ${repair}, ${what}`
    await writeFile(file, image)
    const before = await theirCheck(file)
    const { exit, error } = await ourCheck(file, { repair })
    if (error !== undefined) continue
    const after = await readFile(file)
    t.is((await theirCheck(file)).exit, exit, where)
    if (before.exit === 0) t.is(exit, 0, where)
    t.deepEqual(otherChanges(image, after), [], where)
    const second = await ourCheck(file, { repair })
    t.is(second.exit, exit, where)
    t.true(after.equals(await readFile(file)), where)
    await writeFile(`${file}.theirs`, image)
    const theirs = await theirCheck(`${file}.theirs`, '-r', repair)
    const snapshotsLost = /snapshots at/.test(what)
    // A table that is something else as well is not written, be it for a flag: what else it is would change.
    const kept = /l1 at/.test(what) ? entryErrors : /^ERROR OFLAG_COPIED data cluster/
    const isTableKept = exit === 2 && second.lines.every((line) => kept.test(line))
    if (theirs.exit === 0 && !snapshotsLost && !isTableKept) t.is(exit, 0, where)
  }
})

test('a power cut at any moment of a repair leaves an image that is no worse, and that a repair finishes', async (t) => {
  t.timeout(120_000)
  const seed = seedOfRun()
  t.log(`seed ${seed}`)
  const random = new SeededRandom(seed)
  const folder = await makeFolder(t, { fast: true })
  const file = join(folder, 'crashed.qcow2')
  for (const options of [samples[0], samples[4], samples[8]] as SampleOptions[]) {
    const good = await sampleImage(folder, options)
    await copyFile(join(folder, 'sample.qcow2'), file)
    const data = await qemuRead(file)
    const { refcountTable, refcountBlocks, l2 } = placesOf(good)
    const damages: ((image: Buffer) => void)[] = [
      // all counts lost: everything is built anew
      (image) => image.writeBigUInt64BE(0n, refcountTable[0] ?? 0),
      // counts too high, and a flag lost
      (image) => {
        for (const at of refcountBlocks.slice(0, 30))
          image.writeBigUInt64BE(image.readBigUInt64BE(at) | 0x2000200020002n, at)
        const normal = l2.find((at) => image.readBigUInt64BE(at) >> 62n === 2n) ?? 0
        image.writeBigUInt64BE(image.readBigUInt64BE(normal) ^ (1n << 63n), normal)
      },
      // a zero entry with a crooked cluster
      (image) =>
        image.writeBigUInt64BE(0x8000000000010201n, l2.find((at) => image.readBigUInt64BE(at) === 0n) ?? 0),
    ]
    for (const doDamage of damages) {
      const image = Buffer.from(good)
      doDamage(image)
      image[79] = 1
      const contents = SparseBytes.from(image)
      const backend = new MemoryBackend({ contents, record: true, seed: 1 })
      const before = await checkQcow2(
        new MemoryBackend({ contents: SparseBytes.from(image), readOnly: true }),
      )
      t.like(await checkQcow2(backend, { repair: 'all' }), { corruptions: 0, leaks: 0 })
      const { log } = backend
      for (let cut = 1; cut <= log.length; cut += Math.max(1, Math.floor(log.length / 60))) {
        const crashed = crashImage(image, log.slice(0, cut), random)
        const where = `seed ${seed}, ${JSON.stringify(options)}, cut at ${cut} of ${log.length}`
        const left = await checkQcow2(
          new MemoryBackend({ contents: SparseBytes.from(crashed), readOnly: true }),
        )
        t.true(left.corruptions <= before.corruptions, where)
        await writeFile(file, crashed)
        t.like(await repairFile(file, 'all'), { corruptions: 0, leaks: 0, checkErrors: 0 }, where)
        if (cut % 5 === 1) t.true(data.equals(await qemuRead(file)), where)
      }
    }
  }
})
