import test from 'ava'
import { checkedByQemu, checkedClean, fill, newDisk, readAll, source } from '../support/qcow2-disk.js'

for (const mode of ['metadata', 'falloc', 'full'] as const) {
  for (const clusterSize of [512, 4096, 65536]) {
    test(`preallocation ${mode} maps every cluster, and the disk reads as zeros, clusters of ${clusterSize}`, async (t) => {
      const size = 70 * 4096 + 512
      const disk = await newDisk({ size, clusterSize, refcountBits: 64 })
      await disk.image.preallocate(mode)
      for (let at = 0; at < size;) {
        const mapping = await disk.image.mapping(at, size - at)
        t.is(mapping.type, 'data', `at ${at}`)
        at += mapping.length
      }
      t.true((await readAll(disk)).every((byte) => byte === 0))
      const before = disk.backend.log.length
      await disk.image.write(fill(size, 1), 0)
      t.false(
        disk.backend.log.slice(before).some(({ kind }) => kind === 'enqueue'),
        'all in place',
      )
      await checkedByQemu(t, disk)
    })
  }
}

test('no entry points past the end of the file, in which holes do for metadata', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 4096 })
  await disk.image.preallocate('metadata')
  const last = await disk.image.mapping(2 ** 20 - 4096, 4096)
  t.true(last.type === 'data' && disk.memory.contents.length >= last.hostOffset + 4096)
  const { length } = disk.memory.snapshot().filter((byte) => byte !== 0)
  t.true(length < 10000, 'next to nothing was written')
  await checkedClean(t, disk)
})

test('clusters that are mapped already stay as they are', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 })
  await disk.image.write(fill(4096, 1), 8192)
  await disk.image.writeZeroes(16384, 4096, { unmap: true })
  await disk.image.preallocate('metadata')
  const expected = new Uint8Array(65536)
  expected.fill(1, 8192, 12288)
  t.deepEqual(await readAll(disk), expected)
  await checkedClean(t, disk)
})

test('a cluster that held something before is zeroed on the host, whatever the mode', async (t) => {
  for (const mode of ['metadata', 'falloc', 'full'] as const) {
    const disk = await newDisk({ size: 65536, clusterSize: 4096 })
    await disk.image.write(fill(65536, 1), 0)
    await disk.image.discard(0, 65536)
    await disk.image.flush()
    // Without the zero entries the disk is as new, and the host has not punched everything, as it need not.
    disk.backend.fail(({ kind }) => kind === 'punch', new Error('cannot'))
    await disk.image.resize(0, { shrink: true }).catch(() => undefined)
    await disk.image.resize(65536, { shrink: false, preallocation: mode })
    t.deepEqual(await readAll(disk), fill(65536, 0), mode)
  }
})

test("growing with preallocation maps the new part only, from the old end's cluster on", async (t) => {
  for (const [from, to] of [
    [512, 2560],
    [1024, 8192],
    [1536, 9 * 512],
    [700 * 512, 900 * 512],
  ] as const) {
    const disk = await newDisk({ size: from, clusterSize: 1024 })
    await disk.image.resize(to, { shrink: false, preallocation: 'metadata' })
    for (let at = Math.ceil(from / 1024) * 1024; at < to; at += 1024) {
      t.is((await disk.image.mapping(at, 1)).type, 'data', `${from} to ${to}, at ${at}`)
    }
    await checkedClean(t, disk)
  }
})

test('growing with preallocation does not hide the backing file where the disk was before', async (t) => {
  for (const backingSize of [512, 1024, 65536]) {
    const disk = await newDisk({ size: 512, clusterSize: 4096 }, { backing: source(fill(backingSize, 7)) })
    await disk.image.resize(65536, { shrink: false, preallocation: 'full' })
    const expected = new Uint8Array(65536)
    expected.fill(7, 0, 512)
    t.deepEqual(await readAll(disk), expected, `backing file of ${backingSize}`)
    await checkedClean(t, disk)
  }
})

test('zeros that hide a longer backing file get their clusters too', async (t) => {
  for (const mode of ['metadata', 'falloc', 'full'] as const) {
    const disk = await newDisk({ size: 8192, clusterSize: 4096 }, { backing: source(fill(65536, 7)) })
    await disk.image.resize(65536, { shrink: false, preallocation: mode })
    for (let at = 8192; at < 65536; at += 4096) {
      const mapping = await disk.image.mapping(at, 4096)
      t.is(mapping.type, mode === 'metadata' ? 'zero' : 'data')
      t.true('hostOffset' in mapping && (mapping.hostOffset ?? 0) > 0, `a cluster at ${at}`)
    }
    const expected = new Uint8Array(65536)
    expected.fill(7, 0, 8192)
    t.deepEqual(await readAll(disk), expected)
    await checkedClean(t, disk)
  }
})

test('preallocation that is aborted leaves a sound image', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 512 })
  const controller = new AbortController()
  const reason = new Error('enough')
  const preallocating = disk.image.preallocate('full', {
    signal: controller.signal,
    onBytes: (done) => {
      if (done > 2 ** 19) controller.abort(reason)
    },
  })
  await t.throwsAsync(preallocating, { is: reason })
  t.true((await readAll(disk)).every((byte) => byte === 0))
  await checkedClean(t, disk)
})

test('progress is told in bytes of the disk, up to its size', async (t) => {
  const size = 100 * 512
  const disk = await newDisk({ size, clusterSize: 4096 })
  const told: number[] = []
  await disk.image.preallocate('metadata', { onBytes: (done) => told.push(done) })
  t.is(told.at(-1), size)
  t.deepEqual(
    told,
    [...told].sort((one, other) => one - other),
  )
  await checkedClean(t, disk)
})

test('clusters that could not be filled are given back', async (t) => {
  const disk = await newDisk({ size: 65536, clusterSize: 4096 })
  const failure = new Error('no space')
  disk.backend.fail(({ kind, length }) => kind === 'write' && length > 4096, failure)
  await t.throwsAsync(disk.image.preallocate('full'), { is: failure })
  await checkedClean(t, disk)
})

for (const compat of [{}, { version: 2 as const }]) {
  test(`a disk that cannot be preallocated as it grows gets its old size back, and the space too, ${JSON.stringify(compat)}`, async (t) => {
    const disk = await newDisk({ size: 2 ** 20, clusterSize: 4096, ...compat })
    await disk.image.write(fill(70_000, 7), 1000)
    await disk.image.flush()
    const before = await readAll(disk)
    const used = disk.memory.contents.length
    const controller = new AbortController()
    const reason = new Error('enough')
    const onBytes = (done: number): void => {
      if (done > 2 ** 20) controller.abort(reason)
    }
    const { signal } = controller
    const growing = { shrink: false, preallocation: 'full' as const }
    await t.throwsAsync(disk.image.resize(2 ** 24, { ...growing, signal, onBytes }), { is: reason })
    t.is(disk.image.size, 2 ** 20)
    const failure = new Error('no space')
    disk.backend.fail(({ kind, length }) => kind === 'write' && length > 2 ** 20, failure)
    await t.throwsAsync(disk.image.resize(2 ** 24, growing), { is: failure })
    t.is(disk.image.size, 2 ** 20)
    t.true(disk.memory.contents.length <= used + 2 ** 20, 'but for a larger L1 table and a refcount block')
    t.deepEqual(await readAll(disk), before)
    await disk.image.resize(2 ** 21, { shrink: false })
    t.true((await readAll(disk)).subarray(2 ** 20).every((byte) => byte === 0))
    await checkedByQemu(t, disk)
  })
}
