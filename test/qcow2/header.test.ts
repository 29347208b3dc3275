import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { parseClusterBits, parseHeader, patchHeader, refuseContradiction } from '../../lib/qcow2/header.js'
import { qemuImg, run } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

async function created(t: Parameters<typeof makeFolder>[0], ...options: string[]): Promise<Buffer> {
  const file = join(await makeFolder(t, { fast: true }), 'a.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', ...options, file, '64M')
  return readFile(file)
}

const plain = await (async () => {
  const header = Buffer.alloc(65536)
  header.write('514649fb00000003', 0, 'hex')
  header.writeUInt32BE(16, 20)
  header.writeBigUInt64BE(64n << 20n, 24)
  header.writeUInt32BE(1, 36)
  header.writeBigUInt64BE(0x30000n, 40)
  header.writeBigUInt64BE(0x10000n, 48)
  header.writeUInt32BE(1, 56)
  header.writeUInt32BE(4, 96)
  header.writeUInt32BE(112, 100)
  return header
})()

/** The header written out by hand above, with some bytes changed: hexadecimal, by offset. */
function changed(...changes: [offset: number, hex: string][]): Buffer {
  const bytes = Buffer.from(plain)
  for (const [offset, hex] of changes) bytes.write(hex, offset, 'hex')
  return bytes
}

test('a version 3 header made by hand reads as it was meant', (t) => {
  t.deepEqual(parseHeader(plain, 'a'), {
    version: 3,
    size: 64 * 1024 * 1024,
    clusterBits: 16,
    cryptMethod: 0,
    l1Entries: 1,
    l1Offset: 0x30000,
    refcountTableOffset: 0x10000,
    refcountTableClusters: 1,
    snapshotCount: 0,
    snapshotsOffset: 0,
    incompatibleFeatures: 0n,
    compatibleFeatures: 0n,
    autoclearFeatures: 0n,
    refcountOrder: 4,
    headerLength: 112,
    compressionType: 'zlib',
    backingFile: undefined,
    backingFormat: undefined,
    dataFile: undefined,
    extensions: [],
  })
})

test('version 2 has no features whatever stands behind its 72 bytes', async (t) => {
  const bytes = await created(t, '-o', 'compat=0.10', '-u', '-b', 'base', '-F', 'qcow2')
  const header = parseHeader(bytes.subarray(0, 65536), 'a')
  t.is(header.version, 2)
  t.is(header.headerLength, 72)
  t.is(header.refcountOrder, 4)
  t.is(header.incompatibleFeatures, 0n)
  t.is(header.backingFile, 'base')
  t.is(header.backingFormat, 'qcow2')
})

test('names, formats and feature bits that qemu-img stores are found', async (t) => {
  const bytes = await created(
    t,
    '-o',
    'lazy_refcounts=on,refcount_bits=1',
    '-u',
    '-b',
    'größe.img',
    '-F',
    'raw',
  )
  const header = parseHeader(bytes.subarray(0, 65536), 'a')
  t.is(header.backingFile, 'größe.img')
  t.is(header.backingFormat, 'raw')
  t.is(header.compatibleFeatures, 1n)
  t.is(header.refcountOrder, 0)
  t.is(header.extensions.length, 2)
})

test('a size that is no multiple of a sector is floored', (t) => {
  t.is(parseHeader(changed([24, '00000000000103ff']), 'a').size, 0x10200)
})

test('the largest images are told apart from those an entry too large', (t) => {
  // 512-byte clusters: an L1 entry maps 32 KiB, 4194304 of them 128 GiB
  const small: [number, string][] = [
    [20, '00000009'],
    [36, '00400000'],
  ]
  t.is(parseHeader(changed(...small, [24, '0000002000000000']).subarray(0, 512), 'a').size, 2 ** 37)
  t.throws(() => parseHeader(changed(...small, [24, '0000002000000001']).subarray(0, 512), 'a'), {
    message: /L1 table is too small: 4194304 entries where 137438953473 bytes need 4194305/,
  })
  // 64 TiB in 64 KiB clusters: 131072 entries of 512 MiB
  t.is(parseHeader(changed([36, '00020000'], [24, '0000400000000000']), 'a').size, 2 ** 46)
  t.throws(() => parseHeader(changed([36, '0001ffff'], [24, '0000400000000000']), 'a'), {
    code: 'ERR_CORRUPT',
  })
})

test('an L1 larger than the size needs is legal: it may hold the state of a machine', (t) => {
  t.is(parseHeader(changed([36, '00000100']), 'a').l1Entries, 256)
})

test('size 0 needs no L1', (t) => {
  t.is(
    parseHeader(changed([24, '0000000000000000'], [36, '00000000'], [40, '0000000000000000']), 'a').size,
    0,
  )
})

const refused: [what: string, code: string, message: RegExp, ...changes: [number, string][]][] = [
  ['another magic', 'ERR_NOT_AN_IMAGE', /^Image is not in qcow2 format$/, [0, '51464900']],
  ['version 1', 'ERR_UNSUPPORTED_FEATURE', /^Unsupported qcow2 version 1$/, [4, '00000001']],
  ['version 4', 'ERR_UNSUPPORTED_FEATURE', /^Unsupported qcow2 version 4$/, [4, '00000004']],
  ['clusters of 256 bytes', 'ERR_CORRUPT', /^Unsupported cluster size: 2\^8 /, [20, '00000008']],
  ['clusters of 4 MiB', 'ERR_CORRUPT', /^Unsupported cluster size: 2\^22 /, [20, '00000016']],
  ['a header of 96 bytes', 'ERR_CORRUPT', /header too short .*offset 100/, [100, '00000060']],
  ['a header beyond its cluster', 'ERR_CORRUPT', /exceeds cluster size/, [100, '00010008']],
  ['a name beyond its cluster', 'ERR_CORRUPT', /Invalid backing file offset/, [8, '0000000000010001']],
  ['a name across its cluster', 'ERR_CORRUPT', /name too long/, [8, '0000000000010000'], [16, '00000001']],
  ['a name of 1024 bytes', 'ERR_CORRUPT', /name too long/, [8, '0000000000000400'], [16, '00000400']],
  ['compression type 2', 'ERR_UNSUPPORTED_FEATURE', /unknown compression type: 2/, [104, '02'], [79, '08']],
  ['compression without its bit', 'ERR_CORRUPT', /feature bit must be set/, [104, '01']],
  ['a compression bit for zlib', 'ERR_CORRUPT', /feature bit must not be set/, [79, '08']],
  [
    'clusters too small for subclusters',
    'ERR_CORRUPT',
    /16 KiB/,
    [79, '10'],
    [20, '0000000d'],
    [36, '00000040'],
  ],
  ['refcounts of 128 bits', 'ERR_CORRUPT', /may not exceed 64 bits/, [96, '00000007']],
  ['encryption method 3', 'ERR_CORRUPT', /Unsupported encryption method 3/, [32, '00000003']],
  ['an L1 beyond 32 MiB', 'ERR_CORRUPT', /Active L1 table too large/, [36, '00400001']],
  ['an L1 too small', 'ERR_CORRUPT', /L1 table is too small/, [36, '00000000']],
  ['a negative size', 'ERR_CORRUPT', /too big/, [24, '8000000000000000']],
  ['a size beyond 2^53', 'ERR_CORRUPT', /too big: 9007199254740992 bytes/, [24, '0020000000000000']],
  ['an L1 offset beyond 2^53', 'ERR_CORRUPT', /header at offset 40: l1Offset/, [40, '0020000000000000']],
]

for (const [what, code, message, ...changes] of refused) {
  test(`${what} is refused by us and by qemu-img`, async (t) => {
    const bytes = changed(...changes)
    t.throws(() => parseHeader(bytes, 'some.img'), { code, message })
    if (what.includes('2^53')) return // numbers end there; QEMU's do not
    const file = join(await makeFolder(t, { fast: true }), 'bad.qcow2')
    await writeFile(file, bytes)
    const { code: exit, stderr } = await run('qemu-img', ['info', '-f', 'qcow2', file])
    t.is(exit, 1, stderr)
  })
}

test('an error names the file, the structure and the offset', (t) => {
  const error = t.throws(() => parseHeader(changed([20, '00000008']), 'some.img'))
  t.like(error, { path: 'some.img', structure: 'header', offset: 20 })
})

test('a header of any length that the file cuts short is refused, never read past its end', async (t) => {
  const bytes = await created(t, '-u', '-b', 'base', '-F', 'raw')
  for (let length = 0; length < 65536; length = length < 700 ? length + 1 : length * 2) {
    const cut = bytes.subarray(0, length)
    const complete = length >= bytes.readUInt32BE(12) + bytes.readUInt32BE(16)
    if (complete) t.notThrows(() => parseHeader(cut, 'a'), String(length))
    else t.throws(() => parseHeader(cut, 'a'), { code: length < 4 ? 'ERR_NOT_AN_IMAGE' : 'ERR_CORRUPT' })
  }
})

test('the cluster size is known from the first sector', async (t) => {
  const bytes = await created(t, '-o', 'cluster_size=2M')
  t.is(parseClusterBits(bytes.subarray(0, 512), 'a'), 21)
})

test('features that contradict each other are refused when guest data is wanted, not before', (t) => {
  t.notThrows(() => refuseContradiction(parseHeader(plain, 'a'), 'a'))
  t.notThrows(() => refuseContradiction(parseHeader(changed([79, '14'], [95, '02']), 'a'), 'a'))
  const raw = parseHeader(changed([95, '02']), 'a')
  t.throws(() => refuseContradiction(raw, 'a'), {
    code: 'ERR_CORRUPT',
    message: /data-file-raw requires a data file/,
  })
})

test('patching the header changes the fields asked for, and no other byte', (t) => {
  const cluster = Buffer.from(plain).fill(0xa5, 112)
  const before = Buffer.from(cluster)
  patchHeader(cluster, { size: 2 ** 40 + 512 })
  t.is(cluster.readBigUInt64BE(24), 2n ** 40n + 512n)
  before.writeBigUInt64BE(2n ** 40n + 512n, 24)
  t.deepEqual(cluster, before)

  patchHeader(cluster, {
    l1: { offset: 0x50000, entries: 7 },
    refcountTable: { offset: 0x60000, clusters: 2 },
  })
  before.write('000000070000000000050000', 36, 'hex')
  before.write('000000000006000000000002', 48, 'hex')
  t.deepEqual(cluster, before)

  patchHeader(cluster, { incompatibleFeatures: 3n, autoclearFeatures: 0x8000000000000000n })
  before.write('0000000000000003', 72, 'hex')
  before.write('8000000000000000', 88, 'hex')
  t.deepEqual(cluster, before)

  patchHeader(cluster, { snapshots: { offset: 0x70000, count: 3 } })
  before.write('000000030000000000070000', 60, 'hex')
  t.deepEqual(cluster, before)
})
