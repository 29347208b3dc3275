import test from 'ava'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { RawImage } from '../../lib/raw/raw-image.js'

async function rawOf(length: number, options: ConstructorParameters<typeof MemoryBackend>[0] = {}) {
  const backend = new MemoryBackend(options)
  await backend.truncate(length)
  return { backend, image: new RawImage(backend) }
}

async function bytesOf(image: RawImage, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length).fill(0xee)
  await image.read(bytes, offset)
  return bytes
}

test('guest offsets are file offsets', async (t) => {
  const { backend, image } = await rawOf(4096)
  await image.write(Uint8Array.of(1, 2, 3), 1000)
  t.deepEqual([...backend.snapshot().subarray(999, 1004)], [0, 1, 2, 3, 0])
  t.deepEqual([...(await bytesOf(image, 999, 5))], [0, 1, 2, 3, 0])
  t.is(image.format, 'raw')
  t.is(image.clusterSize, 1)
  await image.close()
})

test('the size is rounded up to whole sectors, and the missing bytes read as zeros', async (t) => {
  const { image } = await rawOf(1000)
  t.is(image.size, 1024)
  await image.write(new Uint8Array(1000).fill(7), 0)
  t.deepEqual([...(await bytesOf(image, 998, 26))], [7, 7, ...Array<number>(24).fill(0)])
  t.deepEqual(await image.mapping(1000, 24), { type: 'zero', length: 24, hostOffset: 1000 })
  await image.write(Uint8Array.of(9), 1023)
  t.is((await bytesOf(image, 1023, 1))[0], 9)
  await image.close()
})

test('zeroed and discarded ranges read as zeros', async (t) => {
  const { image } = await rawOf(65536)
  await image.write(new Uint8Array(65536).fill(5), 0)
  await image.writeZeroes(100, 1000, { unmap: false })
  await image.writeZeroes(8192, 8192, { unmap: true })
  await image.discard(32768, 4096)
  const bytes = await bytesOf(image, 0, 65536)
  const expected = new Uint8Array(65536).fill(5).fill(0, 100, 1100).fill(0, 8192, 16384).fill(0, 32768, 36864)
  t.true(Buffer.from(bytes).equals(expected))
  await image.close()
})

test('holes are zeros at their own place', async (t) => {
  const { image } = await rawOf(1024 * 1024)
  await image.write(new Uint8Array(65536).fill(1), 65536)
  const first = await image.mapping(0, 1024 * 1024)
  t.is(first.type, 'zero')
  t.deepEqual(first, { type: 'zero', length: 65536, hostOffset: 0 })
  const second = await image.mapping(65536, 1000)
  t.deepEqual(second, { type: 'data', length: 1000, hostOffset: 65536 })
  await image.close()
})

test('growing shows zeros, shrinking and growing again does too', async (t) => {
  const { backend, image } = await rawOf(4096)
  await image.write(new Uint8Array(4096).fill(3), 0)
  await image.resize(8192)
  t.is(image.size, 8192)
  t.is((await bytesOf(image, 5000, 1))[0], 0)
  await image.resize(1024)
  await image.resize(4096)
  t.deepEqual([...(await bytesOf(image, 1023, 2))], [3, 0])
  t.is(backend.snapshot().length, 4096)
  await image.close()
})

test('shrinking waits for the writes that are on their way', async (t) => {
  const { backend, image } = await rawOf(8192, { seed: 5 })
  const written = image.write(new Uint8Array(4096).fill(1), 4096)
  const resized = image.resize(1024)
  await Promise.all([written, resized])
  t.is(backend.snapshot().length, 1024)
  await image.close()
})

test("with sync policy 'write' every change is durable when it completes, and a flush costs nothing", async (t) => {
  const { image } = await rawOf(8192, { syncPolicy: 'write' })
  const before = image.stats().syncsIssued
  await image.write(Uint8Array.of(1), 0)
  t.is(image.stats().syncsIssued, before + 1)
  await image.writeZeroes(0, 512, { unmap: true })
  t.is(image.stats().syncsIssued, before + 2)
  await image.flush()
  t.is(image.stats().syncsIssued, before + 2)
  await image.close()
})

test('closing waits for changes and is not disturbed by those that fail', async (t) => {
  const { image } = await rawOf(8192, {
    syncPolicy: 'write',
    fault: ({ kind }) => (kind === 'write' ? 5 : 0),
  })
  const written = image.write(Uint8Array.of(1), 0)
  const closed = image.close()
  await t.throwsAsync(written, { code: 'ERR_IO' })
  await closed
})

test("after a failed sync no flush succeeds, with sync policy 'write' neither", async (t) => {
  let broken = true
  const { image } = await rawOf(8192, {
    syncPolicy: 'write',
    fault: ({ kind }) => (broken && kind === 'sync' ? 5 : 0),
  })
  await t.throwsAsync(image.write(Uint8Array.of(1), 0), { code: 'ERR_POISONED' })
  broken = false
  await t.throwsAsync(image.flush(), { code: 'ERR_POISONED' })
  await t.throwsAsync(image.close(), { code: 'ERR_POISONED' })
})

test('a file that cannot be preallocated as it grows gets its old length back', async (t) => {
  let full = true
  const { image, backend } = await rawOf(1000, {
    fault: ({ kind }) => (full && kind === 'write' ? 28 : 0),
  })
  await t.throwsAsync(image.resize(65536, { preallocation: 'full' }), { code: 'ERR_NO_SPACE' })
  t.deepEqual([image.size, backend.snapshot().length], [1024, 1000])
  full = false
  const told: number[] = []
  await image.resize(65536, { preallocation: 'full', onBytes: (done) => told.push(done) })
  t.deepEqual([image.size, backend.snapshot().length, told.at(-1)], [65536, 65536, 65536 - 1024])
  await image.close()
})

test('a file gets the length that is asked for, to the byte', async (t) => {
  let full = true
  const { image, backend } = await rawOf(100_000, {
    fault: ({ kind, offset }) => (full && kind === 'write' && offset >= 1024 ? 28 : 0),
  })
  await image.resize(700)
  t.deepEqual([image.size, backend.snapshot().length], [1024, 700])
  await t.throwsAsync(image.resize(65_537, { preallocation: 'full' }), { code: 'ERR_NO_SPACE' })
  t.deepEqual(
    [image.size, backend.snapshot().length],
    [1024, 700],
    'the longest that it has been is not its length',
  )
  await image.write(Uint8Array.of(9), 800)
  await t.throwsAsync(image.resize(65_537, { preallocation: 'full' }), { code: 'ERR_NO_SPACE' })
  t.deepEqual([image.size, backend.snapshot().length], [1024, 801], 'what has been written is not cut off')
  full = false
  await image.resize(65_537)
  t.deepEqual([image.size, backend.snapshot().length], [66_048, 65_537])
  await image.close()
})
