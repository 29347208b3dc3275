import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { createQcow2 } from '../../lib/qcow2/create.js'
import { openMetadata, readFirstCluster, readHeader } from '../../lib/qcow2/open-metadata.js'
import { FileBackend } from '../support/file-backend.js'
import { sampleImage } from '../support/image-bytes.js'
import { SeededRandom } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

type Mode = { readOnly: boolean; repairing: boolean }
const writing: Mode = { readOnly: false, repairing: false }
const reading: Mode = { readOnly: true, repairing: false }

const plain = { clusterSize: 65536, version: 3, refcountBits: 16, lazyRefcounts: false } as const

/** Open an image, and close it. */
async function open(file: string, mode: Mode) {
  const backend = new FileBackend(file, { readOnly: true })
  try {
    return { ...(await openMetadata(backend, mode)), largestRead: backend.largestRead, reads: backend.reads }
  } finally {
    await backend.close()
  }
}

async function created(
  t: ExecutionContext,
  options: { size: number; clusterSize?: number },
): Promise<string> {
  const file = join(await makeFolder(t, { fast: true }), 'a.qcow2')
  const backend = new FileBackend(file, { readOnly: false, create: true })
  await createQcow2(backend, { ...plain, ...options })
  await backend.close()
  return file
}

/** An image with some bytes changed: hexadecimal, by offset. */
async function changed(t: ExecutionContext, ...changes: [offset: number, hex: string][]): Promise<string> {
  const file = await created(t, { size: 2 ** 26 })
  const bytes = await readFile(file)
  for (const [offset, hex] of changes) bytes.write(hex, offset, 'hex')
  await writeFile(file, bytes)
  return file
}

test('the tables of an image come as they are in the file', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  for (const clusterSize of [512, 65536]) {
    const bytes = await sampleImage(folder, { clusterSize, snapshots: true })
    const found = await open(join(folder, 'sample.qcow2'), writing)
    const { header } = found
    t.deepEqual(Buffer.from(found.firstCluster), bytes.subarray(0, clusterSize))
    const slice = Math.min(4096, clusterSize)
    t.is(found.l1.length, Math.ceil((header.l1Entries * 8) / slice) * slice)
    const l1End = header.l1Offset + header.l1Entries * 8
    t.deepEqual(
      Buffer.from(found.l1.subarray(0, header.l1Entries * 8)),
      bytes.subarray(header.l1Offset, l1End),
    )
    const table = header.refcountTableOffset
    t.deepEqual(Buffer.from(found.refcountTable), bytes.subarray(table, table + found.refcountTable.length))
    t.deepEqual(
      found.snapshotTable.snapshots.map(({ id, name }) => [id, name]),
      [
        ['1', 's1'],
        ['2', 's2'],
      ],
    )
  }
})

test('64 TiB open with one read for each table', async (t) => {
  const file = await created(t, { size: 2 ** 46 })
  const found = await open(file, writing)
  t.is(found.header.size, 2 ** 46)
  t.is(found.l1.length, 131072 * 8)
  t.true(found.reads <= 4)
})

test('an image cut short anywhere is refused with a clear error', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  for (const options of [{ clusterSize: 512 }, { clusterSize: 4096, snapshots: true }]) {
    const bytes = await sampleImage(folder, options)
    const file = join(folder, 'cut.qcow2')
    const l2 = Math.max(...tablesOf(bytes))
    for (let length = 0; length <= l2; length += length < 1024 ? 37 : 1021) {
      await writeFile(file, bytes.subarray(0, length))
      for (const mode of [reading, writing]) {
        const error = await t.throwsAsync(open(file, mode), undefined, `${length} bytes`)
        t.regex(String((error as Error & { code?: string }).code), /^ERR_(CORRUPT|NOT_AN_IMAGE)$/)
      }
    }
  }
})

/** Where the L2 tables of the active disk begin. */
function tablesOf(image: Buffer): number[] {
  const l1 = Number(image.readBigUInt64BE(40))
  return Array.from({ length: image.readUInt32BE(36) }, (_, index) =>
    Number(image.readBigUInt64BE(l1 + 8 * index) & 0x00ff_ffff_ffff_fe00n),
  )
}

test('an image that says it is corrupt opens for reading and for repair only', async (t) => {
  const file = await changed(t, [79, '02'])
  await t.notThrowsAsync(open(file, reading))
  await t.notThrowsAsync(open(file, { readOnly: false, repairing: true }))
  await t.throwsAsync(open(file, writing), {
    code: 'ERR_CORRUPT',
    message: 'qcow2: Image is corrupt; cannot be opened read/write',
  })
})

const refused: [what: string, message: RegExp, ...changes: [number, string][]][] = [
  ['no refcount table', /does not contain a reference count table/, [56, '00000000']],
  ['a refcount table beyond 8 MiB', /Reference count table too large/, [56, '00000081']],
  ['a crooked refcount table', /Reference count table offset invalid/, [48, '0000000000010200']],
  ['a refcount table past the end', /file is truncated.*refcount table/, [48, '0000000010000000']],
  ['too many snapshots', /Snapshot table too large/, [60, '00010001']],
  ['a crooked snapshot table', /Snapshot table offset invalid/, [60, '000000010000000000000200']],
  ['a snapshot table past the end', /file is truncated.*snapshot table/, [60, '000000010000000010000000']],
  ['a crooked L1', /Active L1 table offset invalid/, [40, '0000000000030200']],
  ['an L1 in the header', /Active L1 table offset invalid/, [40, '0000000000000000']],
  ['an L1 past the end', /file is truncated.*L1 table/, [40, '0000000010000000']],
  [
    'an L2 table past the end',
    /file is truncated.*L2 table of L1 table entry 0/,
    [0x30000, '8000000010000000'],
  ],
]

for (const [what, message, ...changes] of refused) {
  test(`${what} is refused, for reading too`, async (t) => {
    const file = await changed(t, ...changes)
    await t.throwsAsync(open(file, reading), { code: 'ERR_CORRUPT', message })
    await t.throwsAsync(open(file, writing), { code: 'ERR_CORRUPT', message })
  })
}

test('a refcount block past the end keeps an image from being written, not from being read', async (t) => {
  const file = await changed(t, [0x10008, '0000000010000000'])
  await t.notThrowsAsync(open(file, reading))
  await t.throwsAsync(open(file, writing), { message: /refcount block of refcount table entry 1/ })
})

test('tables in one place keep an image from being written, not from being read', async (t) => {
  for (const [message, ...changes] of [
    [
      /L1 table at offset 65536 overlaps the refcount table|refcount table at offset 65536/,
      [40, '0000000000010000'],
    ],
    [
      /(refcount table|header) at offset 0 overlaps the (header|refcount table) at 0/,
      [48, '0000000000000000'],
    ],
  ] as [RegExp, ...[number, string][]][]) {
    const file = await changed(t, ...changes)
    await t.throwsAsync(open(file, writing), { code: 'ERR_CORRUPT', message })
  }
})

test('L1 tables of snapshots that cannot be keep an image from being written, and from taking memory', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const image = await sampleImage(folder, { clusterSize: 4096, snapshots: true })
  const file = join(folder, 'sample.qcow2')
  const entry = Number(image.readBigUInt64BE(64))
  const cases: [what: string, change: (bytes: Buffer) => void, message: RegExp][] = [
    ['far away', (bytes) => bytes.writeBigUInt64BE(1n << 62n, entry), /L1 table of snapshot 's1' cannot be/],
    ['huge', (bytes) => bytes.writeUInt32BE(0xffffffff, entry + 8), /cannot be 4294967295 entries/],
    ['crooked', (bytes) => bytes.writeBigUInt64BE(4104n, entry), /cannot be/],
    ['in the refcount table', (bytes) => bytes.writeBigUInt64BE(4096n, entry), /overlaps/],
  ]
  for (const [what, change, message] of cases) {
    const bytes = Buffer.from(image)
    change(bytes)
    await writeFile(file, bytes)
    await t.throwsAsync(open(file, writing), { code: 'ERR_CORRUPT', message }, what)
    await t.notThrowsAsync(open(file, reading), what)
  }
})

test('no memory is taken for a table before its size is known to be allowed', async (t) => {
  // L1 entries and refcount table clusters at their highest: 32 GiB and 256 TiB
  for (const changes of [
    [36, 'ffffffff'],
    [56, 'ffffffff'],
  ] as [number, string][]) {
    const file = await changed(t, changes)
    const backend = new FileBackend(file, { readOnly: true })
    await t.throwsAsync(openMetadata(backend, reading), { code: 'ERR_CORRUPT' })
    t.true(backend.largestRead <= 65536)
    await backend.close()
  }
})

test('reading the header reads one cluster at most', async (t) => {
  const file = await created(t, { size: 2 ** 30, clusterSize: 512 })
  const backend = new FileBackend(file, { readOnly: true })
  const { header, firstCluster } = await readFirstCluster(backend)
  t.is(header.clusterBits, 9)
  t.is(firstCluster.length, 512)
  t.is(backend.largestRead, 512)
  await backend.close()
})

test('an image that is only read is opened without its first cluster, and without its refcount table', async (t) => {
  const file = await created(t, { size: 2 ** 26 })
  const found = await open(file, reading)
  t.is(found.largestRead, 4096)
  t.is(found.firstCluster.length, 4096)
  t.is(found.refcountTable.length, 0)
})

test('the header says the same by its beginning as by its whole cluster, wherever its parts are', async (t) => {
  const file = await created(t, { size: 2 ** 26 })
  const plain = (await readFile(file)).subarray(0, 65536)
  const random = new SeededRandom(5)
  let short = 0
  let long = 0
  for (let round = 0; round < 400; round++) {
    const bytes = Buffer.from(plain)
    const version = random.pick([2, 3])
    bytes.writeUInt32BE(version, 4)
    let at = 72
    if (version === 3) {
      at = random.pick([104, 112, 4000, 4096, 8192])
      bytes.writeUInt32BE(at, 100)
    }
    const name = random.pick([0, 0, 200, 4090, 4096, 20000, 65530, 70000])
    bytes.writeBigUInt64BE(BigInt(name), 8)
    bytes.writeUInt32BE(random.pick([1, 20, 1023]), 16)
    bytes.fill(0x61, 4200, 4300)
    for (let extension = random.integer(3); extension > 0; extension--) {
      const length = random.pick([0, 5, 300, 3000, 100_000])
      if (at + 8 > 65536) break
      bytes.writeUInt32BE(random.pick([0x12345678, 0x23456789, 0xe2792aca]), at)
      bytes.writeUInt32BE(length, at + 4)
      at += 8 + Math.ceil(length / 8) * 8
    }
    if (at + 8 <= 65536) bytes.fill(0, at, at + 8)
    await writeFile(file, bytes.subarray(0, random.pick([65536, 65536, 65535, 9000, 4096, 4000])))
    const backend = new FileBackend(file, { readOnly: true })
    const outcome = (reading: Promise<{ header: unknown }>): Promise<unknown> =>
      reading.then(
        ({ header }) => header,
        (error: unknown) => String(error),
      )
    const byBeginning = await outcome(readHeader(backend))
    if (backend.largestRead <= 4096) short++
    else long++
    t.deepEqual(byBeginning, await outcome(readFirstCluster(backend)))
    await backend.close()
  }
  t.true(short > 50 && long > 50, `${short} and ${long}`)
})
