import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { deflateRawSync } from 'node:zlib'
import test, { type ExecutionContext } from 'ava'
import { BlockQueue } from '../../lib/queue/block-queue.js'
import { makeFolder } from '../support/temp-folder.js'

const size = 65536
const cluster = Uint8Array.from({ length: size }, (_, at) => (at * at) % 199)
const packed = deflateRawSync(cluster, { windowBits: 12 })

async function open(t: ExecutionContext, contents: Uint8Array, direct: boolean): Promise<BlockQueue> {
  const path = join(await makeFolder(t), 'file')
  await writeFile(path, contents)
  const queue = await BlockQueue.open(path, { readOnly: true, direct, syncPolicy: 'flush' })
  t.teardown(() => queue.close())
  return queue
}

for (const direct of [false, true]) {
  test(`a deflate stream at any place, with anything behind it, is unpacked as it is read, direct: ${direct}`, async (t) => {
    const contents = new Uint8Array(3 * size).fill(0xa5)
    contents.set(packed, 777)
    const queue = await open(t, contents, direct)
    const { readDeflated } = queue
    if (readDeflated === undefined) return void t.pass('this program has no zlib for others')
    const bytes = new Uint8Array(size)
    t.is(await readDeflated(bytes, 777, packed.length + 400), size)
    t.deepEqual(bytes, cluster)
    t.is(queue.stats().dataReads, 1)
    t.is(queue.stats().dataReadBytes, packed.length + 400)
  })
}

test('what is damaged or too long is told from what is short', async (t) => {
  const damaged = Uint8Array.from(packed)
  damaged.fill(0xff, 0, 4)
  const short = deflateRawSync(cluster.subarray(0, 100))
  const long = deflateRawSync(new Uint8Array(2 ** 24))
  const contents = new Uint8Array(8 * size)
  for (const [index, stream] of [packed, damaged, short, long].entries()) contents.set(stream, index * size)
  const queue = await open(t, contents, false)
  const { readDeflated } = queue
  if (readDeflated === undefined) return void t.pass('this program has no zlib for others')
  const unpacked = (index: number, length: number): Promise<number> =>
    readDeflated(new Uint8Array(size), index * size, length)
  t.is(await unpacked(0, packed.length), size)
  t.is(await unpacked(1, packed.length), -1)
  t.is(await unpacked(2, short.length), 100)
  t.is(await unpacked(3, long.length), -1, 'longer than there is room for')
  const cut = await unpacked(0, packed.length / 2)
  t.true(cut >= 0 && cut < size, 'the end is missing')
  t.is(await unpacked(5, 512), -1, 'zeros: a stored block whose length is not what it says')
  // What came out of room for one byte less is too much by one.
  t.is(await readDeflated(new Uint8Array(size - 1), 0, packed.length), -1)
})

test('many at once come back each with its own, also past the end of the file', async (t) => {
  const queue = await open(t, packed, false)
  const { readDeflated } = queue
  if (readDeflated === undefined) return void t.pass('this program has no zlib for others')
  const all = Array.from({ length: 100 }, () => new Uint8Array(size))
  const lengths = await Promise.all(all.map((bytes) => readDeflated(bytes, 0, packed.length + 512)))
  t.true(lengths.every((length) => length === size))
  t.true(all.every((bytes) => Buffer.compare(bytes, cluster) === 0))
  t.is(await readDeflated(new Uint8Array(size), 2 ** 40, 512), -1)
})

test('an image that is closed unpacks nothing', async (t) => {
  const queue = await open(t, packed, false)
  const { readDeflated } = queue
  if (readDeflated === undefined) return void t.pass('this program has no zlib for others')
  await queue.close()
  await t.throwsAsync(readDeflated(new Uint8Array(size), 0, 512), { code: 'ERR_CLOSED' })
})
