import test from 'ava'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import {
  checkedByQemu,
  checkedClean,
  checkedSound,
  diskByQemu,
  fill,
  newDisk,
  openDisk,
  readAll,
  readDisk,
  reopen,
  source,
} from '../support/qcow2-disk.js'

const grown = { shrink: false }
const shrunk = { shrink: true }

test('a grown disk shows zeros behind its old end, and can be written there', async (t) => {
  const disk = await newDisk({ size: 10 * 512, clusterSize: 4096 })
  await disk.image.write(fill(5120, 1), 0)
  await disk.image.resize(100 * 4096, grown)
  t.is(disk.image.size, 100 * 4096)
  const seen = await readAll(disk)
  t.true(seen.subarray(0, 5120).every((byte) => byte === 1))
  t.true(seen.subarray(5120).every((byte) => byte === 0))
  await disk.image.write(fill(4096, 2), 99 * 4096)
  await reopen(disk)
  t.is(disk.image.size, 100 * 4096)
  t.deepEqual(await readDisk(disk, 99 * 4096, 4096), fill(4096, 2))
  await checkedByQemu(t, disk)
})

test('growing over a backing file that is longer shows zeros there, not the backing file', async (t) => {
  for (const [oldSize, size] of [
    [10 * 512, 60 * 512],
    [8192, 81920],
    [512, 1024],
    [512, 5 * 4096],
  ] as const) {
    const disk = await newDisk({ size: oldSize, clusterSize: 4096 }, { backing: source(fill(65536, 7)) })
    await disk.image.resize(size, grown)
    const expected = new Uint8Array(size)
    expected.fill(7, 0, oldSize)
    t.deepEqual(await readAll(disk), expected, `${oldSize} to ${size}`)
    await checkedClean(t, disk)
  }
})

test('what shrinking cuts off does not come back when the disk grows again', async (t) => {
  for (const size of [0, 512, 4096, 4096 + 512, 40960]) {
    const disk = await newDisk({ size: 65536, clusterSize: 4096 }, { backing: source(fill(65536, 7)) })
    await disk.image.write(fill(50000, 1), 0)
    await disk.image.resize(size, shrunk)
    t.is(disk.image.size, size)
    await disk.image.resize(65536, grown)
    const expected = new Uint8Array(65536)
    expected.fill(1, 0, size)
    t.deepEqual(await readAll(disk), expected, `shrunk to ${size}`)
    await checkedClean(t, disk)
  }
})

test('the L1 table moves when the disk outgrows it, and the old one is given out again', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 512 })
  await disk.image.write(fill(65536, 1), 0)
  const old = disk.parts.l1.host
  await disk.image.resize(8 * 2 ** 20, grown)
  t.not(disk.parts.l1.host, old)
  t.true(disk.parts.l1.entries >= 256)
  t.is(disk.parts.metadata.kindOf(old / 512), undefined)
  t.is(disk.parts.metadata.kindOf(disk.parts.l1.host / 512), 'L1 table')
  await disk.image.write(fill(1000, 2), 8 * 2 ** 20 - 1000)
  await disk.image.flush()
  t.deepEqual(await readDisk(disk, 0, 65536), fill(65536, 1))
  await checkedByQemu(t, disk)
})

test('an L1 table may take more clusters than a refcount block counts', async (t) => {
  for (const refcountBits of [64, 32, 16]) {
    const disk = await newDisk({ size: 65536, clusterSize: 512, refcountBits })
    await disk.image.write(fill(65536, 1), 0)
    // 32 KiB of disk for each of 64 entries in a cluster: 600 clusters of L1.
    await disk.image.resize(600 * 64 * 32768, grown)
    await disk.image.write(fill(1000, 2), 600 * 64 * 32768 - 1000)
    t.deepEqual(await readDisk(disk, 0, 65536), fill(65536, 1))
    await checkedByQemu(t, disk)
  }
})

test('shrinking gives the tail of the file back to the host', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 4096 })
  await disk.image.write(fill(2 ** 20, 1), 0)
  await disk.image.flush()
  const before = disk.backend.length
  await disk.image.resize(65536, shrunk)
  t.true(disk.memory.contents.length < before - 900_000, `${disk.memory.contents.length} of ${before}`)
  t.deepEqual(await readAll(disk), fill(65536, 1))
  await checkedByQemu(t, disk)
})

test('clusters of the cut-off tail are given out again, and are zeros then', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 4096 })
  await disk.image.write(fill(2 ** 20, 1), 0)
  await disk.image.resize(4096, shrunk)
  await disk.image.resize(2 ** 20, grown)
  for (let at = 4096; at < 2 ** 20; at += 8192) await disk.image.write(fill(100, 2), at + 50)
  const expected = new Uint8Array(2 ** 20)
  expected.fill(1, 0, 4096)
  for (let at = 4096; at < 2 ** 20; at += 8192) expected.fill(2, at + 50, at + 150)
  t.deepEqual(await readAll(disk), expected)
  await checkedClean(t, disk)
})

test('a file whose tail cannot be cut off has been shrunk all the same', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 })
  await disk.image.write(fill(65536, 1), 0)
  const failure = new Error('not now')
  disk.backend.fail(({ kind }) => kind === 'truncate', failure, 1)
  await t.throwsAsync(disk.image.resize(8192, shrunk), { is: failure })
  t.is(disk.image.size, 8192, 'as the header says')
  await reopen(disk)
  t.is(disk.image.size, 8192)
  t.deepEqual(await readAll(disk), fill(8192, 1))
  await checkedClean(t, disk)
})

test('whatever fails while the disk grows or shrinks, image and header agree on its size, and nothing is damaged', async (t) => {
  t.timeout(60_000)
  let failures = 0
  for (const kind of ['readQueued', 'write', 'writeZeroes', 'flush', 'durable', 'truncate'] as const) {
    for (const to of [4 * 2 ** 20, 20 * 512]) {
      for (let skipped = 0; skipped < 50; skipped++) {
        const disk = await newDisk(
          { size: 200 * 512, clusterSize: 512, refcountBits: 64 },
          { refcountCacheBytes: 0 },
        )
        await disk.image.write(fill(200 * 512, 1), 0)
        await disk.image.flush()
        await reopen(disk)
        let seen = 0
        const failure = new Error('injected')
        const stop = disk.backend.fail((call) => call.kind === kind && seen++ === skipped, failure, 1)
        const failed = await disk.image.resize(to, shrunk).then(
          () => false,
          (error: unknown) => t.is(error, failure),
        )
        stop()
        if (failed) failures++
        const { size } = disk.image
        t.true(size === to || size === 200 * 512)
        const seenBytes = await readDisk(disk, 0, Math.min(size, 20 * 512))
        t.deepEqual(seenBytes, fill(Math.min(size, 20 * 512), 1))
        await disk.image.close().catch((error: unknown) => t.is(error, failure))
        await checkedSound(t, disk.memory.contents)
        Object.assign(disk, await openDisk(disk.memory.contents, disk.options))
        t.is(disk.image.size, size, `${kind} number ${skipped}: the header`)
        await disk.image.close()
        if (!failed && seen <= skipped) break
      }
    }
  }
  t.log(`${failures} resizes failed`)
  t.true(failures > 10)
})

test('an L1 table that could not be switched to is given back', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 512 })
  await disk.image.write(fill(65536, 1), 0)
  for (const kind of ['write', 'flush'] as const) {
    const failure = new Error('injected')
    disk.backend.fail((call) => call.kind === kind, failure, 1)
    await t.throwsAsync(disk.image.resize(8 * 2 ** 20, grown), { is: failure })
    t.is(disk.image.size, 65536)
  }
  await disk.image.write(fill(65536, 2), 0)
  await checkedClean(t, disk)
})

test('what a resize cannot do it says before it changes anything', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 512 })
  await t.throwsAsync(disk.image.resize(1000, shrunk), { instanceOf: RangeError, message: /multiple of 512/ })
  await t.throwsAsync(disk.image.resize(512, grown), {
    code: 'ERR_NOT_SUPPORTED',
    message: /ask for it explicitly/,
  })
  const most = ((32 * 2 ** 20) / 8) * 32768
  await t.throwsAsync(disk.image.resize(most + 512, grown), { instanceOf: RangeError, message: /at most/ })
  t.is(disk.image.size, 65536)
  t.is(disk.backend.log.length, 0)
  await checkedClean(t, disk)
})

test('a disk with snapshots is resized where these say how large it was: not in version 2', async (t) => {
  for (const compat of ['1.1', '0.10']) {
    const disk = await diskByQemu(t, {
      create: ['-o', `cluster_size=512,compat=${compat}`, 'disk.qcow2', '1M'],
      io: ['write -q -P 1 0 1M'],
      then: [['snapshot', '-c', 'one', 'disk.qcow2']],
    })
    if (compat === '0.10') {
      const refused = { code: 'ERR_NOT_SUPPORTED', message: "Can't resize a v2 image which has snapshots" }
      await t.throwsAsync(disk.image.resize(2 ** 21, grown), refused)
    } else {
      await disk.image.resize(2 ** 18, shrunk)
      await disk.image.resize(2 ** 22, grown)
      const seen = await readAll(disk)
      t.true(seen.subarray(0, 2 ** 18).every((byte) => byte === 1))
      t.true(seen.subarray(2 ** 18).every((byte) => byte === 0))
      await disk.image.snapshots.applying('one', {})()
      t.deepEqual(await readAll(disk), fill(2 ** 20, 1))
    }
    await checkedByQemu(t, disk)
  }
})

test('a snapshot that does not say how large the disk was keeps it as it is', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 512 })
  await disk.image.snapshots.creating('one', {})()
  await disk.image.close()
  // Without extra data, as from an image that was of version 2: what stood there is now the beginning of the name.
  const bytes = disk.memory.snapshot()
  const view = new DataView(bytes.buffer)
  const entry = Number(view.getBigUint64(64))
  view.setUint32(entry + 36, 0)
  const changed = await openDisk(SparseBytes.from(bytes))
  await t.throwsAsync(changed.image.resize(2 ** 21, grown), {
    code: 'ERR_NOT_SUPPORTED',
    message: /how large/,
  })
  await changed.image.close()
})

test('growing costs at most two syncs, three with a larger L1 table', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 })
  await disk.image.write(fill(4096, 1), 0)
  await disk.image.flush()
  const before = disk.image.stats().syncsIssued
  await disk.image.resize(2 ** 20, grown)
  t.true(disk.image.stats().syncsIssued - before <= 2)
  await checkedClean(t, disk)
})
