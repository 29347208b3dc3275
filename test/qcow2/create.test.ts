import * as fs from 'node:fs'
import * as os from 'node:os'
import * as path from 'node:path'
import test from 'ava'
import { createQcow2, type CreateOptions } from '../../lib/qcow2/create.js'
import { FileBackend } from '../support/file-backend.js'
import { qemuCheck, qemuImg } from '../support/qemu.js'

const directory = fs.mkdtempSync(
  path.join(fs.existsSync('/dev/shm') ? '/dev/shm' : os.tmpdir(), 'qcow2-test-'),
)
test.after.always(() => fs.rmSync(directory, { recursive: true }))
const place = (name: string): string => path.join(directory, name)

const plain = { clusterSize: 65536, version: 3, refcountBits: 16, lazyRefcounts: false } as const

async function createOurs(name: string, options: CreateOptions): Promise<string> {
  const file = place(name)
  const backend = new FileBackend(file, { readOnly: false, create: true })
  try {
    await createQcow2(backend, options)
  } finally {
    await backend.close()
  }
  return file
}

async function createTheirs(name: string, options: CreateOptions): Promise<string> {
  const file = place(name)
  const settings = [
    `cluster_size=${options.clusterSize}`,
    `compat=${options.version === 2 ? '0.10' : '1.1'}`,
    `refcount_bits=${options.refcountBits}`,
    `lazy_refcounts=${options.lazyRefcounts ? 'on' : 'off'}`,
    `compression_type=${options.compressionType ?? 'zlib'}`,
    `extended_l2=${options.extendedL2 === true ? 'on' : 'off'}`,
  ].join(',')
  const backing = options.backingFile === undefined ? [] : ['-u', '-b', options.backingFile]
  const format = options.backingFormat === undefined ? [] : ['-F', options.backingFormat]
  fs.rmSync(file, { force: true })
  await qemuImg(
    'create',
    '-q',
    '-f',
    'qcow2',
    '-o',
    settings,
    ...backing,
    ...format,
    file,
    String(options.size),
  )
  return file
}

/** The first byte in which two files differ, or that their lengths do. Compared piecewise: some are long. */
function difference(ours: string, theirs: string): string | undefined {
  const [left, right] = [ours, theirs].map((file) => fs.readFileSync(file)) as [Buffer, Buffer]
  if (left.length !== right.length) return `${left.length} bytes, not ${right.length}`
  if (left.equals(right)) return undefined
  const at = left.findIndex((byte, index) => byte !== right[index])
  return `byte ${at} is ${left[at]}, not ${right[at]}`
}

async function same(name: string, options: CreateOptions): Promise<string | undefined> {
  const found = difference(
    await createOurs(`${name}-ours`, options),
    await createTheirs(`${name}-theirs`, options),
  )
  return found === undefined ? undefined : `${JSON.stringify(options)}: ${found}`
}

const clusterSizes = [512, 1024, 2048, 4096, 8192, 65536, 1 << 20, 2 << 20]
const sizes = [0, 700, 1000 * 1000, 64 * 2 ** 20, 100 * 2 ** 20 + 512, 2 ** 40, 64 * 2 ** 40]

for (const clusterSize of clusterSizes) {
  test(`an empty image is laid out to the byte as qemu-img does, clusters of ${clusterSize}`, async (t) => {
    t.timeout(120_000)
    const largest = ((32 << 20) / 8) * (clusterSize / 8) * clusterSize
    const found: unknown[] = []
    for (const size of sizes.filter((size) => size <= largest && (size < 2 ** 42 || clusterSize >= 65536))) {
      for (const version of [2, 3] as const) {
        found.push(await same(`a${clusterSize}`, { ...plain, version, size, clusterSize }))
      }
      for (const refcountBits of size % 65536 === 0 ? [1, 2, 4, 8, 32, 64] : [1, 64]) {
        found.push(await same(`a${clusterSize}`, { ...plain, size, clusterSize, refcountBits }))
      }
    }
    t.deepEqual(found.filter(Boolean), [])
  })
}

test('an empty image with extended L2 entries is laid out to the byte as qemu-img does', async (t) => {
  const found: unknown[] = []
  for (const clusterSize of [16384, 65536, 2 << 20]) {
    const largest = ((32 << 20) / 8) * (clusterSize / 16) * clusterSize
    for (const size of sizes.filter((size) => size <= largest && (size < 2 ** 42 || clusterSize > 65536))) {
      for (const refcountBits of [1, 16, 64]) {
        found.push(await same('x', { ...plain, size, clusterSize, refcountBits, extendedL2: true }))
      }
    }
  }
  const named = { ...plain, size: 2 ** 20, backingFile: 'base', backingFormat: 'raw', extendedL2: true }
  found.push(await same('x', { ...named, compressionType: 'zstd', lazyRefcounts: true }))
  t.deepEqual(found.filter(Boolean), [])
})

test('an L1 that needs several refcount blocks, or a larger refcount table, is laid out as qemu-img does', async (t) => {
  t.timeout(120_000)
  const gib = 2 ** 30
  const found: unknown[] = []
  const cases: [clusterSize: number, refcountBits: number, size: number][] = [
    [512, 16, 518 * 2 ** 20],
    [512, 16, 519 * 2 ** 20],
    [512, 16, gib],
    [512, 16, 31 * gib + 700 * 2 ** 20],
    [512, 16, 32 * gib],
    [512, 64, 8 * gib],
    [512, 64, 16 * gib],
    [512, 1, 32 * gib],
    [512, 8, 128 * gib],
    [1024, 64, 256 * gib],
    [1024, 32, 512 * gib],
    [4096, 64, 2 ** 40],
  ]
  // sizes at which the blocks behind the L1 cross into the next block's range
  for (let clusters = 1 * 256 - 8; clusters < 256 + 4; clusters++)
    cases.push([512, 16, clusters * 64 * 32768])
  for (let clusters = 40 * 256 - 42; clusters < 40 * 256 + 2; clusters += 4)
    cases.push([512, 16, clusters * 64 * 32768])
  for (let clusters = 66 * 256 - 70; clusters < 66 * 256 + 2; clusters += 9)
    cases.push([512, 16, clusters * 64 * 32768])
  for (let clusters = 10 * 64 - 13; clusters < 10 * 64 + 2; clusters++)
    cases.push([512, 64, clusters * 64 * 32768])
  for (const [clusterSize, refcountBits, size] of cases) {
    found.push(await same('b', { ...plain, clusterSize, refcountBits, size }))
  }
  t.deepEqual(found.filter(Boolean), [])
})

test('names of backing files and formats stand where qemu-img puts them', async (t) => {
  t.timeout(120_000)
  const found: unknown[] = []
  for (const clusterSize of [512, 4096, 8192, 65536]) {
    for (const version of [2, 3] as const) {
      for (const backingFile of ['b', 'base.img', 'x'.repeat(300), 'große Platte.qcow2']) {
        for (const backingFormat of ['raw', 'qcow2', undefined]) {
          if (backingFormat === undefined && version === 3) continue // qemu-img demands a format
          const options = { ...plain, version, clusterSize, size: 2 ** 20, backingFile, backingFormat }
          if (backingFormat !== undefined) found.push(await same('c', options))
        }
      }
    }
  }
  const longest = 'y'.repeat(1023)
  found.push(await same('c', { ...plain, size: 2 ** 20, backingFile: longest, backingFormat: 'raw' }))
  t.deepEqual(found.filter(Boolean), [])
})

test('lazy refcounts and the compression type are stored as qemu-img does', async (t) => {
  t.timeout(120_000)
  const found: unknown[] = []
  for (const clusterSize of [512, 65536]) {
    for (const lazyRefcounts of [false, true]) {
      for (const compressionType of ['zlib', 'zstd'] as const) {
        found.push(await same('d', { ...plain, clusterSize, size: 2 ** 26, lazyRefcounts, compressionType }))
      }
    }
  }
  t.deepEqual(found.filter(Boolean), [])
})

test('what is created passes qemu-img check', async (t) => {
  for (const clusterSize of [512, 65536]) {
    const options = { ...plain, clusterSize, size: 3 * 2 ** 30 + 1 }
    const file = await createOurs(`e${clusterSize}`, options)
    t.is(await qemuCheck(file), '')
  }
})

test('an image without a backing format keeps none', async (t) => {
  const file = await createOurs('f', { ...plain, size: 2 ** 20, backingFile: 'base.img' })
  const info = JSON.parse(await qemuImg('info', '--output=json', file)) as Record<string, unknown>
  t.is(info['backing-filename'], 'base.img')
  t.false('backing-filename-format' in info)
})

const bad: [what: string, options: Partial<CreateOptions>, message: RegExp][] = [
  ['a cluster size of 256', { clusterSize: 256 }, /between 512 and 2048k, not 256/],
  ['a cluster size of 4 MiB', { clusterSize: 2 ** 22 }, /between 512 and 2048k/],
  ['a cluster size that is no power of two', { clusterSize: 3000 }, /power of two/],
  ['3 refcount bits', { refcountBits: 3 }, /power of two and may not exceed 64 bits/],
  ['128 refcount bits', { refcountBits: 128 }, /may not exceed 64 bits/],
  ['8 refcount bits on version 2', { version: 2, refcountBits: 8 }, /compatibility level 1.1/],
  ['lazy refcounts on version 2', { version: 2, lazyRefcounts: true }, /compatibility level 1.1/],
  ['zstd on version 2', { version: 2, compressionType: 'zstd' }, /compatibility level 1.1/],
  ['a backing format alone', { backingFormat: 'raw' }, /without backing file/],
  ['a long backing name', { backingFile: 'x'.repeat(1024) }, /at most 1023 fit/],
  [
    'a long backing name in small clusters',
    { clusterSize: 512, backingFile: 'x'.repeat(400) },
    /at most 392 fit/,
  ],
  ['a long backing format', { backingFile: 'b', backingFormat: 'x'.repeat(16) }, /at most 15/],
  ['a NUL in a name', { backingFile: 'b\0c' }, /NUL/],
  ['an L1 beyond 32 MiB', { clusterSize: 512, size: 2 ** 37 + 1 }, /needs? clusters of at least 1024 bytes/],
  ['a negative size', { size: -1 }, /0 to 2\^53/],
  ['a fraction of a byte', { size: 1.5 }, /whole number/],
]

for (const [what, options, message] of bad) {
  test(`${what} is refused, and the file stays empty`, async (t) => {
    const file = place(`bad ${what}`)
    const backend = new FileBackend(file, { readOnly: false, create: true })
    const error = await t.throwsAsync(createQcow2(backend, { ...plain, size: 2 ** 20, ...options }), {
      message,
    })
    t.regex(String((error as Error & { code?: string }).code), /ERR_INVALID_OPTION|ERR_OUT_OF_RANGE/)
    t.is(backend.length, 0)
    await backend.close()
  })
}

test('the first sector comes last: until then the file is no image', async (t) => {
  const file = place('order')
  const backend = new FileBackend(file, { readOnly: false, create: true })
  const seen: string[] = []
  const write = backend.write.bind(backend)
  const flush = backend.flush.bind(backend)
  backend.write = async (bytes, offset) => {
    seen.push(offset === 0 ? `sector 0, ${bytes.length} bytes` : 'other')
    await write(bytes, offset)
  }
  backend.flush = async () => {
    seen.push('flush')
    await flush()
  }
  await createQcow2(backend, { ...plain, size: 2 ** 30 })
  await backend.close()
  t.deepEqual(seen.slice(-3), ['flush', 'sector 0, 512 bytes', 'flush'])
  t.true(seen.slice(0, -3).every((event) => event === 'other'))
})
