import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import test from 'ava'
import {
  checkImage,
  compareImages,
  convertImage,
  createImage,
  type Extent,
  imageInfo,
  mapImage,
  measureImage,
  MemoryFile,
  openImage,
} from '../../lib/index.js'
import { chainClusterSizes, makeChain, randomLinks } from '../support/chain-shapes.js'
import { passphrase, qemuCheckEncrypted, qemuReadEncrypted } from '../support/encrypted.js'
import { qemuCheck, qemuImg, qemuIo, qemuRead } from '../support/qemu.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

const size = 3 * 1024 * 1024 + 512
const shapes = [
  {},
  { clusterSize: 512, refcountBits: 1 },
  { compat: '0.10', clusterSize: 4096 },
  { extendedL2: true },
  { preallocation: 'metadata' },
  { lazyRefcounts: true },
  { encrypt: { format: 'luks', passphrase, iterTime: 1 } },
] as const

for (const shape of shapes) {
  test(`an image made in memory is one to the stock tools: ${JSON.stringify(shape)}`, async (t) => {
    const path = join(await makeFolder(t), 'disk')
    const random = new SeededRandom(seedOfRun())
    const file = new MemoryFile()
    t.like(await createImage(file, { size, ...shape }), { path: 'memory', format: 'qcow2', size })
    const isEncrypted = 'encrypt' in shape
    const [theirCheck, theirRead] = isEncrypted
      ? ([qemuCheckEncrypted, qemuReadEncrypted] as const)
      : ([qemuCheck, qemuRead] as const)
    const encryption = isEncrypted ? { encryption: { passphrase } } : {}
    const image = await openImage(file, { ...encryption })
    const content = Buffer.alloc(size)
    for (let step = 0; step < 30; step++) {
      const offset = random.integer(size)
      const bytes = random.bytes(random.between(1, Math.min(200_000, size - offset)))
      await image.write(bytes, offset)
      content.set(bytes, offset)
    }
    await image.discard({ offset: 2 ** 20, length: 2 ** 20 })
    content.fill(0, 2 ** 20, 2 ** 21)
    await image.flush()
    await writeFile(path, file.bytes())
    // Refcounts that are written lazily may be too low until the image is closed.
    if (!('lazyRefcounts' in shape)) {
      const found = await theirCheck(path)
      t.true(found === '' || found.includes('exits with 3'), found)
    }
    t.true((await theirRead(path)).equals(content), 'what was flushed is all there')
    await image.close()
    await writeFile(path, file.bytes())
    t.is(await theirCheck(path), '')
    t.like(await checkImage(file), { corruptions: 0, leaks: 0 })
    t.true((await theirRead(path)).equals(content))
    const raw = new MemoryFile()
    await convertImage(file, raw, { format: 'raw', ...encryption })
    t.true(content.equals(raw.bytes()))
    t.true((await compareImages(file, raw, { secondFormat: 'raw', ...encryption })).identical)
    const theirs = JSON.parse(await qemuImg('info', '--output=json', path)) as { 'virtual-size': number }
    t.like(await imageInfo(file), { virtualSize: theirs['virtual-size'], actualSize: file.heldBytes })
  })
}

test('an image of the stock tools is opened, changed and converted in memory', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk')
  await qemuImg('create', '-q', '-f', 'qcow2', path, '64M')
  await qemuIo(path, ['write -q -P 1 0 128k', 'write -q -P 2 30M 1M', 'write -q -z 30M 64k'])
  const file = MemoryFile.from(await readFile(path), 'downloaded')
  t.like(await measureImage(file, { format: 'qcow2' }), {
    required: (
      JSON.parse(await qemuImg('measure', '-O', 'qcow2', '--output=json', path)) as { required: number }
    ).required,
  })
  const theirs = JSON.parse(await qemuImg('map', '--output=json', path)) as {
    start: number
    length: number
  }[]
  const ours: { start: number; length: number }[] = []
  for await (const { offset: start, length, depth, allocated: present, zero, data, hostOffset } of mapImage(
    file,
  ))
    ours.push({
      start,
      length,
      ...{ depth, present, zero, data },
      ...(hostOffset === undefined ? {} : { offset: hostOffset }),
    })
  t.deepEqual(ours, theirs)
  const image = await openImage(file)
  await image.write(new Uint8Array(5).fill(3), 1000)
  await image.close()
  const packed = new MemoryFile()
  await convertImage(file, packed, { format: 'qcow2', compress: true })
  t.true(packed.length < 2 ** 20)
  await writeFile(join(folder, 'packed'), packed.bytes())
  t.is(await qemuCheck(join(folder, 'packed')), '')
  await qemuIo(path, ['write -q -P 3 1000 5'])
  await qemuImg('compare', path, join(folder, 'packed'))
  await convertImage([packed, packed], join(folder, 'twice'), { format: 'raw' })
  const once = await qemuRead(path)
  t.true((await readFile(join(folder, 'twice'))).equals(Buffer.concat([once, once])))
})

test('a chain in memory reads as one of files', async (t) => {
  const base = new MemoryFile('base')
  await createImage(base, { size, format: 'raw' })
  const below = await openImage(base, { format: 'raw' })
  await below.write(new Uint8Array(70_000).fill(1), 1000)
  const top = new MemoryFile('top')
  await createImage(top, { size, backingFile: 'base', backingFormat: 'raw', unsafe: true })
  const image = await openImage(top, { backing: () => below })
  await image.write(new Uint8Array(10).fill(2), 60_000)
  const bytes = await image.read({ offset: 0, length: 100_000 })
  t.deepEqual([bytes[999], bytes[1000], bytes[60_000], bytes[60_010], bytes[71_000]], [0, 1, 2, 1, 0])
  await image.close()
  await below.close()
})

for (const clusterSize of chainClusterSizes) {
  test(`streams and extents go through chains as the stock tools do: ${clusterSize} byte clusters`, async (t) => {
    const folder = await makeFolder(t, { fast: true })
    const seed = seedOfRun()
    t.log(`QCOW2_SEED=${seed}`)
    const random = new SeededRandom(seed)
    const links = randomLinks(random, clusterSize, 3)
    await makeChain(folder, links, random)
    const path = join(folder, links[2].name)
    const content = await qemuRead(path)
    const image = await openImage(path)
    t.true((await buffer(image.createReadStream())).equals(content))
    const start = random.integer(image.size)
    const end = random.between(start, image.size - 1)
    t.true((await buffer(image.createReadStream({ start, end }))).equals(content.subarray(start, end + 1)))
    const found: Extent[] = []
    for await (const extent of image.extents()) found.push(extent)
    t.is(
      found.reduce((sum, { offset, length }) => (sum === offset ? sum + length : Number.NaN), 0),
      image.size,
    )
    for (const { offset, length, zero } of found) {
      if (zero) t.true(content.subarray(offset, offset + length).equals(Buffer.alloc(length)))
    }
    const written = Buffer.from(random.bytes(Math.min(700_000, image.size - start)))
    const pieces = [written.subarray(0, 1), written.subarray(1, 300_000), written.subarray(300_000)]
    await pipeline(Readable.from(pieces), image.createWriteStream({ start }))
    content.set(written, start)
    await image.close()
    t.is(await qemuCheck(path), '')
    t.true((await qemuRead(path)).equals(content))
  })
}
