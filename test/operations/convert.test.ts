import { createHash } from 'node:crypto'
import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as zlib from 'node:zlib'
import test, { type ExecutionContext } from 'ava'
import {
  checkImage,
  compareImages,
  convertImage,
  type ConvertOptions,
  createImage,
  imageInfo,
  MemoryFile,
  openImage,
  type Progress,
} from '../../lib/index.js'
import { addon } from '../../lib/native/addon.js'
import { qemuCheck, qemuImg } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

const size = 4 * 1024 * 1024

/** A raw disk with data, zeros and holes. */
async function makeSource(t: ExecutionContext): Promise<{ folder: string; source: string; content: Buffer }> {
  const folder = await makeFolder(t)
  const source = join(folder, 'source.raw')
  const content = Buffer.alloc(size)
  content
    .fill(1, 0, 100_000)
    .fill(2, 1_000_000, 1_000_010)
    .fill(3, size - 1)
  await writeFile(source, content)
  return { folder, source, content }
}

test('raw to qcow2 and back gives the same bytes, sparse', async (t) => {
  const { folder, source, content } = await makeSource(t)
  const qcow2 = join(folder, 'disk.qcow2')
  const raw = join(folder, 'disk.raw')
  t.like(await convertImage(source, qcow2, { format: 'qcow2' }), { path: qcow2, format: 'qcow2', size })
  t.true((await stat(qcow2)).size < 1024 * 1024)
  await convertImage(qcow2, raw, { format: 'raw' })
  t.true((await readFile(raw)).equals(content))
  t.true((await stat(raw)).blocks * 512 <= 128 * 1024)
  t.deepEqual((await readdir(folder)).sort(), ['disk.qcow2', 'disk.raw', 'source.raw'])
})

/** The disk of the next tests: words, a part that does not get smaller, zeros, and an end within a cluster. */
function mixedContent(): Buffer {
  const content = Buffer.alloc(3 * 1024 * 1024 + 512, 'the quick brown fox jumps over the lazy dog; ')
  content.fill(createHash('shake256', { outputLength: 300_000 }).update('seed').digest(), 500_000, 800_000)
  return content.fill(0, 1_000_000, 1_500_000)
}

test('a compressed target holds the same disk in less, for us and for qemu-img', async (t) => {
  const folder = await makeFolder(t)
  const source = join(folder, 'source.raw')
  const content = mixedContent()
  await writeFile(source, content)
  for (const clusterSize of [512, 4096, 65536, 2 * 1024 * 1024]) {
    const path = join(folder, 'disk.qcow2')
    await convertImage(source, path, { format: 'qcow2', compress: true, overwrite: true, clusterSize })
    const plain = join(folder, 'plain.qcow2')
    await convertImage(source, plain, { format: 'qcow2', overwrite: true, clusterSize })
    t.true((await stat(path)).size < (await stat(plain)).size - 500_000)
    const result = await checkImage(path)
    t.true(
      'corruptions' in result &&
        result.corruptions === 0 &&
        result.leaks === 0 &&
        result.compressedClusters > 0,
    )
    t.is(await qemuCheck(path), '')
    await qemuImg('compare', '-f', 'raw', '-F', 'qcow2', source, path)
    await convertImage(path, join(folder, 'back.raw'), { format: 'raw', overwrite: true })
    t.true((await readFile(join(folder, 'back.raw'))).equals(content))
  }
  const raw = { format: 'raw', compress: true } as const
  await t.throwsAsync(convertImage(source, join(folder, 'no.raw'), raw), { code: 'ERR_NOT_SUPPORTED' })
})

test('what qemu-img has compressed is read, with zlib and zstd, in large and small clusters', async (t) => {
  const folder = await makeFolder(t)
  const [source, path, back] = ['source.raw', 'disk.qcow2', 'back.raw'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ]
  const content = mixedContent()
  await writeFile(source, content)
  for (const type of ['zlib', 'zstd'] as const) {
    for (const clusterSize of [512, 65536, 2 * 1024 * 1024]) {
      const shape = `compression_type=${type},cluster_size=${clusterSize}`
      await qemuImg('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', shape, source, path)
      t.is((await imageInfo(path)).qcow2?.compressionType, type)
      const result = await checkImage(path)
      t.like(result, { corruptions: 0, leaks: 0 })
      t.true('compressedClusters' in result && result.compressedClusters > 0)
      t.true((await compareImages(source, path)).identical)
      await convertImage(path, back, { format: 'raw', overwrite: true })
      t.true((await readFile(back)).equals(content), shape)
    }
  }
})

test('a target compressed with zstd is written where there is a library, and refused by name where not', async (t) => {
  const folder = await makeFolder(t)
  const source = join(folder, 'source.raw')
  await writeFile(source, mixedContent())
  for (const clusterSize of [512, 65536, 2 * 1024 * 1024]) {
    const path = join(folder, `disk-${clusterSize}.qcow2`)
    const options = { format: 'qcow2', compress: true, compressionType: 'zstd', clusterSize } as const
    if (!addon().codecs.zstd()) {
      const expected = { code: 'ERR_NOT_SUPPORTED', message: /zstd .*Node\.js 22\.15/ }
      await t.throwsAsync(convertImage(source, path, options), expected)
      t.deepEqual(await readdir(folder), ['source.raw'])
      continue
    }
    await convertImage(source, path, options)
    t.is(await qemuCheck(path), '')
    await qemuImg('compare', '-f', 'raw', '-F', 'qcow2', source, path)
    t.true((await compareImages(source, path)).identical)
    const { incompatible, headerLength, type } = await headerOf(path)
    t.deepEqual([incompatible, headerLength, type], [8n, 112, 1])
  }
})

test('a target in memory is compressed with zstd by Node.js alone', async (t) => {
  const source = join(await makeFolder(t), 'source.raw')
  await writeFile(source, mixedContent())
  const target = new MemoryFile()
  const converted = convertImage(source, target, {
    format: 'qcow2',
    compress: true,
    compressionType: 'zstd',
  })
  if (!('zstdCompress' in zlib)) {
    await t.throwsAsync(converted, { code: 'ERR_NOT_SUPPORTED', message: /zstd .*Node\.js 22\.15/ })
    return
  }
  await converted
  t.true((await compareImages(source, target)).identical)
})

async function headerOf(path: string): Promise<{ incompatible: bigint; headerLength: number; type: number }> {
  const header = (await readFile(path)).subarray(0, 112)
  return {
    incompatible: header.readBigUInt64BE(72),
    headerLength: header.readUInt32BE(100),
    type: header.readUInt8(104),
  }
}

test('the target has the shape that was asked for', async (t) => {
  const { folder, source } = await makeSource(t)
  const path = join(folder, 'disk')
  for (const shape of [
    { clusterSize: 512, refcountBits: 1 },
    { clusterSize: 2 * 1024 * 1024, refcountBits: 64 },
    { compat: '0.10' },
    { preallocation: 'metadata' },
    { preallocation: 'full' },
  ] as const) {
    await convertImage(source, path, { format: 'qcow2', overwrite: true, ...shape })
    const info = await imageInfo(path)
    t.is(info.clusterSize, 'clusterSize' in shape ? shape.clusterSize : 65536)
    t.is(info.qcow2?.compat, 'compat' in shape ? shape.compat : '1.1')
    t.true((await compareImages(source, path)).identical)
  }
})

test('several sources become one disk', async (t) => {
  const { folder, source, content } = await makeSource(t)
  const path = join(folder, 'disk')
  t.is((await convertImage([source, source], path, { format: 'raw' })).size, 2 * size)
  t.true((await readFile(path)).equals(Buffer.concat([content, content])))
})

test('over a backing file only the difference is written', async (t) => {
  const { folder, content } = await makeSource(t)
  const changed = join(folder, 'changed.raw')
  await writeFile(changed, Buffer.from(content).fill(0, 0, 65536).fill(7, 3_000_000, 3_000_100))
  const path = join(folder, 'disk.qcow2')
  const options = { format: 'qcow2', backingFile: 'source.raw', backingFormat: 'raw' } as const
  const { bytesWritten } = await convertImage(changed, path, options)
  t.is(bytesWritten, 65536)
  t.true((await compareImages(changed, path)).identical)
  t.is((await imageInfo(path)).backingFile, 'source.raw')
})

test('a larger target shows zeros where its backing file has ended', async (t) => {
  const { folder, source } = await makeSource(t)
  await createImage(join(folder, 'short.raw'), { size: 65536, format: 'raw', preallocation: 'full' })
  const path = join(folder, 'disk.qcow2')
  await convertImage(source, path, { format: 'qcow2', backingFile: 'short.raw', backingFormat: 'raw' })
  t.true((await compareImages(source, path)).identical)
})

test('an existing target keeps its shape and loses its bytes', async (t) => {
  const { folder, source } = await makeSource(t)
  const path = join(folder, 'disk.qcow2')
  await createImage(path, { size: size + 65536, clusterSize: 4096 })
  const image = await openImage(path)
  await image.write(new Uint8Array(size).fill(9), 0)
  await image.close()
  await convertImage(source, path, { format: 'qcow2', existingTarget: true })
  t.true((await compareImages(source, path)).identical)
  t.is((await imageInfo(path)).clusterSize, 4096)
  await createImage(path, { size: 65536, overwrite: true })
  await t.throwsAsync(convertImage(source, path, { format: 'qcow2', existingTarget: true }), {
    code: 'ERR_OUT_OF_RANGE',
    message: /65536 bytes, less than the 4194304/,
  })
})

test('an existing file is replaced only if that is meant, and a failure leaves it', async (t) => {
  const { folder, source } = await makeSource(t)
  const path = join(folder, 'disk')
  await writeFile(path, 'precious')
  await t.throwsAsync(convertImage(source, path, { format: 'raw' }), { code: 'ERR_EXISTS' })
  await t.throwsAsync(convertImage(join(folder, 'missing'), path, { format: 'raw', overwrite: true }), {
    code: 'ERR_NOT_FOUND',
  })
  t.is(await readFile(path, 'utf8'), 'precious')
})

test('progress is told from nothing to everything, and aborting leaves nothing behind', async (t) => {
  const { folder, source } = await makeSource(t)
  const reports: Progress[] = []
  await convertImage(source, join(folder, 'a'), {
    format: 'qcow2',
    onProgress: (report) => reports.push(report),
  })
  t.deepEqual(reports[0], { phase: 'copy', bytesDone: 0, bytesTotal: size })
  t.deepEqual(reports.at(-1), { phase: 'copy', bytesDone: size, bytesTotal: size })
  const controller = new AbortController()
  const aborted = convertImage(source, join(folder, 'b'), {
    format: 'qcow2',
    signal: controller.signal,
    onProgress: ({ bytesDone }) => bytesDone > 0 && controller.abort(new Error('enough')),
  })
  await t.throwsAsync(aborted, { message: 'enough' })
  t.deepEqual((await readdir(folder)).sort(), ['a', 'source.raw'])
})

test('every cache mode copies the same', async (t) => {
  const { folder, source, content } = await makeSource(t)
  for (const cache of ['none', 'directsync', 'writethrough', 'unsafe-direct'] as const) {
    const qcow2 = join(folder, 'a')
    const raw = join(folder, 'b')
    await convertImage(source, qcow2, { format: 'qcow2', overwrite: true, cache, sourceCache: cache })
    await convertImage(qcow2, raw, { format: 'raw', overwrite: true, cache, sourceCache: cache })
    t.true((await readFile(raw)).equals(content))
  }
})

test('what it cannot do, and what contradicts itself, is refused', async (t) => {
  const { folder, source } = await makeSource(t)
  const cases: [object, string][] = [
    [{}, 'ERR_INVALID_OPTION'],
    [{ format: 'raw', compress: true }, 'ERR_NOT_SUPPORTED'],
    [{ format: 'raw', clusterSize: 4096 }, 'ERR_INVALID_OPTION'],
    [{ format: 'qcow2', existingTarget: true, clusterSize: 4096 }, 'ERR_INVALID_OPTION'],
    [{ format: 'qcow2', targetIsZero: true }, 'ERR_INVALID_OPTION'],
    [{ format: 'qcow2', sparsesize: 0 }, 'ERR_INVALID_OPTION'],
    [{ format: 'qcow2', requests: 0 }, 'ERR_OUT_OF_RANGE'],
  ]
  for (const [options, code] of cases) {
    const converted = convertImage(source, join(folder, 'disk'), options as ConvertOptions)
    await t.throwsAsync(converted, { code }, JSON.stringify(options))
  }
  await t.throwsAsync(convertImage([], join(folder, 'disk'), { format: 'raw' }), {
    code: 'ERR_INVALID_ARGUMENT',
  })
  t.deepEqual(await readdir(folder), ['source.raw'])
})
