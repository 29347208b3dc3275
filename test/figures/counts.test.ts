import test from 'ava'
import { type Disk, fill, newDisk } from '../support/qcow2-disk.js'

/**
 * The figures of the block queue on the simulated device, where a sync takes as long as a write and nothing depends on a clock: the same
 * counts on every machine.
 */

const cluster = 65536
const bytes = fill(4096, 1)

/** A disk of 1 GiB with default reservation, whose first L2 table is there. */
async function diskWithTable(): Promise<Disk> {
  const disk = await newDisk({ size: 2 ** 30, clusterSize: cluster }, { reservation: 64 })
  await disk.image.write(bytes, 0)
  await disk.image.flush()
  return disk
}

/** 1000 writes, each to a new cluster and durable before its writer goes on. @returns syncs, and bytes of metadata for each */
async function durableWrites(writers: number): Promise<{ syncs: number; metadataBytes: number }> {
  const { image } = await diskWithTable()
  const before = image.stats()
  let next = 1
  const writer = async (): Promise<void> => {
    while (next <= 1000) {
      await image.write(bytes, next++ * cluster)
      await image.flush()
    }
  }
  await Promise.all(Array.from({ length: writers }, writer))
  const after = image.stats()
  await image.close()
  return {
    syncs: after.syncsIssued - before.syncsIssued,
    metadataBytes: (after.nodeBytesWritten - before.nodeBytesWritten) / 1000,
  }
}

test('Q1: 1000 durable allocating writes of 64 writers cost at most 40 syncs', async (t) => {
  const { syncs } = await durableWrites(64)
  t.log(`${syncs} syncs`)
  t.true(syncs >= 1000 / 64 && syncs <= 40, `${syncs} syncs`)
})

test('Q1b and Q3: of one writer they cost at most 1020 syncs, and 8192 bytes of metadata each', async (t) => {
  const { syncs, metadataBytes } = await durableWrites(1)
  t.log(`${syncs} syncs, ${metadataBytes} bytes`)
  t.true(syncs >= 1000 && syncs <= 1020, `${syncs} syncs`)
  t.true(metadataBytes >= 4096 && metadataBytes <= 8192, `${metadataBytes} bytes`)
})

test('Q2: 200 pairs of an allocating write and a discard elsewhere cost at most 6 syncs, the flush included', async (t) => {
  const { image } = await diskWithTable()
  for (let index = 0; index < 200; index++) await image.write(bytes, (5000 + index) * cluster)
  await image.flush()
  const before = image.stats().syncsIssued
  for (let index = 0; index < 200; index++) {
    await image.write(bytes, (1 + index) * cluster)
    await image.discard((5000 + index) * cluster, cluster)
  }
  await image.flush()
  const syncs = image.stats().syncsIssued - before
  t.log(`${syncs} syncs`)
  t.true(syncs >= 1 && syncs <= 6, `${syncs} syncs`)
  await image.close()
})

test('Q7: while a sync does not end the queue keeps to its limit, writers wait and reads go on', async (t) => {
  const queueBytes = 64 * 1024
  const stallTurns = 4000
  const stall = { is: false, has: false }
  const { image, memory } = await newDisk(
    { size: 2 ** 30, clusterSize: 4096 },
    {
      reservation: 64,
      memory: {
        queueBytes,
        fault: ({ kind }) => {
          if (kind !== 'sync' || !stall.is) return undefined
          stall.is = false
          stall.has = true
          return { errno: 0, turns: stallTurns }
        },
      },
    },
  )
  const turns = async (count: number): Promise<void> => {
    for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve))
  }
  await image.write(bytes, 0)
  await image.flush()
  stall.is = true
  // Each needs a table of its own: together they queue far more than there is room for.
  const tableCoverage = (4096 / 8) * 4096
  let written = 0
  const writing = Array.from({ length: 400 }, async (_, index) => {
    await image.write(bytes, (1 + index) * tableCoverage)
    written++
  })
  await turns(stallTurns / 4)
  t.true(stall.has)
  const early = { written, queued: memory.stats().queuedBytesNow }
  await turns(stallTurns / 2)
  t.deepEqual({ written, queued: memory.stats().queuedBytesNow }, early, 'nothing moves, nothing piles up')
  t.true(written < 400)
  t.true(early.queued > 0)
  const seen = new Uint8Array(4096)
  await image.read(seen, 0)
  t.deepEqual(seen, bytes, 'reads go on')
  t.is(written, early.written)
  await Promise.all(writing)
  await image.flush()
  const { queuedBytesPeak, admissionWaits } = memory.stats()
  t.log(
    `${early.written} of 400 written, then ${early.queued} bytes stood; at most ${queuedBytesPeak} of ${queueBytes}`,
  )
  t.true(queuedBytesPeak <= queueBytes, `${queuedBytesPeak} bytes`)
  t.true(admissionWaits > 0)
  await image.close()
})
