import { createHash } from 'node:crypto'
import test from 'ava'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import {
  checkContents,
  checkedByQemu,
  checkedClean,
  checkedSound,
  type Disk,
  fill,
  newDisk,
  readAll,
  readDisk,
  reopen,
} from '../support/qcow2-disk.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'

/** Text compresses well, noise does not at all. */
function text(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => 97 + ((at * seed + (at >> 5)) % 13))
}

function noise(length: number, seed: number): Uint8Array {
  return createHash('shake256', { outputLength: length }).update(`${seed}`).digest()
}

const types = async (disk: Disk, offsets: number[]): Promise<string[]> =>
  Promise.all(offsets.map(async (offset) => (await disk.image.mapping(offset, 1)).type))

for (const clusterSize of [512, 4096, 65536, 2 ** 21]) {
  for (const refcountBits of [1, 2, 16, 64]) {
    test(`compressed clusters read back and check clean: ${clusterSize}, ${refcountBits} bits`, async (t) => {
      const clusters = clusterSize > 65536 ? 8 : 20
      const size = clusters * clusterSize - 512
      const disk = await newDisk({ size, clusterSize, refcountBits })
      const expected = new Uint8Array(size)
      for (let cluster = 0; cluster < clusters; cluster++) {
        const offset = cluster * clusterSize
        const length = Math.min(clusterSize, size - offset)
        if (length === 0 || cluster % 5 === 3) continue
        const bytes = cluster % 7 === 6 ? noise(length, cluster) : text(length, cluster + 1)
        expected.set(bytes, offset)
        await disk.image.writeCompressed(bytes, offset)
      }
      t.true((await readAll(disk)).every((byte, at) => byte === expected[at]))
      t.deepEqual(await types(disk, [0, 3 * clusterSize, 6 * clusterSize]), [
        'compressed',
        'unallocated',
        'data',
      ])
      await reopen(disk)
      t.true((await readAll(disk)).every((byte, at) => byte === expected[at]))
      await checkedByQemu(t, disk)
    })
  }
}

test('they are packed one behind the other, and the file ends with a sector', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 65536 })
  await disk.image.writeCompressed(text(2 ** 20, 3), 0)
  await disk.image.close()
  // Sixteen clusters in the place of one or two, behind the five of the empty image and the L2 table.
  t.true(disk.memory.contents.length <= 7 * 65536, `${disk.memory.contents.length}`)
  t.is(disk.memory.contents.length % 512, 0)
  t.is((await checkContents(disk.memory.contents)).compressedClusters, 16)
})

test('a host cluster counts each compressed cluster in it, and is free when the last one is gone', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 65536 })
  for (let cluster = 0; cluster < 8; cluster++)
    await disk.image.writeCompressed(text(65536, cluster + 1), cluster * 65536)
  const host = 5
  t.deepEqual(await disk.parts.allocator.counts(host, 1), [8])
  await disk.image.discard(0, 3 * 65536)
  await disk.image.write(fill(65536, 1), 3 * 65536)
  await disk.image.write(fill(10, 1), 4 * 65536)
  await disk.image.writeZeroes(5 * 65536, 65536, { unmap: true })
  await disk.image.writeCompressed(text(65536, 77), 6 * 65536)
  await disk.image.flush()
  await disk.parts.frees.settled()
  t.deepEqual(await disk.parts.allocator.counts(host, 1), [2], 'the last one of old, and the new one')
  await disk.image.discard(6 * 65536, 2 * 65536)
  await disk.image.flush()
  await disk.parts.frees.settled()
  t.deepEqual(await disk.parts.allocator.counts(host, 1), [0])
  // Its next owner keeps it for himself.
  await disk.image.write(fill(65536, 9), 10 * 65536)
  await disk.image.writeCompressed(text(65536, 5), 11 * 65536)
  t.deepEqual(await readDisk(disk, 10 * 65536, 65536), fill(65536, 9))
  await checkedByQemu(t, disk)
})

test('many at once never overlap, beside other writes and discards', async (t) => {
  const seed = seedOfRun()
  t.log(`seed ${seed}`)
  const random = new SeededRandom(seed)
  for (const clusterSize of [512, 4096]) {
    const clusters = 300
    const disk = await newDisk(
      { size: clusters * clusterSize, clusterSize },
      { reservation: random.pick([0, 8]) },
    )
    const expected = new Uint8Array(clusters * clusterSize)
    for (let round = 0; round < 6; round++) {
      const order = Array.from({ length: clusters }, (_, cluster) => cluster).filter(() => random.chance(0.5))
      await Promise.all(
        order.map(async (cluster) => {
          const offset = cluster * clusterSize
          const kind = random.integer(5)
          const bytes = kind === 4 ? new Uint8Array(clusterSize) : text(clusterSize, random.integer(1000) + 1)
          expected.set(bytes, offset)
          if (kind < 3) await disk.image.writeCompressed(bytes, offset)
          else if (kind === 3) await disk.image.write(bytes, offset)
          else await disk.image.discard(offset, clusterSize)
        }),
      )
      if (random.chance(0.5)) await disk.image.flush()
      t.true(
        (await readAll(disk)).every((byte, at) => byte === expected[at]),
        `round ${round}`,
      )
    }
    await checkedByQemu(t, disk)
  }
})

test('counts and bytes are durable before the mapping: E17', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 65536 })
  await disk.image.write(fill(512, 1), 0)
  await disk.image.flush()
  const before = disk.image.stats().syncsIssued
  disk.backend.log.length = 0
  await disk.image.writeCompressed(text(65536, 4), 65536)
  const [counts, mapping] = disk.backend.log.filter(({ kind }) => kind === 'enqueue')
  t.true((mapping?.earliest ?? 0) > (counts?.section ?? Number.POSITIVE_INFINITY))
  const order = disk.backend.log
    .map(({ kind }) => kind)
    .filter((kind) => kind === 'enqueue' || kind === 'write')
  t.deepEqual(order, ['enqueue', 'write', 'enqueue'])
  await disk.image.flush()
  t.is(disk.image.stats().syncsIssued - before, 2)
  await checkedSound(t, SparseBytes.from(disk.memory.snapshot()))
  await checkedClean(t, disk)
})

test('a place whose bytes could not be written is given back', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 65536 })
  await disk.image.writeCompressed(text(65536, 3), 0)
  const failure = new Error('this once')
  disk.backend.fail(({ kind }) => kind === 'write', failure, 1)
  await t.throwsAsync(disk.image.writeCompressed(text(65536, 4), 65536), { is: failure })
  t.deepEqual(await readDisk(disk, 0, 65536), text(65536, 3))
  await disk.image.writeCompressed(text(65536, 5), 65536)
  t.deepEqual(await readDisk(disk, 65536, 65536), text(65536, 5))
  await checkedByQemu(t, disk)
})

test('nothing joins a host cluster that is about to be punched', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 65536 })
  await disk.image.writeCompressed(text(65536, 3), 0)
  await disk.image.discard(0, 65536)
  const punch = disk.backend.hold(({ kind }) => kind === 'punch')
  await disk.image.flush()
  await punch.reached
  await disk.image.writeCompressed(text(65536, 5), 65536)
  punch.release()
  await disk.image.flush()
  t.deepEqual(await readDisk(disk, 65536, 65536), text(65536, 5))
  await checkedByQemu(t, disk)
})

test('what a failed sync may have lost is not read: it may be what the place held before', async (t) => {
  let broken = false
  const disk = await newDisk(
    { size: 2 ** 20, clusterSize: 65536 },
    {
      memory: {
        mayLose: true,
        fault: ({ kind }) => (broken && kind === 'sync' ? { errno: 5, loses: () => true } : undefined),
      },
    },
  )
  await disk.image.writeCompressed(text(65536, 3), 0)
  await disk.image.flush()
  await disk.image.discard(0, 65536)
  await disk.image.flush()
  await disk.image.flush()
  // Into the cluster that was freed.
  await disk.image.writeCompressed(text(65536, 4), 65536)
  broken = true
  await t.throwsAsync(disk.image.flush(), { code: 'ERR_POISONED' })
  await t.throwsAsync(readDisk(disk, 65536, 1), { code: 'ERR_POISONED' })
})
