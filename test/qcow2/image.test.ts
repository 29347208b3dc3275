import test from 'ava'
import {
  checkContents,
  checkedByQemu,
  checkedClean,
  fill,
  imageBytes,
  isDone,
  newDisk,
  openDisk,
  readAll,
  readDisk,
  reopen,
  settle,
  source,
} from '../support/qcow2-disk.js'
import type { Operation } from '../support/staged-backend.js'

/*
 * The hazards H1 to H14 of requests that run at the same time, each by its name, with the interleaving forced: an
 * operation of the file is held back until the other requests have gone as far as they can.
 */

const cluster = 512
const isDataWrite = ({ kind, offset }: Operation): boolean => kind === 'write' && offset >= 3 * cluster
test('H1: the second of two writes to one unallocated cluster waits for the first, then writes in place', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 })
  const held = disk.backend.hold(isDataWrite)
  const first = disk.image.write(fill(1024, 1), 0)
  await held.reached
  const second = disk.image.write(fill(1024, 2), 2048)
  t.false(await isDone(second), 'the first is not linked yet')
  held.release()
  await Promise.all([first, second])
  const seen = await readAll(disk)
  t.deepEqual([seen[0], seen[1023], seen[1024], seen[2048], seen[3071], seen[3072]], [1, 1, 0, 2, 2, 0])
  await checkedClean(t, disk)
})

test('H2: two writes to disjoint parts of a cluster that is kept and reads as zeros both survive', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 })
  await disk.image.write(fill(4096, 9), 0)
  await disk.image.writeZeroes(0, 4096, { unmap: false })
  const held = disk.backend.hold(isDataWrite)
  const first = disk.image.write(fill(512, 1), 0)
  await held.reached
  const second = disk.image.write(fill(512, 2), 1024)
  await settle()
  held.release()
  await Promise.all([first, second])
  const seen = await readAll(disk)
  t.deepEqual([seen[0], seen[512], seen[1024], seen[1536]], [1, 0, 2, 0])
  await checkedClean(t, disk)
})

test('H3: what is copied around one write does not overwrite the bytes of another', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 }, { backing: source(fill(65536, 7)) })
  const held = disk.backend.hold(isDataWrite)
  const first = disk.image.write(fill(512, 1), 0)
  await held.reached
  const second = disk.image.write(fill(512, 2), 3584)
  const third = disk.image.write(fill(512, 3), 512)
  await settle()
  held.release()
  await Promise.all([first, second, third])
  const seen = await readAll(disk)
  t.deepEqual([seen[0], seen[512], seen[1024], seen[3583], seen[3584], seen[4096]], [1, 3, 7, 7, 2, 7])
  await checkedClean(t, disk)
})

test('H4: a read during an allocation sees the old bytes until the new cluster is complete', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 }, { backing: source(fill(65536, 7)) })
  const held = disk.backend.hold(isDataWrite)
  const write = disk.image.write(fill(512, 1), 512)
  await held.reached
  t.deepEqual(await readDisk(disk, 0, 4096), fill(4096, 7))
  held.release()
  await write
  t.deepEqual(await readDisk(disk, 512, 512), fill(512, 1))
  t.deepEqual(await readDisk(disk, 1024, 3072), fill(3072, 7))
  await checkedClean(t, disk)
})

test('H5: a cluster is not given to anybody while a write to it in place is under way', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 })
  await disk.image.write(fill(4096, 1), 0)
  await disk.image.flush()
  const host = (await disk.image.mapping(0, 4096)) as { hostOffset: number }
  const held = disk.backend.hold(({ kind, offset }) => kind === 'write' && offset === host.hostOffset)
  const late = disk.image.write(fill(4096, 0xbb), 0)
  await held.reached
  await disk.image.discard(0, 4096)
  await disk.image.flush()
  await settle()
  // A new L2 table would be the worst owner of the cluster; data of somebody else is bad enough.
  for (let at = 4096; at < 40960; at += 4096) await disk.image.write(fill(4096, 2), at)
  t.false(
    disk.backend.log.some(({ kind }) => kind === 'punch'),
    'the host keeps the bytes meanwhile',
  )
  held.release()
  await late
  await disk.image.flush()
  t.deepEqual(await readDisk(disk, 4096, 36864), fill(36864, 2))
  await settle()
  t.true(
    disk.backend.log.some(({ kind }) => kind === 'punch'),
    'then they go',
  )
  await checkedClean(t, disk)
})

test("H6: a late read returns the old bytes, never those of the cluster's next owner", async (t) => {
  for (const lookedUp of ['in memory', 'not in memory'] as const) {
    const disk = await newDisk({ size: 65536, clusterSize: 4096 })
    await disk.image.write(fill(8192, 1), 0)
    await disk.image.flush()
    if (lookedUp === 'not in memory') await reopen(disk)
    const held = disk.backend.hold(({ kind, length }) => kind === 'read' && length === 8192)
    const late = readDisk(disk, 0, 8192)
    await held.reached
    await disk.image.discard(0, 8192)
    await disk.image.flush()
    await settle()
    for (let at = 8192; at < 65536; at += 4096) await disk.image.write(fill(4096, 2), at)
    held.release()
    t.deepEqual(await late, fill(8192, 1), lookedUp)
    await checkedClean(t, disk)
  }
})

test('H7: a flush does not wait for a write that has not completed, nor cover it', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 })
  await disk.image.write(fill(4096, 1), 0)
  const held = disk.backend.hold(isDataWrite)
  const late = disk.image.write(fill(4096, 2), 4096)
  await held.reached
  await disk.image.flush()
  held.release()
  await late
  const [before] = await readDisk(disk, 4096, 1)
  t.is(before, 2)
  await checkedClean(t, disk)
})

test('H8: a write whose L2 slice is crowded out of the cache meanwhile is linked all the same', async (t) => {
  const disk = await newDisk(
    { size: 4 * 2 ** 20, clusterSize: cluster },
    { l2CacheBytes: 0, refcountCacheBytes: 0 },
  )
  for (let at = 0; at < 4 * 2 ** 20; at += 32768) await disk.image.write(fill(cluster, 1), at)
  const held = disk.backend.hold(isDataWrite)
  const late = disk.image.write(fill(cluster, 2), cluster)
  await held.reached
  for (let at = 0; at < 4 * 2 ** 20; at += 32768) await disk.image.write(fill(cluster, 3), at + 2 * cluster)
  held.release()
  await late
  for (let at = 0; at < 4 * 2 ** 20; at += 32768) {
    t.deepEqual(
      await readDisk(disk, at, 3 * cluster),
      new Uint8Array([...fill(cluster, 1), ...fill(cluster, at === 0 ? 2 : 0), ...fill(cluster, 3)]),
    )
  }
  await checkedClean(t, disk)
})

test('H9: a discard, or zeros, over an allocation that is under way come after it or before it, never in its middle', async (t) => {
  for (const change of ['discard', 'zero', 'unmap'] as const) {
    const disk = await newDisk({ size: 65536, clusterSize: 4096 }, { backing: source(fill(65536, 7)) })
    const held = disk.backend.hold(isDataWrite)
    const write = disk.image.write(fill(512, 1), 512)
    await held.reached
    const zeroed =
      change === 'discard'
        ? disk.image.discard(0, 8192)
        : disk.image.writeZeroes(0, 8192, { unmap: change === 'unmap' })
    t.false(await isDone(zeroed), 'the clusters are locked')
    held.release()
    await Promise.all([write, zeroed])
    t.deepEqual(await readDisk(disk, 0, 8192), fill(8192, 0), change)
    t.is((await readDisk(disk, 8192, 1))[0], 7)
    await checkedClean(t, disk)
  }
})

test('H9: a write into a cluster that is kept for it, and a discard of that cluster, leave no cluster with two owners', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 })
  await disk.image.write(fill(4096, 9), 0)
  await disk.image.writeZeroes(0, 4096, { unmap: false })
  const held = disk.backend.hold(isDataWrite)
  const write = disk.image.write(fill(512, 1), 512)
  await settle()
  const discard = disk.image.discard(0, 4096)
  await settle()
  held.release()
  await Promise.all([write, discard])
  await disk.image.flush()
  await disk.image.write(fill(8192, 4), 8192)
  t.deepEqual(await readDisk(disk, 0, 4096), fill(4096, 0))
  t.deepEqual(await readDisk(disk, 8192, 8192), fill(8192, 4))
  await checkedClean(t, disk)
})

test('H10: resizing waits for what runs, and what comes meanwhile waits for it', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 })
  const held = disk.backend.hold(isDataWrite)
  const write = disk.image.write(fill(4096, 1), 0)
  await held.reached
  const resize = disk.image.resize(32768, { shrink: true })
  t.false(await isDone(resize))
  const later = disk.image.write(fill(4096, 2), 4096)
  t.false(await isDone(later))
  held.release()
  await Promise.all([write, resize, later])
  t.is(disk.image.size, 32768)
  t.deepEqual(await readDisk(disk, 0, 8192), new Uint8Array([...fill(4096, 1), ...fill(4096, 2)]))
  await checkedClean(t, disk)
})

test('H10: a write that waited while the disk shrank does not land behind its new end', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 })
  const held = disk.backend.hold(isDataWrite)
  const write = disk.image.write(fill(4096, 1), 0)
  await held.reached
  const resize = disk.image.resize(32768, { shrink: true })
  await settle()
  const outside = [
    disk.image.write(fill(4096, 2), 61440),
    disk.image.writeZeroes(30000, 4096, { unmap: true }),
    disk.image.discard(61440, 4096),
    disk.image.read(fill(512, 0), 32768),
  ].map((request) => t.throwsAsync(request, { instanceOf: RangeError, code: 'ERR_OUT_OF_RANGE' }))
  held.release()
  await Promise.all([write, resize, ...outside])
  await disk.image.resize(65536, { shrink: false })
  t.deepEqual(await readDisk(disk, 32768, 32768), fill(32768, 0))
  await checkedClean(t, disk)
})

test('H10: of two resizes at once the second works on what the first has left', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 })
  await disk.image.write(fill(4096, 1), 61440)
  const held = disk.backend.hold(({ kind }) => kind === 'flush')
  const first = disk.image.resize(262144, { shrink: false })
  const second = disk.image.resize(131072, { shrink: false })
  await held.reached
  held.release()
  await first
  // For the second this is shrinking now, which nobody has asked for.
  await t.throwsAsync(second, { code: 'ERR_NOT_SUPPORTED' })
  t.is(disk.image.size, 262144)
  t.deepEqual(await readDisk(disk, 61440, 4096), fill(4096, 1))
  await checkedClean(t, disk)
})

test('H11: an operation that has the image for itself begins when nothing runs, and nothing begins before it is over', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 })
  const held = disk.backend.hold(isDataWrite)
  const write = disk.image.write(fill(4096, 1), 0)
  await held.reached
  const before = disk.backend.log.length
  const preallocating = disk.image.preallocate('metadata')
  await settle()
  t.is(disk.backend.log.length, before, 'not a single operation of the file')
  const reading = readDisk(disk, 0, 65536)
  await settle()
  held.release()
  await Promise.all([write, preallocating])
  t.is((await reading)[0], 1)
  await checkedClean(t, disk)
})

test('H12: two writes to different bytes of one sector both survive', async (t) => {
  for (const inPlace of [true, false]) {
    for (const backing of [undefined, source(fill(65536, 7))]) {
      const disk = await newDisk({ size: 65536, clusterSize: 4096 }, { backing })
      if (inPlace) await disk.image.write(fill(4096, 7), 0)
      await Promise.all(
        Array.from({ length: 64 }, (_, index) => disk.image.write(fill(3, index + 1), 100 + index * 4)),
      )
      const seen = await readDisk(disk, 100, 256)
      const between = inPlace || backing !== undefined ? 7 : 0
      for (let index = 0; index < 64; index++) {
        t.deepEqual([...seen.subarray(index * 4, index * 4 + 4)], [index + 1, index + 1, index + 1, between])
      }
      await checkedClean(t, disk)
    }
  }
})

test('H13: a write that fails gives its clusters back, and who waited for it goes on', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 }, { backing: source(fill(65536, 7)) })
  const failure = new Error('no space')
  const held = disk.backend.hold(isDataWrite)
  const first = t.throwsAsync(disk.image.write(fill(512, 1), 0), { is: failure })
  await held.reached
  const second = disk.image.write(fill(512, 2), 1024)
  t.false(await isDone(second))
  held.reject(failure)
  await Promise.all([first, second])
  t.deepEqual(await readDisk(disk, 0, 1024), fill(1024, 7))
  t.deepEqual(await readDisk(disk, 1024, 512), fill(512, 2))
  await checkedClean(t, disk)
})

test('H13: whatever fails in the middle of requests that run at the same time, the image stays sound and usable', async (t) => {
  t.timeout(60_000)
  const kinds = ['read', 'readQueued', 'write', 'writeZeroes', 'flush'] as const
  let failures = 0
  for (const kind of kinds) {
    for (let skipped = 0; skipped < 200; skipped++) {
      const backing = source(fill(2 ** 18, 7))
      const disk = await newDisk(
        { size: 2 ** 18, clusterSize: cluster, refcountBits: 64 },
        { backing, l2CacheBytes: 0, refcountCacheBytes: 0 },
      )
      await disk.image.write(fill(2 ** 17, 8), 1000)
      let seen = 0
      const stop = disk.backend.fail(
        (operation) => operation.kind === kind && seen++ === skipped,
        new Error('injected'),
        1,
      )
      const requests = Array.from({ length: 24 }, (_, index) => {
        const at = index * 10000
        if (index % 4 === 3) return disk.image.discard(at, 9000)
        if (index % 4 === 2) return disk.image.writeZeroes(at, 9000, { unmap: index % 8 === 2 })
        return disk.image.write(fill(9000, index), at)
      })
      requests.push(disk.image.flush())
      for (const outcome of await Promise.allSettled(requests)) {
        if (outcome.status === 'fulfilled') continue
        failures++
        t.regex(String(outcome.reason), /injected/)
      }
      stop()
      await disk.image.write(fill(9000, 99), 5)
      t.deepEqual(await readDisk(disk, 5, 9000), fill(9000, 99))
      await checkedClean(t, disk)
      if (seen <= skipped) break
    }
  }
  t.log(`${failures} requests failed`)
  t.true(failures > 20)
})

test('H14: writes at the same time never get the same cluster', async (t) => {
  const disk = await newDisk(
    { size: 2 ** 20, clusterSize: cluster, refcountBits: 64 },
    { l2CacheBytes: 0, refcountCacheBytes: 0 },
  )
  await Promise.all(
    Array.from({ length: 500 }, (_, index) => disk.image.write(fill(cluster, index), index * 4 * cluster)),
  )
  const hosts = new Set<number>()
  for (let index = 0; index < 500; index++) {
    const mapping = await disk.image.mapping(index * 4 * cluster, cluster)
    if (mapping.type === 'data') hosts.add(mapping.hostOffset)
    t.deepEqual(await readDisk(disk, index * 4 * cluster, cluster), fill(cluster, index))
  }
  t.is(hosts.size, 500)
  await checkedClean(t, disk)
})

test('unknown autoclear bits are cleared for good before the first write, and by nothing else', async (t) => {
  const contents = await imageBytes({ size: 65536, clusterSize: 4096 })
  // Bits 5 and 63 of the mask at byte 88.
  contents.write(Uint8Array.from(Buffer.from('8000000000000020', 'hex')), 88)
  const mask = (): string => {
    const bytes = new Uint8Array(8)
    contents.read(bytes, 88)
    return Buffer.from(bytes).toString('hex')
  }
  const disk = await openDisk(contents)
  await readAll(disk)
  await disk.image.flush()
  await reopen(disk)
  t.is(mask(), '8000000000000020')
  const held = disk.backend.hold(({ kind }) => kind === 'durable')
  const writes = [disk.image.write(fill(512, 1), 0), disk.image.write(fill(512, 2), 4096)]
  await held.reached
  t.false(disk.backend.log.some(isDataWrite), 'not before the bits are gone')
  held.release()
  await Promise.all(writes)
  t.is(mask(), '0000000000000000')
  t.is(disk.backend.log.filter(({ kind, offset }) => kind === 'enqueue' && offset === 0).length, 1)
  await checkedByQemu(t, disk)
})

test('when the autoclear bits cannot be cleared nothing is written, and the next write tries again', async (t) => {
  const contents = await imageBytes({ size: 65536, clusterSize: 4096 })
  contents.write(Uint8Array.of(0x80), 88)
  const disk = await openDisk(contents)
  const failure = new Error('no sync')
  disk.backend.fail(({ kind }) => kind === 'flush', failure, 1)
  const writes = await Promise.allSettled([disk.image.write(fill(512, 1), 0), disk.image.discard(0, 4096)])
  t.deepEqual(
    writes.map(({ status }) => status),
    ['rejected', 'rejected'],
  )
  t.false(disk.backend.log.some(isDataWrite))
  await disk.image.write(fill(512, 1), 0)
  await checkedClean(t, disk)
})

test('closing waits for what runs, frees what is to be freed, and leaves nothing in the queue', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 })
  await disk.image.write(fill(32768, 1), 0)
  await disk.image.discard(0, 16384)
  const held = disk.backend.hold(isDataWrite)
  const late = disk.image.write(fill(4096, 2), 40960)
  await held.reached
  const closing = disk.image.close()
  t.false(await isDone(closing))
  held.release()
  await Promise.all([late, closing])
  t.is(disk.memory.stats().queuedNodesNow, 0)
  const result = await checkContents(disk.memory.contents)
  t.deepEqual([result.corruptions, result.leaks], [0, 0])
})

test('closing frees the file also when the last flush fails, and says so', async (t) => {
  let broken = false
  const disk = await newDisk(
    { size: 65536, clusterSize: 4096 },
    { memory: { fault: ({ kind }) => (broken && kind === 'sync' ? 5 : undefined) } },
  )
  await disk.image.write(fill(4096, 1), 0)
  broken = true
  await t.throwsAsync(disk.image.close(), { code: 'ERR_POISONED' })
  await t.throwsAsync(disk.memory.read(fill(1, 0), 0), { code: 'ERR_CLOSED' })
})

test('a request that waited for a resize which then failed is done', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 512 })
  const failure = new Error('no')
  const held = disk.backend.hold(({ kind }) => kind === 'flush')
  const resizing = t.throwsAsync(disk.image.resize(2 ** 23, { shrink: false }), { is: failure })
  await held.reached
  const waiting = disk.image.write(fill(512, 1), 0)
  t.false(await isDone(waiting))
  held.reject(failure)
  await Promise.all([resizing, waiting])
  t.is((await readDisk(disk, 0, 1))[0], 1)
  await disk.image.close()
})

for (const syncPolicy of ['flush', 'write'] as const) {
  test(`after a failed sync nothing succeeds any more but reading, sync policy '${syncPolicy}'`, async (t) => {
    let broken = false
    const disk = await newDisk(
      { size: 65536, clusterSize: 4096 },
      { memory: { syncPolicy, fault: ({ kind }) => (broken && kind === 'sync' ? 5 : undefined) } },
    )
    await disk.image.write(fill(4096, 1), 0)
    await disk.image.flush()
    broken = true
    await disk.image.write(fill(4096, 2), 8192).catch(() => undefined)
    await t.throwsAsync(disk.image.flush(), { code: 'ERR_POISONED' })
    broken = false
    const refused = { code: 'ERR_POISONED', errno: 5 }
    t.like(await t.throwsAsync(disk.image.flush()), refused)
    t.like(await t.throwsAsync(disk.image.write(fill(1, 3), 0)), refused)
    t.like(await t.throwsAsync(disk.image.resize(131072, { shrink: false })), refused)
    t.like(await t.throwsAsync(disk.image.resize(4096, { shrink: true })), refused)
    t.is((await readDisk(disk, 0, 1))[0], 1)
    await t.throwsAsync(disk.image.close(), { code: 'ERR_POISONED' })
  })
}

test('what a failed sync may have lost is not read: it may be what the cluster held before', async (t) => {
  let broken = false
  const disk = await newDisk(
    { size: 65536, clusterSize: 4096 },
    {
      memory: {
        mayLose: true,
        fault: ({ kind }) => (broken && kind === 'sync' ? { errno: 5, loses: () => true } : undefined),
      },
    },
  )
  await disk.image.write(fill(8192, 1), 0)
  await disk.image.flush()
  await disk.image.discard(0, 4096)
  await disk.image.flush()
  await disk.image.flush()
  // Into the cluster that was freed.
  await disk.image.write(fill(4096, 2), 32768)
  await disk.image.write(fill(4096, 3), 4096)
  broken = true
  await t.throwsAsync(disk.image.flush(), { code: 'ERR_POISONED' })
  await t.throwsAsync(readDisk(disk, 32768, 1), { code: 'ERR_POISONED' })
  t.is((await readDisk(disk, 0, 1))[0], 0)
  t.is((await readDisk(disk, 4096, 1))[0], 1, 'overwritten in place: old or new')
})
