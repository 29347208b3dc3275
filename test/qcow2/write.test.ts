import test from 'ava'
import {
  checkedByQemu,
  checkedClean,
  type Disk,
  fill,
  newDisk,
  readAll,
  readDisk,
  reopen,
  source,
} from '../support/qcow2-disk.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'

/** Syncs that something costs. */
async function syncsOf(disk: Disk, work: () => Promise<unknown>): Promise<number> {
  const before = disk.image.stats().syncsIssued
  await work()
  return disk.image.stats().syncsIssued - before
}

for (const clusterSize of [512, 4096, 65536]) {
  for (const version of [2, 3] as const) {
    test(`what is written at any offset is read again, before and after reopening, version ${version}, clusters of ${clusterSize}`, async (t) => {
      const seed = seedOfRun()
      const random = new SeededRandom(seed)
      t.log(`QCOW2_SEED=${seed}`)
      const size = 40 * clusterSize + 512
      const disk = await newDisk(
        { size, clusterSize, version },
        { backing: source(fill(30 * clusterSize + 100, 7)) },
      )
      const expected = new Uint8Array(size)
      expected.fill(7, 0, 30 * clusterSize + 100)
      for (let round = 0; round < 40; round++) {
        const offset = random.integer(size)
        const bytes = random.bytes(Math.min(1 + random.integer(3 * clusterSize), size - offset))
        await disk.image.write(bytes, offset)
        expected.set(bytes, offset)
        if (round % 10 === 0) t.true(Buffer.from(await readAll(disk)).equals(expected), `round ${round}`)
      }
      t.true(Buffer.from(await readAll(disk)).equals(expected))
      await reopen(disk)
      t.true(Buffer.from(await readAll(disk)).equals(expected))
      await checkedClean(t, disk)
    })
  }
}

test('a large write of whole clusters is one write of the file for each run, and nothing is copied', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 4096 }, { backing: source(fill(2 ** 20, 7)) })
  await disk.image.write(fill(2 ** 18, 1), 2 ** 18)
  const writes = disk.backend.log.filter(({ kind, length }) => kind === 'write' && length >= 4096)
  t.deepEqual(
    writes.map(({ length }) => length),
    [2 ** 18],
  )
  t.false(disk.backend.log.some(({ kind }) => kind === 'read'))
  await checkedByQemu(t, disk)
})

test('a request of no bytes does nothing, anywhere within the disk', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 })
  await disk.image.write(fill(8192, 1), 0)
  const before = disk.backend.log.length
  for (const offset of [0, 100, 8192, 65536]) {
    await disk.image.write(fill(0, 0), offset)
    await disk.image.read(fill(0, 0), offset)
    await disk.image.writeZeroes(offset, 0, { unmap: true })
    await disk.image.discard(offset, 0)
  }
  const done = disk.backend.log
    .slice(before)
    .filter(({ kind, length }) => kind !== 'admit' && (kind === 'enqueue' || length > 0))
  t.deepEqual(done, [])
  await checkedClean(t, disk)
})

test('a write in place queues nothing and takes no lock', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 4096 })
  await disk.image.write(fill(65536, 1), 0)
  const before = disk.backend.log.length
  await disk.image.write(fill(10000, 2), 1000)
  t.deepEqual(
    disk.backend.log.slice(before).map(({ kind }) => kind),
    ['write'],
  )
  await checkedClean(t, disk)
})

test('32 allocations at the same time in tables that are there, and a flush: two syncs', async (t) => {
  const disk = await newDisk({ size: 2 ** 21, clusterSize: 4096 })
  await disk.image.write(fill(4096, 1), 0)
  await disk.image.flush()
  const syncs = await syncsOf(disk, async () => {
    await Promise.all(
      Array.from({ length: 32 }, (_, index) => disk.image.write(fill(4096, 2), (index + 1) * 8192)),
    )
    await disk.image.flush()
  })
  t.is(syncs, 2)
  await checkedClean(t, disk)
})

test('1000 allocations one after the other, and a flush: two syncs', async (t) => {
  const disk = await newDisk({ size: 64 * 2 ** 20, clusterSize: 65536 })
  await disk.image.write(fill(4096, 1), 0)
  await disk.image.flush()
  const syncs = await syncsOf(disk, async () => {
    for (let index = 1; index <= 1000; index++) await disk.image.write(fill(4096, 2), index * 65536)
    await disk.image.flush()
  })
  t.is(syncs, 2)
  await checkedClean(t, disk)
})

test('overwriting, and a flush: one sync', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 4096 })
  await disk.image.write(fill(65536, 1), 0)
  await disk.image.flush()
  const syncs = await syncsOf(disk, async () => {
    await Promise.all(Array.from({ length: 16 }, (_, index) => disk.image.write(fill(512, 2), index * 4096)))
    await disk.image.flush()
  })
  t.is(syncs, 1)
  await checkedClean(t, disk)
})

test('the first write to a new L2 table, and a flush: two syncs', async (t) => {
  const disk = await newDisk({ size: 2 ** 23, clusterSize: 4096 })
  await disk.image.write(fill(4096, 1), 0)
  await disk.image.flush()
  const syncs = await syncsOf(disk, async () => {
    await disk.image.write(fill(4096, 1), 2 ** 22)
    await disk.image.flush()
  })
  t.is(syncs, 2)
  await checkedClean(t, disk)
})

test('copying on write over a backing file, and a flush: two syncs', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 4096 }, { backing: source(fill(2 ** 20, 7)) })
  await disk.image.write(fill(4096, 1), 0)
  await disk.image.flush()
  const syncs = await syncsOf(disk, async () => {
    await Promise.all(
      Array.from({ length: 16 }, (_, index) => disk.image.write(fill(5, 2), 8192 + index * 4096)),
    )
    await disk.image.flush()
  })
  t.is(syncs, 2)
  await checkedClean(t, disk)
})

test('32 flushes after 32 completed overwrites: at most two syncs', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 4096 })
  await disk.image.write(fill(32 * 4096, 1), 0)
  await disk.image.flush()
  await Promise.all(Array.from({ length: 32 }, (_, index) => disk.image.write(fill(512, 2), index * 4096)))
  const syncs = await syncsOf(disk, () => Promise.all(Array.from({ length: 32 }, () => disk.image.flush())))
  t.true(syncs <= 2, `${syncs}`)
  await checkedClean(t, disk)
})

test('64 writers that each flush after each write share their syncs', async (t) => {
  const disk = await newDisk({ size: 64 * 2 ** 20, clusterSize: 65536 })
  await disk.image.write(fill(4096, 1), 0)
  await disk.image.flush()
  let next = 1
  const syncs = await syncsOf(disk, () =>
    Promise.all(
      Array.from({ length: 64 }, async () => {
        while (next <= 1000) {
          await disk.image.write(fill(4096, 2), next++ * 65536)
          await disk.image.flush()
        }
      }),
    ),
  )
  t.log(`${syncs} syncs`)
  t.true(syncs <= 130, `${syncs}`)
  await checkedClean(t, disk)
})

test('where every write is synced, all of a write is durable when it completes', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 4096 }, { syncPolicy: 'write' })
  const allocating = await syncsOf(disk, () => disk.image.write(fill(4096, 1), 0))
  t.true(allocating >= 3, 'counts, data, mapping; the table too')
  t.is(disk.image.stats().queuedNodesNow, 0)
  t.is(await syncsOf(disk, () => disk.image.write(fill(512, 2), 0)), 1)
  t.is(await syncsOf(disk, () => disk.image.flush()), 0, 'nothing is left to do')
  await checkedClean(t, disk)
})

test('where nothing is synced, nothing is', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 512, refcountBits: 64 }, { syncPolicy: 'never' })
  await disk.image.write(fill(2 ** 19, 1), 0)
  await disk.image.flush()
  await disk.image.discard(0, 2 ** 19)
  await disk.image.write(fill(2 ** 19, 2), 2 ** 19)
  await disk.image.flush()
  t.is(disk.image.stats().syncsIssued, 0)
  t.deepEqual(await readDisk(disk, 2 ** 19, 2 ** 19), fill(2 ** 19, 2))
  await checkedClean(t, disk)
})

test('the queue never holds more than its bounds allow, whatever is written at once', async (t) => {
  const queueBytes = 65536
  const disk = await newDisk(
    { size: 4 * 2 ** 20, clusterSize: 512, refcountBits: 64 },
    { memory: { queueBytes } },
  )
  await Promise.all(
    Array.from({ length: 1000 }, (_, index) => disk.image.write(fill(512, index), index * 4096)),
  )
  const stats = disk.image.stats()
  t.true(stats.admissionWaits > 0, 'somebody had to wait')
  // What is in the section being written counts, as does one request beyond the limit.
  t.true(stats.queuedBytesPeak <= queueBytes + 8 * 512, `${stats.queuedBytesPeak}`)
  for (let index = 0; index < 1000; index++) {
    t.is((await readDisk(disk, index * 4096, 1))[0], index % 256)
  }
  await checkedClean(t, disk)
})

test('a data cluster that a damaged image has given to a table is not written', async (t) => {
  for (const isInMemory of [false, true]) {
    const disk = await newDisk({ size: 65536, clusterSize: 512 })
    await disk.image.write(fill(512, 1), 0)
    await disk.image.flush()
    const table = disk.parts.l1.table(0)?.host ?? 0
    // The second entry maps the refcount block, as our own.
    await disk.backend.write(Uint8Array.from(Buffer.from('8000000000000400', 'hex')), table + 8)
    await reopen(disk)
    const block = await readFile512(disk, 0x400)
    if (isInMemory) await readDisk(disk, 0, 1)
    const error = await t.throwsAsync(disk.image.write(fill(100, 9), 600), { code: 'ERR_CORRUPT' })
    t.like(error, { structure: 'refcount block', offset: 0x400 })
    t.deepEqual(await readFile512(disk, 0x400), block)
  }
})

async function readFile512(disk: Disk, offset: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(512)
  await disk.backend.inner.read(bytes, offset)
  return bytes
}

test('a disk that is full tells the writer, keeps what it has, and goes on when there is room', async (t) => {
  let full = false
  const disk = await newDisk(
    { size: 2 ** 20, clusterSize: 512 },
    { memory: { fault: ({ kind }) => (full && (kind === 'write' || kind === 'zero') ? 28 : undefined) } },
  )
  await disk.image.write(fill(4096, 1), 0)
  full = true
  await t.throwsAsync(disk.image.write(fill(4096, 2), 8192), { code: 'ERR_NO_SPACE' })
  await t.throwsAsync(disk.image.flush(), { code: 'ERR_NO_SPACE' })
  t.deepEqual(await readDisk(disk, 0, 12288), new Uint8Array([...fill(4096, 1), ...fill(8192, 0)]))
  full = false
  await disk.image.flush()
  await disk.image.write(fill(4096, 2), 8192)
  await disk.image.flush()
  t.deepEqual(await readDisk(disk, 8192, 4096), fill(4096, 2))
  await checkedClean(t, disk)
})

test('after a sync has failed nothing is written any more, and what was durable before is still sound', async (t) => {
  let broken = false
  const disk = await newDisk(
    { size: 2 ** 20, clusterSize: 512 },
    { memory: { fault: ({ kind }) => (broken && kind === 'sync' ? 5 : undefined) } },
  )
  await disk.image.write(fill(4096, 1), 0)
  await disk.image.flush()
  await disk.image.write(fill(4096, 2), 8192)
  broken = true
  await t.throwsAsync(disk.image.flush(), { code: 'ERR_POISONED' })
  broken = false
  await t.throwsAsync(disk.image.write(fill(512, 3), 0), { code: 'ERR_POISONED' })
  await t.throwsAsync(disk.image.discard(0, 4096), { code: 'ERR_POISONED' })
  await t.throwsAsync(disk.image.flush(), { code: 'ERR_POISONED' })
  t.deepEqual(await readDisk(disk, 0, 4096), fill(4096, 1), 'reading goes on')
  await t.throwsAsync(readDisk(disk, 8192, 4096), { code: 'ERR_POISONED' }, 'but not of what may be lost')
  await t.throwsAsync(disk.image.close())
  await reopen({ ...disk, image: { close: async () => undefined } as never })
})
