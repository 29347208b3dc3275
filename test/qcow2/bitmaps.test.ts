import test, { type ExecutionContext } from 'ava'
import type { BitmapChange } from '../../lib/queue/format-image.js'
import type { Fault } from '../../lib/queue/memory-device.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { bitmapsIn } from '../crash/bitmap-walk.js'
import {
  checkedByQemu,
  checkedClean,
  type Disk,
  fill,
  newDisk,
  openDisk,
  reopen,
} from '../support/qcow2-disk.js'

const small = { size: 2 ** 18, clusterSize: 512 }

const change = (disk: Disk, given: BitmapChange): Promise<void> => disk.image.bitmaps.changing(given)()
const add = (disk: Disk, name: string, granularity = 512): Promise<void> =>
  change(disk, { kind: 'add', name, granularity, enabled: true })

async function rangesOf(disk: Disk, name: string): Promise<number[][]> {
  return [...(await disk.image.bitmaps.cut(name)).ranges()].map(({ offset, length }) => [offset, length])
}

/** What the file says of them, read by code of its own. */
function stored(disk: Disk): { name: string; inUse: boolean; auto: boolean }[] {
  const bytes = disk.memory.snapshot()
  return bitmapsIn(new DataView(bytes.buffer, bytes.byteOffset), bytes.length).bitmaps.map(
    ({ name, inUse, auto }) => ({ name, inUse, auto }),
  )
}

test('every kind of change is marked, to the unit, and is there after closing', async (t) => {
  const disk = await newDisk({ size: 2 ** 18 + 512, clusterSize: 4096 })
  await add(disk, 'fine')
  await add(disk, 'coarse', 65536)
  await disk.image.write(fill(10, 1), 1020)
  await disk.image.write(fill(10, 1), 1020)
  await disk.image.writeCompressed(fill(4096, 1), 8192)
  await disk.image.writeZeroes(20000, 700, { unmap: true })
  await disk.image.discard(131072, 4096)
  await disk.image.write(fill(1, 1), 2 ** 18 + 511)
  const fine = [
    [512, 1024],
    [8192, 4096],
    [19968, 1024],
    [131072, 4096],
    [2 ** 18, 512],
  ]
  const coarse = [
    [0, 65536],
    [131072, 65536],
    [2 ** 18, 512],
  ]
  t.deepEqual(await rangesOf(disk, 'fine'), fine)
  await reopen(disk)
  t.deepEqual(await rangesOf(disk, 'fine'), fine)
  t.deepEqual(await rangesOf(disk, 'coarse'), coarse)
  await checkedByQemu(t, disk)
})

test('the file says that bitmaps are in use before the first change, and not before that', async (t) => {
  const disk = await newDisk(small)
  await add(disk, 'live')
  await change(disk, { kind: 'add', name: 'still', enabled: false })
  t.deepEqual(
    stored(disk).map(({ inUse }) => inUse),
    [false, false],
  )
  await disk.image.write(fill(512, 1), 0)
  t.deepEqual(stored(disk), [
    { name: 'live', inUse: true, auto: true },
    { name: 'still', inUse: false, auto: false },
  ])
  await change(disk, { kind: 'enable', name: 'still' })
  t.deepEqual(
    stored(disk).map(({ inUse }) => inUse),
    [true, true],
  )
  await change(disk, { kind: 'disable', name: 'live' })
  t.deepEqual(
    stored(disk).map(({ inUse }) => inUse),
    [false, true],
  )
  await disk.image.close()
  t.deepEqual(
    stored(disk).map(({ inUse }) => inUse),
    [false, false],
  )
})

test('an image without bitmaps pays no sync and no write for them', async (t) => {
  const disk = await newDisk(small)
  await disk.image.write(fill(512, 1), 0)
  await disk.image.close()
  const { dataWrites, syncsIssued } = disk.memory.stats()
  const again = await newDisk(small)
  await add(again, 'x')
  await change(again, { kind: 'remove', name: 'x' })
  const before = again.memory.stats()
  await again.image.write(fill(512, 1), 0)
  await again.image.close()
  t.is(again.memory.stats().dataWrites - before.dataWrites, dataWrites)
  t.is(again.memory.stats().syncsIssued - before.syncsIssued, syncsIssued)
})

test('a session costs one sync and one write before its first change, and none for the others', async (t) => {
  const disk = await newDisk(small)
  await add(disk, 'x')
  await disk.image.flush()
  const before = disk.memory.stats()
  await disk.image.write(fill(512, 1), 0)
  const first = disk.memory.stats()
  t.deepEqual([first.syncsIssued - before.syncsIssued, first.dataWrites - before.dataWrites], [1, 2])
  for (let at = 1; at < 20; at++) await disk.image.write(fill(512, 1), at * 512)
  const after = disk.memory.stats()
  t.is(after.syncsIssued, first.syncsIssued)
  await checkedClean(t, disk)
})

test('what a crash has left in use is inconsistent: listed, refused, and removed', async (t) => {
  const disk = await newDisk(small)
  await add(disk, 'live')
  await change(disk, { kind: 'add', name: 'still', enabled: false })
  await disk.image.write(fill(512, 1), 0)
  await disk.image.flush()
  const crashed = await openDisk(SparseBytes.from(disk.memory.snapshot()))
  t.deepEqual(
    (await crashed.image.bitmaps.list()).map(({ name, inconsistent }) => [name, inconsistent]),
    [
      ['live', true],
      ['still', false],
    ],
  )
  for (const kind of ['clear', 'enable', 'disable'] as const)
    await t.throwsAsync(change(crashed, { kind, name: 'live' }), { code: 'ERR_BITMAP_INCONSISTENT' })
  await t.throwsAsync(crashed.image.bitmaps.cut('live'), { code: 'ERR_BITMAP_INCONSISTENT' })
  await t.throwsAsync(crashed.image.resize(2 ** 19, { shrink: false }), { code: 'ERR_BITMAP_INCONSISTENT' })
  await crashed.image.write(fill(512, 1), 0)
  await reopen(crashed)
  t.is((await crashed.image.bitmaps.list())[0]?.inconsistent, true)
  await change(crashed, { kind: 'remove', name: 'live' })
  await change(crashed, { kind: 'remove', name: 'still' })
  t.deepEqual(await crashed.image.bitmaps.list(), [])
  // The crash leaked what was not written down; nothing else.
  await crashed.image.close()
})

test('without the autoclear bit nobody believes them, and new ones can be added', async (t) => {
  const disk = await newDisk({ size: 2 ** 24, clusterSize: 65536 })
  await add(disk, 'old')
  await disk.image.close()
  const bytes = disk.memory.snapshot()
  bytes[95] = 0
  const again = await openDisk(SparseBytes.from(bytes))
  t.deepEqual(await again.image.bitmaps.list(), [])
  await again.image.write(fill(512, 1), 0)
  await add(again, 'new')
  await again.image.close()
  t.deepEqual(stored(again), [{ name: 'new', inUse: false, auto: true }])
})

test('changes that cannot be are refused, and leave the file as it is', async (t) => {
  const disk = await newDisk(small)
  await add(disk, 'x')
  const before = disk.memory.snapshot()
  const refused = async (given: BitmapChange, code: string): Promise<void> => {
    await t.throwsAsync(change(disk, given), { code }, JSON.stringify(given).slice(0, 80))
  }
  await refused({ kind: 'add', name: 'x', enabled: true }, 'ERR_BITMAP_EXISTS')
  await refused({ kind: 'add', name: '', enabled: true }, 'ERR_INVALID_ARGUMENT')
  await refused({ kind: 'add', name: 'é'.repeat(512), enabled: true }, 'ERR_OUT_OF_RANGE')
  await refused({ kind: 'add', name: 'y', granularity: 256, enabled: true }, 'ERR_OUT_OF_RANGE')
  await refused({ kind: 'add', name: 'y', granularity: 2 ** 32, enabled: true }, 'ERR_OUT_OF_RANGE')
  await refused({ kind: 'add', name: 'y', granularity: 1000, enabled: true }, 'ERR_OUT_OF_RANGE')
  await refused({ kind: 'remove', name: 'y' }, 'ERR_BITMAP_NOT_FOUND')
  await refused({ kind: 'merge', name: 'x', sources: ['y'] }, 'ERR_BITMAP_NOT_FOUND')
  await t.throwsAsync(disk.image.resize(0, { shrink: true }), { code: 'ERR_NOT_SUPPORTED' })
  t.deepEqual(disk.memory.snapshot(), before)
  const old = await newDisk({ ...small, version: 2 })
  await t.throwsAsync(add(old, 'x'), { message: /Cannot store dirty bitmaps in qcow2 v2 files/ })
  const empty = await newDisk({ size: 0, clusterSize: 512 })
  await t.throwsAsync(add(empty, 'x'), { code: 'ERR_NOT_SUPPORTED' })
  const large = await newDisk({ size: 64 * 2 ** 40, clusterSize: 2 ** 21 })
  await t.throwsAsync(add(large, 'x', 512), { message: /Too much space will be occupied/ })
})

test('a disk of 64 TiB is marked anywhere, and as a whole, in little memory', async (t) => {
  const disk = await newDisk({ size: 64 * 2 ** 40, clusterSize: 2 ** 21 })
  await add(disk, 'x', 65536)
  const before = process.memoryUsage().arrayBuffers
  for (let at = 0; at < 64; at++) disk.image.bitmaps.mark(at * 2 ** 40, 1)
  t.true(process.memoryUsage().arrayBuffers - before < 2 ** 20)
  t.is((await rangesOf(disk, 'x')).length, 64)
  disk.image.bitmaps.mark(0, 64 * 2 ** 40)
  t.deepEqual(await rangesOf(disk, 'x'), [[0, 64 * 2 ** 40]])
})

const operations: Readonly<Record<string, (disk: Disk) => Promise<void>>> = {
  add: (disk) => add(disk, 'two'),
  clear: (disk) => change(disk, { kind: 'clear', name: 'one' }),
  remove: (disk) => change(disk, { kind: 'remove', name: 'one' }),
  merge: (disk) => change(disk, { kind: 'merge', name: 'still', sources: ['one'] }),
}

async function withMarks(t: ExecutionContext): Promise<Uint8Array> {
  const disk = await newDisk(small)
  await add(disk, 'one')
  await change(disk, { kind: 'add', name: 'still', enabled: false })
  await disk.image.write(fill(60 * 512, 1), 0)
  await checkedClean(t, disk)
  return disk.memory.snapshot()
}

for (const [name, run] of Object.entries(operations)) {
  for (const [error, errno] of [
    ['ENOSPC', 28],
    ['EIO', 5],
  ] as const) {
    test(`${error} at any request of the device: ${name} fails cleanly or not at all, and can be tried again`, async (t) => {
      const bytes = await withMarks(t)
      for (let index = 0; ; index++) {
        let at = -1
        let isHit = false
        const fault: Fault = () => {
          if (at < 0 || at++ !== index) return undefined
          isHit = true
          return errno
        }
        const disk = await openDisk(SparseBytes.from(bytes), { memory: { fault } })
        await disk.image.write(fill(512, 2), 100 * 512)
        at = 0
        const failure = await run(disk).then(
          () => undefined,
          (reason: unknown) => reason as { code?: string },
        )
        at = -1
        if (!isHit) {
          t.is(failure, undefined)
          await checkedClean(t, disk)
          break
        }
        if (failure === undefined || disk.backend.poisoned === undefined) {
          const again = await run(disk).catch((reason: unknown) => reason as { code?: string })
          const isDone = ['ERR_BITMAP_EXISTS', 'ERR_BITMAP_NOT_FOUND'].includes(
            again?.code ?? 'ERR_BITMAP_EXISTS',
          )
          t.true(isDone, again?.code)
          await checkedClean(t, disk)
          t.deepEqual(
            stored(disk).filter(({ inUse }) => inUse),
            [],
          )
        } else await disk.image.close().catch(() => undefined)
        t.true(index < 200)
      }
    })
  }
}
