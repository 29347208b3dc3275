import { randomBytes } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { createImage, imageInfo, openImage, type OpenOptions } from '../../lib/index.js'
import { addon } from '../../lib/native/addon.js'
import { qemuCheck, qemuImg, qemuIo, qemuRead } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

/*
 * What other readers and writers of the format in JavaScript get wrong, mostly without an error. Each image is made by the one and read by the other,
 * in both directions.
 */

const cluster = 65536
const size = 16 * cluster

async function bytesOf(path: string, offset: number, options: OpenOptions = {}): Promise<number[]> {
  await using image = await openImage(path, { readOnly: true, ...options })
  return [...(await image.read({ offset, length: 2 }))]
}

test('a cluster that is zeroed and keeps its place shows zeros, not what it held', async (t) => {
  const folder = await makeFolder(t)
  const [theirs, ours] = [join(folder, 'theirs'), join(folder, 'ours')]
  await qemuImg('create', '-q', '-f', 'qcow2', theirs, String(size))
  await qemuIo(theirs, [`write -P 0xaa 0 ${2 * cluster}`, `write -z 0 ${cluster}`])
  t.deepEqual(await bytesOf(theirs, 0), [0, 0])
  t.deepEqual(await bytesOf(theirs, cluster), [0xaa, 0xaa])
  await createImage(ours, { size })
  {
    await using image = await openImage(ours)
    await image.write(new Uint8Array(2 * cluster).fill(0xaa), 0)
    await image.writeZeroes({ offset: 0, length: cluster })
  }
  const seen = await qemuRead(ours)
  t.deepEqual([seen[0], seen[cluster]], [0, 0xaa])
})

test('a zero cluster hides the backing file', async (t) => {
  const folder = await makeFolder(t)
  await writeFile(join(folder, 'base'), Buffer.alloc(size, 0xaa))
  const [theirs, ours] = [join(folder, 'theirs'), join(folder, 'ours')]
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'raw', theirs)
  await qemuIo(theirs, [`write -z 0 ${cluster}`])
  t.deepEqual(await bytesOf(theirs, 0), [0, 0])
  t.deepEqual(await bytesOf(theirs, cluster), [0xaa, 0xaa])
  await createImage(ours, { backingFile: 'base', backingFormat: 'raw' })
  {
    await using image = await openImage(ours)
    await image.writeZeroes({ offset: 0, length: cluster, unmap: true })
  }
  const seen = await qemuRead(ours)
  t.deepEqual([seen[0], seen[cluster]], [0, 0xaa])
})

for (const type of ['zlib', 'zstd'] as const) {
  test(`a cluster compressed by ${type} shows its bytes, not the compressor's`, async (t) => {
    const folder = await makeFolder(t)
    const [theirs, ours] = [join(folder, 'theirs'), join(folder, 'ours')]
    await qemuImg('create', '-q', '-f', 'qcow2', '-o', `compression_type=${type}`, theirs, String(size))
    await qemuIo(theirs, [`write -c -P 0xaa ${cluster} ${cluster}`])
    t.deepEqual(await bytesOf(theirs, cluster), [0xaa, 0xaa])
    t.deepEqual(await bytesOf(theirs, 0), [0, 0])
    if (!addon().codecs[type]()) return
    await createImage(ours, { size, compressionType: type })
    {
      await using image = await openImage(ours)
      await image.writeCompressed(new Uint8Array(cluster).fill(0xaa), cluster)
    }
    const seen = await qemuRead(ours)
    t.deepEqual([seen[0], seen[cluster]], [0, 0xaa])
    t.is(await qemuCheck(ours), '')
  })
}

test('random bytes are no image, and say so', async (t) => {
  const path = join(await makeFolder(t), 'random')
  const bytes = randomBytes(cluster)
  bytes[0] = 0
  await writeFile(path, bytes)
  await t.throwsAsync(openImage(path, { format: 'qcow2' }), {
    code: 'ERR_NOT_AN_IMAGE',
    message: /random/,
  })
})

test('a disk of a part of a cluster keeps its size', async (t) => {
  const folder = await makeFolder(t)
  const [theirs, ours] = [join(folder, 'theirs'), join(folder, 'ours')]
  await createImage(ours, { size: 197_120 })
  await qemuImg('create', '-q', '-f', 'qcow2', theirs, '197120')
  for (const path of [ours, theirs]) {
    const info = JSON.parse(await qemuImg('info', '--output=json', path)) as Record<string, unknown>
    t.is(info['virtual-size'], 197_120)
    t.is((await imageInfo(path)).virtualSize, 197_120)
    t.is(info['format'], 'qcow2')
  }
  t.true((await readFile(ours)).equals(await readFile(theirs)))
})

test('of a large image whose tables are all there no more is read than is asked for', async (t) => {
  const path = join(await makeFolder(t), 'large')
  const large = 256 * 2 ** 30
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'preallocation=metadata', path, String(large))
  const before = process.memoryUsage()
  await using image = await openImage(path, { readOnly: true })
  t.deepEqual([...(await image.read({ offset: large - 2, length: 2 }))], [0, 0])
  let extents = 0
  let bytes = 0
  for await (const { length } of image.extents()) {
    extents++
    bytes += length
  }
  t.is(bytes, large)
  t.true(extents < 10_000, `${extents} extents`)
  const after = process.memoryUsage()
  const grown = after.arrayBuffers + after.external - before.arrayBuffers - before.external
  t.true(grown < 16 * 2 ** 20, `${grown} bytes of tables in memory`)
})
