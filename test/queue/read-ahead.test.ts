import { writeFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { openImage } from '../../lib/image/open.js'
import { BlockQueue } from '../../lib/queue/block-queue.js'
import { ReadAhead } from '../../lib/queue/read-ahead.js'
import { makeFolder } from '../support/temp-folder.js'

const unit = 4096
const fileLength = 100 * unit

/** A file whose bytes are the number of their unit, and a thread on which `moment` is changed by hand. */
function setUp(): {
  ahead: ReadAhead
  requests: { moment: number; beginMoment: () => number }
  calls: [offset: number, length: number][]
  page: { isCached: boolean }
  read: (index: number, length?: number) => number
} {
  const calls: [number, number][] = []
  const page = { isCached: true }
  const ahead = new ReadAhead((bytes, offset) => {
    calls.push([offset, bytes.length])
    for (let i = 0; i < bytes.length; i++) bytes[i] = Math.floor((offset + i) / unit)
    return page.isCached
  })
  const requests = { moment: 0, beginMoment: () => requests.moment }
  const read = (index: number, length = unit): number => {
    const bytes = new Uint8Array(length).fill(255)
    if (!ahead.read(bytes, index * unit, fileLength, requests)) return -1
    return bytes.every((byte, i) => byte === index + Math.floor(i / unit)) ? index : NaN
  }
  return { ahead, requests, calls, page, read }
}

test('the third of the reads that go on one from the other reads 64 KiB, which serve those that follow', (t) => {
  const { calls, read } = setUp()
  t.deepEqual([read(5), read(6)], [-1, -1])
  for (let index = 7; index < 7 + 32; index++) t.is(read(index), index)
  t.deepEqual(calls, [
    [7 * unit, 65536],
    [23 * unit, 65536],
  ])
})

test('what is there serves reads in any order, what is not is not read for them', (t) => {
  const { calls, read } = setUp()
  for (const index of [0, 1, 2]) read(index)
  t.deepEqual([read(9), read(3), read(17), read(3, 2 * unit)], [9, 3, 17, 3])
  t.is(read(18), -1)
  t.is(read(1), -1)
  t.is(calls.length, 1)
})

test('nothing is left of it in another moment', (t) => {
  const { requests, calls, read } = setUp()
  for (const index of [0, 1, 2, 3]) read(index)
  requests.moment++
  t.is(read(10), -1)
  t.is(read(3), -1)
  t.is(calls.length, 1)
})

test('long reads go alone', (t) => {
  const { calls, read } = setUp()
  for (let index = 0; index < 40; index += 5) t.is(read(index, 5 * unit), -1)
  t.deepEqual(calls, [])
})

test('a window ends with the file', (t) => {
  const { calls, read } = setUp()
  for (const index of [95, 96, 97, 98, 99]) read(index)
  t.deepEqual(calls, [[97 * unit, 3 * unit]])
  t.is(read(100), -1)
  t.is(read(99, 2 * unit), -1)
})

test('where the page cache does not have it, the next reads do without', (t) => {
  const { calls, page, read } = setUp()
  page.isCached = false
  for (let index = 0; index < 20; index++) t.is(read(index), -1)
  t.is(calls.length, 1)
  page.isCached = true
  t.is(read(20), 20)
})

async function open(
  t: ExecutionContext,
  { ahead = true, ...options }: { ahead?: boolean; inlineWrites?: boolean } = {},
): Promise<BlockQueue> {
  const path = join(await makeFolder(t), 'file')
  await writeFile(path, new Uint8Array(fileLength).fill(1))
  const queue = await BlockQueue.open(path, {
    readOnly: false,
    direct: false,
    syncPolicy: 'flush',
    idleMs: 0,
    ...options,
  })
  if (ahead) queue.mayReadAhead()
  return queue
}

async function byteAt(queue: BlockQueue, index: number): Promise<number> {
  const bytes = new Uint8Array(unit)
  await queue.read(bytes, index * unit)
  return bytes[0] as number
}

for (const inlineWrites of [false, true]) {
  test(`a write that is over is seen by the next read, inline ${inlineWrites}`, async (t) => {
    const queue = await open(t, { inlineWrites })
    for (let index = 0; index < 8; index++) t.is(await byteAt(queue, index), 1)
    await queue.write(new Uint8Array(unit).fill(2), 8 * unit)
    t.is(await byteAt(queue, 8), 2)
    t.is(await byteAt(queue, 9), 1)
    await queue.close()
  })
}

test('zeros, and another length, are seen as well', async (t) => {
  const queue = await open(t)
  for (let index = 0; index < 8; index++) t.is(await byteAt(queue, index), 1)
  await queue.writeZeroes(8 * unit, unit, { unmap: false })
  t.is(await byteAt(queue, 8), 0)
  t.is(await byteAt(queue, 9), 1)
  await queue.truncate(11 * unit)
  await queue.truncate(fileLength)
  t.is(await byteAt(queue, 10), 1)
  t.is(await byteAt(queue, 11), 0)
  await queue.close()
})

test('what others write is seen when the event loop has turned, or promises have not gone on', async (t) => {
  const queue = await open(t)
  const turns = [
    () => new Promise<void>((resolve) => setImmediate(resolve)),
    () => new Promise<void>((resolve) => process.nextTick(resolve)),
  ]
  for (const [number, turn] of turns.entries()) {
    for (let index = 0; index < 8; index++) await byteAt(queue, index)
    writeFileSync(queue.path, new Uint8Array(fileLength).fill(number + 3), { flag: 'r+' })
    await turn()
    t.is(await byteAt(queue, 8), number + 3)
  }
  await queue.close()
})

test('where others may change the file, what they did before a read is seen by it, whatever told of it', async (t) => {
  const queue = await open(t, { ahead: false })
  for (let index = 0; index < 8; index++) t.is(await byteAt(queue, index), 1)
  writeFileSync(queue.path, new Uint8Array(fileLength).fill(2), { flag: 'r+' })
  t.is(await byteAt(queue, 8), 2)
  await queue.close()
})

for (const options of [
  { readOnly: true, forceShare: true },
  { readOnly: true, locking: 'off' },
] as const) {
  test(`such are the files of images opened with ${JSON.stringify(options)}`, async (t) => {
    const path = join(await makeFolder(t), 'disk.raw')
    await writeFile(path, new Uint8Array(fileLength).fill(1))
    const image = await openImage(path, { format: 'raw', ...options })
    const byteOf = async (index: number): Promise<number | undefined> =>
      (await image.read({ offset: index * unit, length: unit }))[0]
    for (let index = 0; index < 8; index++) t.is(await byteOf(index), 1)
    writeFileSync(path, new Uint8Array(fileLength).fill(2), { flag: 'r+' })
    t.is(await byteOf(8), 2)
    await image.close()
  })
}
