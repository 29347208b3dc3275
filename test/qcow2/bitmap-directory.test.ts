import test, { type ExecutionContext } from 'ava'
import { encodeDirectory, markEntriesInUse, nameOf, readDirectory } from '../../lib/qcow2/bitmap-directory.js'
import { readBitmaps } from '../../lib/qcow2/bitmap-table.js'
import { parseHeader } from '../../lib/qcow2/header.js'
import { openQcow2 } from '../../lib/qcow2/image.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { sampleImage } from '../support/image-bytes.js'
import { makeFolder } from '../support/temp-folder.js'

/** An image of the stock tool's with a bitmap; where its directory and the extension are, read by literal offsets. */
async function withBitmap(t: ExecutionContext) {
  const folder = await makeFolder(t, { fast: true })
  const image = await sampleImage(folder, { clusterSize: 65536, bitmap: true })
  const extension = image.indexOf(Buffer.from('2385287500000018', 'hex'))
  return { image, extension, directory: Number(image.readBigUInt64BE(extension + 24)) }
}

function backendOf(image: Uint8Array): MemoryBackend {
  return new MemoryBackend({ contents: SparseBytes.from(image) })
}

test("the stock tool's directory is read, and encoded to the byte", async (t) => {
  const { image, directory } = await withBitmap(t)
  const backend = backendOf(image)
  const { entries, host, bytes } = await readDirectory(backend, parseHeader(image, 'x'))
  t.deepEqual(
    entries.map((entry) => [nameOf(entry), entry.granularityBits, entry.flags]),
    [['b0', 16, 2]],
  )
  t.is(host, directory)
  t.deepEqual(Buffer.from(encodeDirectory(entries)), Buffer.from(bytes))
})

test('names and extra data of any kind are kept, and only the flag of those meant changes', (t) => {
  const entry = { flags: 6, granularityBits: 9, tableOffset: 65536, tableEntries: 1 }
  const odd = { ...entry, nameBytes: Uint8Array.of(0xff, 0x00, 0xfe), extra: Uint8Array.of(1, 2, 3, 4, 5) }
  const long = { ...entry, nameBytes: new Uint8Array(1023).fill(0x61), extra: new Uint8Array(0) }
  const bytes = encodeDirectory([odd, long])
  t.is(bytes.length % 8, 0)
  const before = bytes.slice()
  markEntriesInUse(bytes, (index) => index === 1)
  const changed = [...bytes.keys()].filter((at) => bytes[at] !== before[at])
  t.deepEqual(changed, [32 + 15])
})

/** By how much a field of the only entry is off: offset within the entry, bytes, value. */
const damages: Readonly<Record<string, readonly [at: number, width: 1 | 2 | 4 | 8, value: number]>> = {
  'a table in the header': [0, 8, 0],
  'a crooked table': [0, 8, 513],
  'a table behind the file': [0, 8, 2 ** 40],
  'no table entries': [8, 4, 0],
  'more table entries than the disk has': [8, 4, 2],
  'a table of gigabytes': [8, 4, 0x08000000],
  'unknown flags': [12, 4, 8],
  'another type': [16, 1, 2],
  'too fine': [17, 1, 8],
  'too coarse': [17, 1, 32],
  'a name beyond the directory': [18, 2, 2000],
  'extra data beyond the directory': [20, 4, 2 ** 31],
}

for (const [what, [at, width, value]] of Object.entries(damages)) {
  test(`${what} keeps an image from being written, not from being read`, async (t) => {
    const { image, directory } = await withBitmap(t)
    if (width === 8) image.writeBigUInt64BE(BigInt(value), directory + at)
    else image.writeUIntBE(value, directory + at, width)
    const before = Buffer.from(image)
    const memory = process.memoryUsage().arrayBuffers
    const backend = backendOf(image)
    await t.throwsAsync(openQcow2(backend, { readOnly: false }), {
      code: 'ERR_CORRUPT',
      message: /[Bb]itmap/,
    })
    t.true(process.memoryUsage().arrayBuffers - memory < 64 * 2 ** 20)
    t.deepEqual(Buffer.from(backend.snapshot()), before)
    const reader = await openQcow2(backendOf(image), { readOnly: true })
    await reader.read(new Uint8Array(65536), 0)
    await reader.close()
  })
}

test('a directory of another length, or behind the file, is refused before memory is taken', async (t) => {
  const { image, extension } = await withBitmap(t)
  for (const [at, value] of [
    [16, 40n],
    [16, 24n],
    [16, 60000000n],
    [24, 0n],
    [24, 2n ** 50n],
  ] as const) {
    const damaged = Buffer.from(image)
    damaged.writeBigUInt64BE(value, extension + at)
    const header = parseHeader(damaged.subarray(0, 65536), 'x')
    await t.throwsAsync(readDirectory(backendOf(damaged), header), { code: 'ERR_CORRUPT' }, `${at}: ${value}`)
  }
})

test('structures in one place keep an image from being written', async (t) => {
  const { image, directory } = await withBitmap(t)
  // The table's one page is the directory.
  image.writeBigUInt64BE(BigInt(directory), Number(image.readBigUInt64BE(directory)))
  await t.throwsAsync(openQcow2(backendOf(image), { readOnly: false }), {
    code: 'ERR_CORRUPT',
    message: /claims the same cluster/,
  })
})

test('two bitmaps of one name are refused', async (t) => {
  const { image, extension, directory } = await withBitmap(t)
  image.writeUInt32BE(2, extension + 8)
  image.writeBigUInt64BE(64n, extension + 16)
  const whole = Buffer.concat([image, Buffer.alloc(65536)])
  whole.copyWithin(directory + 32, directory, directory + 32)
  const header = parseHeader(whole.subarray(0, 65536), 'x')
  await t.throwsAsync(readBitmaps(backendOf(whole), header), { message: /two bitmaps are called 'b0'/ })
})
