import { copyFile, open, readFile, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { inspectImage, type ImageStructure, MemoryFile, openImage, Qcow2Error } from '../../lib/index.js'
import { runCli } from '../support/cli.js'
import { encryptedName, secret } from '../support/encrypted.js'
import { qemuImg, qemuIo } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

type Walked = ImageStructure & { readonly depth: number }

function* walk(parts: readonly ImageStructure[], depth = 0): Generator<Walked> {
  for (const part of parts) {
    yield { ...part, depth }
    yield* walk(part.parts ?? [], depth + 1)
  }
}

async function inspect(path: string): Promise<{ all: Walked[]; file: Buffer }> {
  const image = await inspectImage(path)
  return { all: [...walk(image.parts)], file: await readFile(path) }
}

function only(all: readonly Walked[], structure: string, name?: string): Walked {
  const found = all.filter(
    (part) => part.structure === structure && (name === undefined || part.name === name),
  )
  if (found.length !== 1 || found[0] === undefined) throw new Error(`${found.length} of ${structure} ${name}`)
  return found[0]
}

const escaped = (text: string): string =>
  text.replace(/[\p{Cc}\p{Cf}]/gu, (found) => `\\u{${found.codePointAt(0)?.toString(16)}}`)

/** Each value that is shown is what the bytes of its range say. */
function compareBytes(t: ExecutionContext, all: readonly Walked[], file: Buffer): void {
  for (const part of all) {
    const { structure, name = '', offset = -1, length = -1, value } = part
    const what = `${structure} ${name} at ${offset}`
    t.true(offset >= 0 && length >= 0, what)
    t.true(offset + length <= file.length, `${what} is within the file`)
    const bytes = file.subarray(offset, offset + length)
    if (typeof value === 'number' || typeof value === 'bigint') {
      t.is(BigInt(value), BigInt(`0x${bytes.toString('hex')}`), what)
    } else if (typeof value === 'string') {
      const isPadded = structure === 'feature name' || structure === 'LUKS field'
      const text = structure === 'feature name' ? bytes.subarray(2) : bytes
      const end = isPadded ? text.indexOf(0) : text.length
      t.is(value, escaped(text.subarray(0, end).toString('utf8')), what)
    }
  }
}

/** Fields follow each other without gaps, and lie within what they are part of. */
function checkPlaces(t: ExecutionContext, parts: readonly ImageStructure[]): void {
  const flat = ['header', 'snapshot table entry', 'bitmap directory entry', 'key slot', 'header extension']
  for (const part of walk(parts)) {
    if (!flat.includes(part.structure)) continue
    const start = part.offset ?? -1
    let at = start
    for (const field of part.parts ?? []) {
      if (!/ (field|name)$/.test(field.structure)) continue
      t.is(field.offset, at, `${part.structure} ${part.name}: ${field.name}`)
      at += field.length ?? 0
    }
    const rest = start + (part.length ?? 0) - at
    t.true(rest >= 0 && rest < 8, `${part.structure} ${part.name} ends with its fields`)
  }
}

/** The entries of the tables are counted here once more, by their bits alone. */
function compareTables(t: ExecutionContext, all: readonly Walked[], file: Buffer): void {
  const extended = (file.readUInt32BE(4) === 3 ? file.readBigUInt64BE(72) & 16n : 0n) !== 0n
  const l1 = only(
    all.filter(({ depth }) => depth === 0),
    'L1 table',
  )
  const used: number[] = []
  for (let index = 0; index < (l1.counts?.['entries'] ?? 0); index++) {
    const entry = file.readBigUInt64BE((l1.offset ?? 0) + 8 * index)
    if (entry !== 0n) used.push(Number(entry & 0x00ff_ffff_ffff_fe00n))
  }
  t.is(l1.counts?.['used'], used.length)
  const tables = all.filter(({ structure }) => structure === 'L2 table')
  t.deepEqual(
    tables.map(({ offset }) => offset),
    used,
  )
  for (const { offset = 0, length = 0, counts = {} } of tables) {
    const kinds: Record<string, number> = {
      unallocated: 0,
      normal: 0,
      zero: 0,
      'zero-allocated': 0,
      compressed: 0,
    }
    const add = (kind: string): void => {
      kinds[kind] = (kinds[kind] ?? 0) + 1
    }
    for (let at = offset; at < offset + length; at += extended ? 16 : 8) {
      const entry = file.readBigUInt64BE(at)
      const second = extended ? file.readBigUInt64BE(at + 8) : 0n
      if ((entry & (1n << 62n)) !== 0n) add('compressed')
      else if (extended && entry === 0n) add(second >> 32n === 0n ? 'unallocated' : 'zero')
      else if (!extended && (entry & 1n) !== 0n) add(entry >> 9n === 0n ? 'zero' : 'zero-allocated')
      else add(entry === 0n ? 'unallocated' : 'normal')
    }
    const shown = Object.fromEntries(Object.keys(kinds).map((kind) => [kind, counts[kind] ?? 0]))
    t.deepEqual(shown, kinds)
    t.is(counts['invalid'], undefined)
    t.is(counts['beyond-end'], undefined)
  }
}

type Kind = {
  readonly name: string
  readonly options: string
  readonly luks?: true
  readonly backing?: true
  readonly snapshots?: true
  readonly bitmaps?: true
}

const kinds: readonly Kind[] = [
  { name: 'usual', options: 'cluster_size=64k', snapshots: true, bitmaps: true },
  { name: 'version2', options: 'compat=0.10,cluster_size=4k', snapshots: true, backing: true },
  { name: 'clusters of 512 bytes', options: 'cluster_size=512', snapshots: true, bitmaps: true },
  { name: 'clusters of 2 MiB', options: 'cluster_size=2M,refcount_bits=1' },
  { name: 'extended', options: 'extended_l2=on,cluster_size=16k,refcount_bits=64', snapshots: true },
  { name: 'zstd', options: 'compression_type=zstd,refcount_bits=8' },
  { name: 'overlay', options: 'cluster_size=4k', backing: true },
  { name: 'luks', options: 'encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10', luks: true },
  { name: 'data file', options: 'data_file=DATA,cluster_size=16k' },
]

async function makeImage(folder: string, kind: Kind): Promise<string> {
  const path = join(folder, `${kind.name}.qcow2`)
  const options = kind.options.replace('DATA', join(folder, 'data.raw'))
  const base = join(folder, 'base\u001b[1m.raw')
  if (kind.backing) await writeFile(base, 'x'.repeat(512))
  const backing = kind.backing ? ['-b', base, '-F', 'raw'] : []
  const object = kind.luks ? secret : []
  await qemuImg('create', '-q', ...object, '-f', 'qcow2', '-o', options, ...backing, path, '8M')
  const writes = ['write -P 1 0 100k', 'write -P 2 2M 5k']
  if (!kind.luks && kind.name !== 'data file') writes.push('write -c -P 3 4M 2M')
  if (kind.name !== 'version2') writes.push('write -z 3M 300k', 'write -z -u 2M 4k')
  if (kind.luks) await qemuIo(encryptedName(path), writes, [...secret, '--image-opts'])
  else await qemuIo(path, writes)
  if (kind.snapshots) {
    await qemuImg('snapshot', '-c', 'before\nthe "update"', path)
    await qemuIo(path, ['write -P 4 0 64k'])
    await qemuImg('snapshot', '-c', 'second', path)
  }
  if (kind.bitmaps) {
    await qemuImg('bitmap', '--add', path, 'one', '-g', '512')
    await qemuImg('bitmap', '--add', '--disable', path, 'two')
  }
  return path
}

for (const kind of kinds) {
  test(`what is said of an image of the stock tool is what its bytes say: ${kind.name}`, async (t) => {
    const path = await makeImage(await makeFolder(t, { fast: true }), kind)
    const { all, file } = await inspect(path)
    t.deepEqual(
      all.filter(({ problem, notShown }) => problem !== undefined || notShown !== undefined),
      [],
    )
    compareBytes(t, all, file)
    checkPlaces(t, (await inspectImage(path)).parts)
    compareTables(t, all, file)
    const snapshots = all.filter(({ structure }) => structure === 'snapshot table entry')
    t.is(snapshots.length, kind.snapshots ? 2 : 0)
    for (const { parts = [] } of snapshots) t.true(parts.some(({ structure }) => structure === 'L1 table'))
    const bitmaps = all.filter(({ structure }) => structure === 'bitmap directory entry')
    t.is(bitmaps.length, kind.bitmaps ? 2 : 0)
    for (const { parts = [] } of bitmaps) t.true(parts.some(({ structure }) => structure === 'bitmap table'))
    t.is(
      all.some(({ structure }) => structure === 'backing file name'),
      kind.backing ?? false,
    )
    if (kind.luks) compareLuks(t, all)
    if (kind.name === 'data file') {
      const extension = only(all, 'header extension', 'external data file name')
      t.is(extension.parts?.at(-1)?.value, join(path, '..', 'data.raw'))
    }
    // Every reference that a check counts comes from what is shown, and every refcount is seen.
    const blocks = all.filter(({ structure }) => structure === 'refcount block')
    const inUse = blocks.reduce((sum, { counts }) => sum + (counts?.['used'] ?? 0), 0)
    t.true(inUse * 2 ** Number(only(all, 'header field', 'cluster_bits').value) <= file.length + 2 ** 21)
    t.true(inUse > 3)
  })
}

function compareLuks(t: ExecutionContext, all: readonly Walked[]): void {
  t.is(only(all, 'LUKS field', 'cipher-name').value, 'aes')
  t.is(only(all, 'LUKS field', 'cipher-mode').value, 'xts-plain64')
  const slots = all.filter(({ structure }) => structure === 'key slot')
  t.is(slots.length, 8)
  t.is(slots.filter(({ parts }) => parts?.[0]?.meaning === 'active').length, 1)
  // No bytes that help to find a key.
  const secrets = all.filter(
    ({ structure, name = '' }) => structure === 'key material' || /digest$|salt$/.test(name),
  )
  t.is(secrets.length, 8 + 8 + 2)
  t.true(secrets.every(({ value, offset }) => value === undefined && offset !== undefined))
}

test('control characters of names are escaped, and the name of a backing file is followed nowhere', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const path = join(folder, 'a.qcow2')
  const name = 'missing\u001b]0;x\u0007.raw'
  await qemuImg('create', '-q', '-u', '-f', 'qcow2', '-b', name, '-F', 'raw', path, '1M')
  const { all } = await inspect(path)
  t.is(only(all, 'backing file name').value, 'missing\\u{1b}]0;x\\u{7}.raw')
  const { stdout } = await runCli(['inspect', 'a.qcow2'], folder)
  t.regex(stdout, /backing file name: "missing\\\\u\{1b\}/)
  t.notRegex(stdout, /[\u0000-\u0009\u000b-\u001f]/)
})

/** A sound image, and the changes of one number in it. */
async function damaged(
  t: ExecutionContext,
  offset: number,
  width: 4 | 8,
  value: bigint,
): Promise<{ all: Walked[]; file: Buffer }> {
  const folder = await makeFolder(t, { fast: true })
  const path = await makeImage(folder, kinds[0] as Kind)
  const file = await open(path, 'r+')
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(value)
  await file.write(bytes.subarray(8 - width), 0, width, offset)
  await file.close()
  return inspect(path)
}

const structuresOf = (all: readonly Walked[]): Set<string> => new Set(all.map(({ structure }) => structure))

for (const [what, offset, width, value, structure, problem] of [
  ['an L1 beyond the end', 40, 8, 1n << 40n, 'L1 table', /not within the file/],
  ['an L1 that is not aligned', 40, 8, 0x30200n, 'L1 table', /not cluster aligned/],
  ['an L1 at 2^60', 40, 8, 1n << 60n, 'L1 table', /not below 2\^53/],
  ['an L1 of 2^32 - 1 entries', 36, 4, 0xffffffffn, 'L1 table', /at most 4194304/],
  ['a refcount table at 0', 48, 8, 0n, 'refcount table', /where the header is/],
  ['a refcount table of 2^32 - 1 clusters', 56, 4, 0xffffffffn, 'refcount table', /at most 8388608/],
  ['snapshots beyond the end', 64, 8, 1n << 41n, 'snapshot table', /not within the file/],
  ['2^32 - 1 snapshots', 60, 4, 0xffffffffn, 'snapshot table', /Snapshot table too large/],
  ['60,000 snapshots', 60, 4, 60_000n, 'snapshot table', /entry/],
  ['an unknown incompatible bit', 72, 8, 1n << 40n, 'header', /Unknown incompatible feature/],
  ['a refcount order of 9', 96, 4, 9n, 'refcount table', /refcount_order is 9/],
  ['a header of 5 GiB', 100, 4, 0xffffffffn, 'header', /exceeds cluster size/],
  ['a backing file name behind the cluster', 8, 8, 70_000n, 'backing file name', /not within the first/],
] as const) {
  test(`damage is told where it is, and the rest is shown: ${what}`, async (t) => {
    const { all } = await damaged(t, offset, width, value)
    t.regex(all.find((part) => part.structure === structure)?.problem ?? '', problem)
    const seen = structuresOf(all)
    for (const other of ['header', 'refcount table', 'L1 table', 'snapshot table'])
      t.true(seen.has(other), other)
    // Both of these are not read for lack of what says where they are.
    if (offset !== 100) t.true(seen.has('bitmap table'))
    if (offset > 56) t.true(seen.has('L2 table'))
  })
}

test('entries that cannot be are counted, and an L2 table beyond the end says so', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const path = join(folder, 'a.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', path, '2G')
  await qemuIo(path, ['write 0 64k', 'write 600M 64k'])
  const file = await open(path, 'r+')
  const entry = (value: bigint): Buffer => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64BE(value)
    return bytes
  }
  const { parts } = await inspectImage(path)
  const l2 = [...walk(parts)].filter(({ structure }) => structure === 'L2 table')
  const [first, second] = [l2[0]?.offset ?? 0, l2[1]?.offset ?? 0]
  await file.write(entry(0x8000_0000_0001_0100n), 0, 8, first + 8)
  await file.write(entry((1n << 62n) | (1n << 45n)), 0, 8, first + 16)
  await file.write(entry((1n << 63n) | (1n << 45n)), 0, 8, first + 24)
  await file.write(entry((1n << 63n) | (1n << 40n)), 0, 8, 0x30000 + 16)
  await file.close()
  const { all } = await inspect(path)
  const tables = all.filter(({ structure }) => structure === 'L2 table')
  t.is(tables.length, 3)
  t.like(tables[0]?.counts, { invalid: 1, compressed: 1, normal: 2, 'beyond-end': 2 })
  t.is(tables[1]?.offset, second)
  t.is(tables[1]?.problem, undefined)
  t.regex(tables[2]?.problem ?? '', /it is not within the file: the file ends after/)
})

test('a file that is cut off is shown as far as it goes, and what is none is refused', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const path = await makeImage(folder, kinds[0] as Kind)
  const { length } = await readFile(path)
  const cut = join(folder, 'cut.qcow2')
  for (const end of [4, 7, 8, 30, 71, 72, 103, 104, 105, 112, 300, 65536, 70_000, 200_000, length - 1]) {
    await copyFile(path, cut)
    await truncate(cut, end)
    const { all } = await inspect(cut)
    t.is(all[0]?.structure, 'header', `${end}`)
    t.true(
      all.some(({ problem }) => problem !== undefined),
      `${end}`,
    )
    if (end !== 30 && end !== 70_000) continue
    const { code, stderr } = await runCli(['inspect', 'cut.qcow2'], folder)
    t.deepEqual([code, stderr], [0, ''], `${end}`)
  }
  for (const end of [0, 3]) {
    await truncate(cut, end)
    const error = await t.throwsAsync(inspectImage(cut), { instanceOf: Qcow2Error })
    t.is(error.code, 'ERR_NOT_AN_IMAGE')
  }
  await writeFile(cut, Buffer.alloc(70_000))
  t.deepEqual(await runCli(['inspect', 'cut.qcow2'], folder), {
    code: 1,
    stdout: '',
    stderr: "qcow2: Could not open 'cut.qcow2': Image is not in qcow2 format\n",
  })
  t.is((await runCli(['inspect', 'missing'], folder)).code, 1)
})

test('other versions, and sizes of clusters that there are not, are told with the fields that are known', async (t) => {
  for (const [offset, value, fields, problem] of [
    [4, 1n, 2, /Unsupported qcow2 version 1/],
    [4, 9n, 2, /Unsupported qcow2 version 9/],
    [20, 63n, 18, /Unsupported cluster size: 2\^63/],
    [20, 8n, 18, /Unsupported cluster size/],
  ] as const) {
    const { all } = await damaged(t, offset, 4, value)
    t.is(all.length, 1 + fields)
    t.regex(all[0]?.problem ?? '', problem)
  }
})

test('a table of any length lists so many parts and counts the others', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const path = join(folder, 'a.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512,preallocation=metadata', path, '4M')
  const { parts } = await inspectImage(path, { most: 3 })
  const l1 = parts.find(({ structure }) => structure === 'L1 table')
  t.is(l1?.parts?.length, 3)
  t.is(l1?.notShown, 128 - 3)
  t.is(l1?.counts?.['used'], 128)
  const table = parts.find(({ structure }) => structure === 'refcount table')
  t.is((table?.parts?.length ?? 0) + (table?.notShown ?? 0), table?.counts?.['used'] ?? 0)
  const { stdout } = await runCli(['inspect', '--limit=2', 'a.qcow2'], folder)
  t.regex(stdout, /^ +\(126 more are not shown\)$/m)
  t.is((await runCli(['inspect', '--limit=x', 'a.qcow2'], folder)).code, 1)
})

test('JSON has the same tree, numbers of 64 bits to the last digit', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const path = await makeImage(folder, kinds[0] as Kind)
  const file = await open(path, 'r+')
  await file.write(Buffer.alloc(8, 0xff), 0, 8, 80)
  await file.close()
  const { code, stdout, stderr } = await runCli(['inspect', '--output=json', path], folder)
  t.is(code, 0)
  t.is(stderr, '')
  t.true(stdout.includes('"value": 18446744073709551615'))
  const { parts } = await inspectImage(path)
  const withoutBig = JSON.stringify({ parts }, (_, value: unknown) =>
    typeof value === 'bigint' ? Number(value) : value,
  )
  const shown = JSON.parse(stdout) as { filename: string; format: string; parts: unknown }
  t.is(shown.filename, path)
  t.is(shown.format, 'qcow2')
  t.deepEqual(shown.parts, (JSON.parse(withoutBig) as { parts: unknown }).parts)
})

test('bitmaps that are out of date are named, and not looked for', async (t) => {
  const { all } = await damaged(t, 88, 8, 0n)
  t.regex(only(all, 'bitmap directory').problem ?? '', /out of date/)
  t.false(structuresOf(all).has('bitmap table'))
})

test('an image that somebody writes to is refused unless asked for, and one in memory is as good', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const path = await makeImage(folder, kinds[0] as Kind)
  const image = await openImage(path)
  try {
    await t.throwsAsync(inspectImage(path), { code: 'ERR_IMAGE_LOCKED' })
    t.is((await runCli(['inspect', '-U', path], folder)).code, 0)
    const shared = await inspectImage(path, { forceShare: true })
    t.true(shared.parts.length > 3)
  } finally {
    await image.close()
  }
  const { parts } = await inspectImage(path)
  const memory = await inspectImage(MemoryFile.from(await readFile(path)))
  t.deepEqual(memory.parts, parts)
  await t.throwsAsync(inspectImage(path, { signal: AbortSignal.abort(new Error('enough')) }), {
    message: 'enough',
  })
})
