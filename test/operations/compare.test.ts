import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { compareImages, createImage, openImage, type Progress } from '../../lib/index.js'
import { run } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

const size = 3 * 1024 * 1024

test('disks with the same bytes are identical, however they are stored', async (t) => {
  const folder = await makeFolder(t)
  const raw = join(folder, 'a')
  const content = Buffer.alloc(size).fill(5, 100_000, 300_000)
  await writeFile(raw, content)
  const qcow2 = join(folder, 'b')
  await createImage(qcow2, { size, clusterSize: 4096 })
  const image = await openImage(qcow2)
  await image.write(content.subarray(90_000, 310_000), 90_000)
  await image.close()
  const reports: Progress[] = []
  t.deepEqual(await compareImages(raw, qcow2, { onProgress: (report) => reports.push(report) }), {
    identical: true,
    sizes: [size, size],
  })
  t.deepEqual(reports.at(-1), { phase: 'compare', bytesDone: size, bytesTotal: size })
})

test('the first sector that differs is told, as the stock tool tells it', async (t) => {
  const folder = await makeFolder(t)
  const first = join(folder, 'a')
  const second = join(folder, 'b')
  for (const [at, value] of [
    [0, 1],
    [1000, 1],
    [1_048_575, 2],
    [1_048_576, 2],
    [size - 1, 3],
  ] as const) {
    await writeFile(first, Buffer.alloc(size).fill(7, 0, 200_000))
    const other = Buffer.alloc(size).fill(7, 0, 200_000)
    other[at] = value
    await writeFile(second, other)
    const found = await compareImages(first, second, { format: 'raw', secondFormat: 'raw' })
    t.deepEqual(found.difference, { type: 'content', offset: at - (at % 512) })
    const theirs = await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', first, second])
    t.is(theirs.stdout, `Content mismatch at offset ${at - (at % 512)}!\n`)
    t.is(theirs.code, 1)
  }
})

test('a longer disk must go on with zeros, and in strict mode not at all', async (t) => {
  const folder = await makeFolder(t)
  const short = join(folder, 'a')
  const long = join(folder, 'b')
  await writeFile(short, Buffer.alloc(65536).fill(1))
  await writeFile(long, Buffer.concat([Buffer.alloc(65536).fill(1), Buffer.alloc(65536)]))
  t.deepEqual(await compareImages(short, long), { identical: true, sizes: [65536, 131072] })
  t.deepEqual(await compareImages(long, short), { identical: true, sizes: [131072, 65536] })
  t.deepEqual(await compareImages(short, long, { strict: true }), {
    identical: false,
    sizes: [65536, 131072],
    difference: { type: 'size' },
  })
  await writeFile(long, Buffer.concat([Buffer.alloc(65536).fill(1), Buffer.alloc(65536).fill(1, 1000, 1001)]))
  t.deepEqual((await compareImages(short, long)).difference, { type: 'content', offset: 65536 + 512 })
})

test('in strict mode allocation counts', async (t) => {
  const folder = await makeFolder(t)
  const empty = join(folder, 'a')
  const zeroed = join(folder, 'b')
  for (const path of [empty, zeroed]) await createImage(path, { size })
  const image = await openImage(zeroed)
  await image.write(new Uint8Array(65536), 65536)
  await image.close()
  t.true((await compareImages(empty, zeroed)).identical)
  t.true((await compareImages(empty, empty, { strict: true })).identical)
  t.deepEqual((await compareImages(empty, zeroed, { strict: true })).difference, {
    type: 'allocation',
    offset: 65536,
  })
})

test('it can be aborted, and closes both images', async (t) => {
  const folder = await makeFolder(t)
  const paths = [join(folder, 'a'), join(folder, 'b')] as const
  for (const path of paths) await createImage(path, { size, preallocation: 'full' })
  const controller = new AbortController()
  const compared = compareImages(...paths, {
    signal: controller.signal,
    onProgress: ({ bytesDone }) => bytesDone > 0 && controller.abort(new Error('enough')),
  })
  await t.throwsAsync(compared, { message: 'enough' })
  for (const path of paths) await (await openImage(path)).close()
})

test('an image that cannot be opened is named', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'a')
  await createImage(path, { size })
  await t.throwsAsync(compareImages(path, join(folder, 'b')), { code: 'ERR_NOT_FOUND', message: /b'/ })
  await (await openImage(path)).close()
})
