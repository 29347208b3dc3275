import test from 'ava'
import { DiskImage } from '../../lib/image/disk-image.js'
import type { DiskParts } from '../../lib/image/disk-parts.js'
import { FailurePolicy } from '../../lib/image/failure-policy.js'
import { MemoryBackend, type MemoryBackendOptions } from '../../lib/queue/memory-backend.js'
import { RawImage } from '../../lib/raw/raw-image.js'

async function disk(
  options: MemoryBackendOptions & Partial<DiskParts> = {},
): Promise<{ image: DiskImage; backend: MemoryBackend }> {
  const backend = new MemoryBackend({ path: 'disk.raw', ...options })
  await backend.truncate(8192)
  const layer = { format: new RawImage(backend), backend }
  const image = new DiskImage({
    path: 'disk.raw',
    readOnly: false,
    layers: [layer],
    owned: [layer],
    rawWasGuessed: false,
    failurePolicy: undefined,
    ...options,
  })
  return { image, backend }
}

test('it reads what was written', async (t) => {
  const { image } = await disk()
  t.is(image.size, 8192)
  await image.write(Uint8Array.of(1, 2, 3), 100)
  t.deepEqual(await image.read({ offset: 99, length: 5 }), Uint8Array.of(0, 1, 2, 3, 0))
  const bytes = new Uint8Array(2)
  await image.readInto(bytes, 101)
  t.deepEqual(bytes, Uint8Array.of(2, 3))
  await image.writeZeroes({ offset: 101, length: 1 })
  t.deepEqual(await image.read({ offset: 99, length: 5 }), Uint8Array.of(0, 1, 0, 3, 0))
  await image.close()
})

test('a wish for durability that is misspelt or of the wrong kind is refused, and nothing is written', async (t) => {
  const { image, backend } = await disk()
  const bytes = new Uint8Array(512).fill(1)
  const expected = { instanceOf: TypeError, code: 'ERR_INVALID_OPTION' }
  const misspelt = { fuaa: true } as object
  await t.throwsAsync(image.write(bytes, 0, misspelt), {
    ...expected,
    message: 'write: unknown option "fuaa"; did you mean "fua"?',
  })
  for (const options of [null, 5, { fua: 'yes' }, { fua: 1 }]) {
    await t.throwsAsync(image.write(bytes, 0, options as never), expected)
  }
  const range = { offset: 0, length: 512 }
  for (const wrong of [{ unmapp: true }, { fua: 'yes' }, { unmap: 0 }, { FUA: true }]) {
    await t.throwsAsync(image.writeZeroes({ ...range, ...wrong } as never), expected)
  }
  await t.throwsAsync(image.extents({ len: 5 } as object).next(), expected)
  t.is(backend.stats().dataWrites, 0)
  await image.write(bytes, 0, { fua: false })
  await image.writeZeroes({ ...range, unmap: true, fua: true })
  await image.close()
})

test('requests of nothing are allowed up to the very end', async (t) => {
  const { image } = await disk()
  const nothing = new Uint8Array(0)
  await image.readInto(nothing, 8192)
  await image.write(nothing, 8192)
  await image.writeZeroes({ offset: 8192, length: 0 })
  await image.discard({ offset: 0, length: 0 })
  t.deepEqual(await image.read({ offset: 8192, length: 0 }), nothing)
  await image.close()
})

test('what lies beyond the end is refused, and the message says where the end is', async (t) => {
  const { image } = await disk()
  const expected = { instanceOf: RangeError, code: 'ERR_OUT_OF_RANGE' }
  const message = /offset 8191, length 2: not within the disk of 8192 bytes/
  await t.throwsAsync(image.write(new Uint8Array(2), 8191), { ...expected, message })
  await t.throwsAsync(image.read({ offset: 8191, length: 2 }), expected)
  await t.throwsAsync(image.readInto(new Uint8Array(1), 8192), expected)
  await t.throwsAsync(image.writeZeroes({ offset: 0, length: 8193 }), expected)
  await t.throwsAsync(image.discard({ offset: 9000, length: 1 }), expected)
  await t.throwsAsync(image.extents({ offset: 9000 }).next(), expected)
  for (const offset of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
    await t.throwsAsync(image.write(new Uint8Array(2), offset), expected)
  }
  await image.close()
})

test('what is no number, no bytes and no range is refused as such', async (t) => {
  const { image } = await disk()
  const expected = { instanceOf: TypeError, code: 'ERR_INVALID_ARGUMENT' }
  await t.throwsAsync(image.write('text' as unknown as Uint8Array, 0), expected)
  await t.throwsAsync(image.write(new Uint16Array(2) as unknown as Uint8Array, 0), expected)
  await t.throwsAsync(image.write(new Uint8Array(new SharedArrayBuffer(8)), 0), expected)
  const resizable = Reflect.construct(ArrayBuffer, [8, { maxByteLength: 16 }]) as ArrayBuffer
  await t.throwsAsync(image.write(new Uint8Array(resizable), 0), expected)
  await t.throwsAsync(image.readInto(new Uint8Array(2), '0' as unknown as number), expected)
  await t.throwsAsync(image.readInto(new Uint8Array(2), 0n as unknown as number), expected)
  await t.throwsAsync(image.read(undefined as unknown as { offset: number; length: number }), expected)
  await t.throwsAsync(image.extents(null as unknown as { offset: number }).next(), expected)
  await t.throwsAsync(image.read({ offset: 0 } as { offset: number; length: number }), expected)
  await image.close()
})

test('a read-only disk can be read and flushed, not changed', async (t) => {
  const backend = new MemoryBackend()
  const layer = { format: new RawImage(backend), backend }
  const reader = new DiskImage({
    path: 'disk.raw',
    readOnly: true,
    layers: [layer],
    owned: [layer],
    rawWasGuessed: false,
    failurePolicy: undefined,
  })
  const expected = { code: 'ERR_READ_ONLY', message: /'disk.raw' was opened read-only/ }
  const nothing = new Uint8Array(0)
  await t.throwsAsync(reader.write(nothing, 0), expected)
  await t.throwsAsync(reader.writeZeroes({ offset: 0, length: 0 }), expected)
  await t.throwsAsync(reader.discard({ offset: 0, length: 0 }), expected)
  await t.throwsAsync(reader.resize(512), expected)
  await reader.flush()
  await reader.close()
})

test('a closed disk refuses everything but being closed again', async (t) => {
  const { image } = await disk()
  await image.close()
  const expected = { code: 'ERR_CLOSED', message: /'disk.raw' is closed/ }
  await t.throwsAsync(image.read({ offset: 0, length: 1 }), expected)
  await t.throwsAsync(image.write(new Uint8Array(1), 0), expected)
  await t.throwsAsync(image.writeZeroes({ offset: 0, length: 1 }), expected)
  await t.throwsAsync(image.discard({ offset: 0, length: 1 }), expected)
  await t.throwsAsync(image.flush(), expected)
  await t.throwsAsync(image.resize(512), expected)
  await t.throwsAsync(image.extents().next(), expected)
  await image.close()
  await image[Symbol.asyncDispose]()
  t.is(image.size, 8192)
})

test('closing waits for requests, those of several steps too', async (t) => {
  const { image, backend } = await disk()
  const written = image.write(Uint8Array.of(5), 0, { fua: true })
  const zeroed = image.writeZeroes({ offset: 4096, length: 100, fua: true })
  await image.close()
  await Promise.all([written, zeroed])
  t.is(backend.snapshot()[0], 5)
})

test('a failed close is told once, and the file is closed all the same', async (t) => {
  const { image } = await disk({ fault: ({ kind }) => (kind === 'sync' ? 5 : undefined) })
  await image.write(Uint8Array.of(5), 0)
  await t.throwsAsync(image.close(), { code: 'ERR_POISONED' })
  await image.close()
  await t.throwsAsync(image.flush(), { code: 'ERR_CLOSED' })
})

test('fua makes a write durable before it completes', async (t) => {
  const { image } = await disk()
  const before = image.stats().syncsIssued
  await image.write(Uint8Array.of(1), 0)
  t.is(image.stats().syncsIssued, before)
  await image.write(Uint8Array.of(1), 0, { fua: true })
  t.is(image.stats().syncsIssued, before + 1)
  await image.writeZeroes({ offset: 0, length: 1, fua: true })
  t.is(image.stats().syncsIssued, before + 2)
  await image.close()
})

test('a disk is made smaller only if that is meant', async (t) => {
  const { image } = await disk()
  await t.throwsAsync(image.resize(4096), {
    instanceOf: RangeError,
    code: 'ERR_OUT_OF_RANGE',
    message: /shrink: true/,
  })
  t.is(image.size, 8192)
  await image.resize(4096, { shrink: true })
  t.is(image.size, 4096)
  await image.resize(5000)
  t.is(image.size, 5120)
  await t.throwsAsync(image.resize(-1), { code: 'ERR_OUT_OF_RANGE' })
  await t.throwsAsync(image.resize('1' as unknown as number), { code: 'ERR_INVALID_ARGUMENT' })
  await t.throwsAsync(image.resize(1, { shrinc: true } as object), {
    code: 'ERR_INVALID_OPTION',
    message: /"shrink"/,
  })
  await image.close()
})

test('a guest cannot make a disk that was taken for raw look like qcow2', async (t) => {
  const { image } = await disk({ rawWasGuessed: true })
  const expected = { code: 'ERR_PERMISSION', message: /format: 'raw'/ }
  await t.throwsAsync(image.write(Uint8Array.of(0x51, 0x46, 0x49, 0xfb, 0), 0), expected)
  await image.write(Uint8Array.of(0x51, 0x46), 0)
  await image.write(Uint8Array.of(0x49), 2)
  await t.throwsAsync(image.write(Uint8Array.of(0xfb, 0, 0, 0, 3), 3), expected)
  t.deepEqual(await image.read({ offset: 0, length: 4 }), Uint8Array.of(0x51, 0x46, 0x49, 0))
  await image.write(Uint8Array.of(0x51, 0x46, 0x49, 0xfb), 512)
  await image.close()
})

test('a disk whose format was given takes any bytes', async (t) => {
  const { image } = await disk()
  await image.write(Uint8Array.of(0x51, 0x46, 0x49, 0xfb), 0)
  t.is((await image.read({ offset: 3, length: 1 }))[0], 0xfb)
  await image.close()
})

test('a write that finds no space waits until it is resumed', async (t) => {
  let full = true
  let stopped: (() => void) | undefined
  const wasStopped = new Promise<void>((resolve) => (stopped = resolve))
  const { image } = await disk({
    fault: ({ kind }) => (kind === 'write' && full ? 28 : undefined),
    failurePolicy: new FailurePolicy('enospc', () => stopped?.()),
  })
  const written = image.write(Uint8Array.of(4), 0, { fua: true })
  await wasStopped
  full = false
  image.resume()
  await written
  t.deepEqual(await image.read({ offset: 0, length: 1 }), Uint8Array.of(4))
  await image.close()
})

test('closing gives up what waits for space', async (t) => {
  let stopped: (() => void) | undefined
  const wasStopped = new Promise<void>((resolve) => (stopped = resolve))
  const { image } = await disk({
    fault: ({ kind }) => (kind === 'write' ? 28 : undefined),
    failurePolicy: new FailurePolicy('stop', () => stopped?.()),
  })
  const written = image.write(Uint8Array.of(4), 0)
  const outcome = t.throwsAsync(written, { code: 'ERR_NO_SPACE' })
  await wasStopped
  await image.close()
  await outcome
})
