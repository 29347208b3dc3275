import { link, readdir, readFile, statfs, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { DiskImage as OpenDisk } from '../../lib/image/disk-image.js'
import { createImage, type DiskImage, imageInfo, openImage, type OpenOptions } from '../../lib/index.js'
import { lockedBytes } from '../support/lock-bytes.js'
import { mayMount, mountSmall } from '../support/mounts.js'
import { qemuCheck, qemuRead } from '../support/qemu.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

const size = 2 * 1024 * 1024 + 512 * 3

async function readAll(image: DiskImage): Promise<Buffer> {
  return Buffer.from(await image.read({ offset: 0, length: image.size }))
}

async function readOnly(path: string, options: OpenOptions = {}): Promise<Buffer> {
  const image = await openImage(path, { readOnly: true, ...options })
  try {
    return await readAll(image)
  } finally {
    await image.close()
  }
}

/** Guests that write all the time, each to a part of the disk of its own; a write covers what is odd, within clusters and over their borders. */
class Writers {
  readonly content: Buffer
  writes = 0
  readonly #image: DiskImage
  readonly #random = new SeededRandom(seedOfRun())
  #isOver = false
  readonly #running: Promise<void>[]

  constructor(image: DiskImage, content: Buffer, count: number) {
    this.#image = image
    this.content = content
    const part = Math.floor(content.length / count)
    this.#running = Array.from({ length: count }, (_, index) => this.#write(index * part, part))
  }

  async #write(start: number, length: number): Promise<void> {
    while (!this.#isOver) {
      const offset = start + this.#random.integer(length)
      const bytes = this.#random.bytes(Math.min(this.#random.between(1, 30_000), start + length - offset))
      await this.#image.write(bytes, offset, { fua: this.#random.chance(0.1) })
      this.content.set(bytes, offset)
      this.writes++
      if (this.#random.chance(0.1)) await this.#image.flush()
    }
  }

  async end(): Promise<void> {
    this.#isOver = true
    await Promise.all(this.#running)
  }

  /** Until so many more writes have ended. */
  async more(count: number): Promise<void> {
    const enough = this.writes + count
    while (this.writes < enough) await new Promise((resolve) => setImmediate(resolve))
  }
}

const openings: readonly [string, 'qcow2' | 'raw', OpenOptions][] = [
  ['writeback', 'qcow2', {}],
  ['writethrough', 'qcow2', { cache: 'writethrough' }],
  ['unsafe', 'qcow2', { cache: 'unsafe' }],
  ['raw', 'raw', { format: 'raw' }],
  ['held back at failures', 'qcow2', { onError: 'enospc', onEvent: () => undefined }],
]

for (const [what, format, options] of openings) {
  test(`a disk is frozen while guests write to it, and nothing is lost: ${what}`, async (t) => {
    t.timeout(120_000)
    t.log(`QCOW2_SEED=${seedOfRun()}`)
    const folder = await makeFolder(t)
    const path = (name: string): string => join(folder, name)
    await createImage(path('0'), { size, format, ...(format === 'qcow2' ? { lazyRefcounts: true } : {}) })
    const image = await openImage(path('0'), options)
    const writers = new Writers(image, Buffer.alloc(size), 4)
    const frozen: Buffer[] = []
    for (let round = 1; round <= 3; round++) {
      await writers.more(20)
      await image.createOverlay(path(String(round)), { clusterSize: 4096, lazyRefcounts: round === 2 })
      t.is(image.path, path(String(round)))
      t.is(image.format, 'qcow2')
      frozen.push(await readFile(path(String(round - 1))))
    }
    await writers.more(20)
    await writers.end()
    t.true((await readAll(image)).equals(writers.content))
    t.deepEqual(await lockedBytes(path('3')), [100, 101, 103, 201, 203])
    t.deepEqual(await lockedBytes(path('1')), [100, 201, 203])
    t.deepEqual(await lockedBytes(path('0')), [100, 201, 203])
    await image.close()
    for (let round = 0; round < 3; round++) {
      t.true((await readFile(path(String(round)))).equals(frozen[round] as Buffer), `${round} has changed`)
    }
    t.true((await readOnly(path('3'))).equals(writers.content))
    t.true((await qemuRead(path('3'))).equals(writers.content))
    for (const name of ['0', '1', '2', '3'].slice(format === 'raw' ? 1 : 0)) {
      t.is(await qemuCheck(path(name)), '', name)
      t.false((await imageInfo(path(name))).dirty)
    }
  })
}

async function openDisk(t: ExecutionContext, options: OpenOptions = {}): Promise<[DiskImage, string]> {
  const folder = await makeFolder(t)
  await createImage(join(folder, 'disk.qcow2'), { size })
  const image = await openImage(join(folder, 'disk.qcow2'), options)
  t.teardown(() => image.close())
  await image.write(new Uint8Array(1000).fill(1), 500)
  return [image, folder]
}

test('what is frozen is a backing file: durable, readable by others, and shown by extents', async (t) => {
  const [image, folder] = await openDisk(t)
  await image.createOverlay(join(folder, 'top.qcow2'))
  await image.write(Uint8Array.of(2), 1_000_000)
  const frozen = await readOnly(join(folder, 'disk.qcow2'))
  t.is(frozen[500], 1)
  t.is(frozen[1_000_000], 0)
  await t.throwsAsync(openImage(join(folder, 'disk.qcow2')), { code: 'ERR_IMAGE_LOCKED' })
  const depths: [number, number][] = []
  for await (const { offset, depth, data } of image.extents()) if (data) depths.push([offset, depth])
  t.deepEqual(depths, [
    [0, 1],
    [983040, 0],
  ])
  t.deepEqual(
    await imageInfo(join(folder, 'top.qcow2'), { forceShare: true }).then((info) => [
      info.backingFile,
      info.backingFormat,
    ]),
    ['disk.qcow2', 'qcow2'],
  )
  const { dataWrites } = image.stats()
  await image.write(Uint8Array.of(3), 1_000_001)
  t.is(image.stats().dataWrites, dataWrites + 1, 'the counters are those of the new file')
  await image.resize(2 * size)
  t.is(image.size, 2 * size)
  await image.createOverlay(join(folder, 'larger.qcow2'))
  t.is(image.size, 2 * size)
  t.is((await image.read({ offset: 1_000_001, length: 1 }))[0], 3)
  await image.close()
  t.is((await imageInfo(join(folder, 'larger.qcow2'))).virtualSize, 2 * size)
  await t.throwsAsync(image.createOverlay(join(folder, 'late.qcow2')), { code: 'ERR_CLOSED' })
})

test('the name of the frozen image is as seen from the new one, or as given', async (t) => {
  const folder = await makeFolder(t)
  await createImage(join(folder, 'a:b.qcow2'), { size })
  const image = await openImage(join(folder, 'a:b.qcow2'))
  await image.createOverlay(join(folder, 'top.qcow2'))
  await image.createOverlay(join(folder, 'named.qcow2'), { backingFile: './top.qcow2' })
  const elsewhere = await makeFolder(t)
  await symlink(folder, join(elsewhere, 'link'))
  await image.createOverlay(join(elsewhere, 'far.qcow2'))
  await image.createOverlay(join(elsewhere, 'link', 'near.qcow2'))
  await image.close()
  const nameIn = async (path: string): Promise<string | undefined> => (await imageInfo(path)).backingFile
  t.is(await nameIn(join(folder, 'top.qcow2')), './a:b.qcow2')
  t.is(await nameIn(join(folder, 'named.qcow2')), './top.qcow2')
  t.is(await nameIn(join(elsewhere, 'far.qcow2')), join(folder, 'named.qcow2'))
  t.is(await nameIn(join(folder, 'near.qcow2')), join(elsewhere, 'far.qcow2'))
  t.is((await readOnly(join(folder, 'near.qcow2'), { backing: 'allow' })).length, size)
})

test('if it fails, everything is as before', async (t) => {
  const [image, folder] = await openDisk(t)
  const before = await readdir(folder)
  await writeFile(join(folder, 'taken'), 'x')
  await t.throwsAsync(image.createOverlay(join(folder, 'taken')), { code: 'ERR_EXISTS' })
  await t.throwsAsync(image.createOverlay(join(folder, 'missing', 'top')), { code: 'ERR_NOT_FOUND' })
  await t.throwsAsync(image.createOverlay(join(folder, 'top'), { clusterSize: 3 }), {
    code: 'ERR_OUT_OF_RANGE',
  })
  await t.throwsAsync(image.createOverlay(join(folder, 'top'), { compat: '0.10', refcountBits: 1 }), {
    code: 'ERR_INVALID_OPTION',
  })
  await t.throwsAsync(image.createOverlay(''), { code: 'ERR_INVALID_OPTION' })
  await t.throwsAsync(image.createOverlay(join(folder, 'top'), { backingFile: 'x'.repeat(1024) }), {
    code: 'ERR_INVALID_OPTION',
  })
  t.deepEqual((await readdir(folder)).sort(), [...before, 'taken'].sort())
  t.is(image.path, join(folder, 'disk.qcow2'))
  await image.write(Uint8Array.of(9), 0)
  await image.flush()
  t.deepEqual(await lockedBytes(image.path), [100, 101, 103, 201, 203])
  const reader = await makeFolder(t)
  await createImage(join(reader, 'disk.qcow2'), { size })
  const only = await openImage(join(reader, 'disk.qcow2'), { readOnly: true })
  await t.throwsAsync(only.createOverlay(join(reader, 'top')), { code: 'ERR_READ_ONLY' })
  await only.close()
})

test('if the disk cannot be made durable, guests go on where they were', async (t) => {
  const [image, folder] = await openDisk(t)
  const [{ format }] = OpenDisk.layersOf(image)
  const freeze = format.freeze.bind(format)
  format.freeze = () => Promise.reject(new Error('it does not freeze'))
  const frozen = image.createOverlay(join(folder, 'top'))
  // Asked for meanwhile: held, and then done.
  const writes = Array.from({ length: 50 }, (_, at) => image.write(Uint8Array.of(at + 1), at))
  await t.throwsAsync(frozen, { message: 'it does not freeze' })
  await Promise.all(writes)
  t.deepEqual(await readdir(folder), ['disk.qcow2'])
  t.is(image.path, join(folder, 'disk.qcow2'))
  t.deepEqual(await lockedBytes(image.path), [100, 101, 103, 201, 203])
  format.freeze = freeze
  await image.createOverlay(join(folder, 'top'))
  t.is((await image.read({ offset: 49, length: 1 }))[0], 50)
  await image.close()
  t.is(await qemuCheck(join(folder, 'disk.qcow2')), '')
})

test('a file that an overlay was to replace comes back when it fails, and goes when it does not', async (t) => {
  const [image, folder] = await openDisk(t)
  const old = join(folder, 'old')
  await writeFile(old, 'what was there')
  const [{ format }] = OpenDisk.layersOf(image)
  const freeze = format.freeze.bind(format)
  format.freeze = () => Promise.reject(new Error('it does not freeze'))
  await t.throwsAsync(image.createOverlay(old, { overwrite: true }), { message: 'it does not freeze' })
  t.is(await readFile(old, 'utf8'), 'what was there')
  await t.throwsAsync(image.createOverlay(join(folder, 'new'), { overwrite: true }), {
    message: 'it does not freeze',
  })
  t.deepEqual((await readdir(folder)).sort(), ['disk.qcow2', 'old'])
  format.freeze = freeze
  await image.createOverlay(old, { overwrite: true })
  await image.write(Uint8Array.of(7), 0)
  await image.close()
  t.deepEqual((await readdir(folder)).sort(), ['disk.qcow2', 'old'])
  t.is(await qemuCheck(old), '')
})

test('no file of the disk itself is replaced by its overlay, under whatever name and without locks', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const at = (name: string): string => join(folder, name)
  await createImage(at('base'), { size: 65536 })
  await createImage(at('disk'), { backingFile: 'base', backingFormat: 'qcow2', dataFile: 'data' })
  await symlink('base', at('link'))
  await link(at('disk'), at('other name'))
  const before = await readdir(folder)
  const image = await openImage(at('disk'), { locking: 'off', dataFile: 'allow' })
  for (const name of ['disk', 'other name', 'base', 'link', 'data']) {
    await t.throwsAsync(
      image.createOverlay(at(name), { overwrite: true }),
      { code: 'ERR_INVALID_OPTION' },
      name,
    )
  }
  await image.write(Uint8Array.of(7), 0)
  await image.close()
  t.deepEqual(await readdir(folder), before)
  t.is((await readFile(at('data')))[0], 7)
})

const testMounted = mayMount() ? test.serial : test.serial.skip

testMounted('on a full disk there is no overlay, and what was written is there', async (t) => {
  const { folder, remount } = await mountSmall(t, 'tmpfs', 2)
  const path = (name: string): string => join(folder, name)
  await createImage(path('disk.qcow2'), { size })
  const image = await openImage(path('disk.qcow2'), { cache: { reservation: 0 } })
  await image.write(new Uint8Array(1024 * 1024).fill(3), 0)
  const { bsize, bavail } = await statfs(folder)
  await writeFile(path('ballast'), new Uint8Array(bsize * bavail))
  await t.throwsAsync(image.createOverlay(path('top')), { code: 'ERR_NO_SPACE' })
  t.deepEqual((await readdir(folder)).sort(), ['ballast', 'disk.qcow2'])
  await image.write(Uint8Array.of(4), 100)
  remount('size=4m')
  await image.createOverlay(path('top'))
  await image.write(Uint8Array.of(5), 101)
  await image.close()
  t.deepEqual([...(await readOnly(path('top'))).subarray(99, 103)], [3, 4, 5, 3])
})

test('internal snapshots are those of the image that is written to', async (t) => {
  const [image, folder] = await openDisk(t)
  const { snapshots } = image
  await snapshots.create('below')
  const made = image.createOverlay(join(folder, 'top'))
  // Asked for while the old image is still the top, and made in the new one.
  const behind = snapshots.create('above')
  await Promise.all([made, behind])
  t.deepEqual(
    (await snapshots.list()).map(({ name }) => name),
    ['above'],
  )
  await image.write(Uint8Array.of(9), 500)
  await snapshots.apply('above')
  t.is((await image.read({ offset: 500, length: 1 }))[0], 1)
  await t.throwsAsync(snapshots.delete('below'), { code: 'ERR_SNAPSHOT_NOT_FOUND' })
  await image.close()
  for (const [name, inside] of [
    ['disk.qcow2', 'below'],
    ['top', 'above'],
  ] as const) {
    t.is(await qemuCheck(join(folder, name)), '')
    t.deepEqual(
      (await imageInfo(join(folder, name))).snapshots?.map((snapshot) => snapshot.name),
      [inside],
    )
  }
})

test('compressed clusters that find an overlay with larger ones leave their neighbours alone', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk.qcow2')
  await createImage(path, { size: 1024 * 1024, clusterSize: 4096 })
  const image = await openImage(path, { readOnly: false })
  await image.write(Buffer.alloc(image.size, 5), 0)
  let isOver = false
  const made = image.createOverlay(join(folder, 'top'), { clusterSize: 65536 }).finally(() => (isOver = true))
  const writes: Promise<void>[] = []
  // From before the switch until behind it, where they are no whole clusters any more.
  while (!isOver) {
    const offset = (4096 + writes.length * 65536) % image.size
    const written = image.writeCompressed(Buffer.alloc(4096, 6), offset)
    writes.push(
      written.catch((error: unknown) => void t.is((error as { code: string }).code, 'ERR_OUT_OF_RANGE')),
    )
    await new Promise((resolve) => setImmediate(resolve))
  }
  await Promise.all([made, ...writes])
  t.true(writes.length > 1)
  const seen = await readAll(image)
  t.deepEqual(
    [...new Set(seen)].sort((a, b) => a - b),
    [5, 6],
  )
  for (let offset = 0; offset < seen.length; offset += 4096)
    t.true(seen[offset] === 5 || offset % 65536 === 4096, `another byte at ${offset}`)
  await image.close()
  t.is(await qemuCheck(join(folder, 'top')), '')
})

test('two at once come one after the other, and closing waits for them', async (t) => {
  const [image, folder] = await openDisk(t)
  const made = [
    image.createOverlay(join(folder, '1')),
    image.createOverlay(join(folder, '2')),
    image.resize(2 * size),
  ]
  const written = image.write(Uint8Array.of(5), 0)
  const outcomes = await Promise.allSettled([...made, written])
  t.deepEqual(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'fulfilled', 'fulfilled', 'fulfilled'],
  )
  const last = image.createOverlay(join(folder, '3'))
  await image.close()
  await Promise.allSettled([last])
  t.is((await readOnly(join(folder, '2')))[0], 5)
  t.is((await imageInfo(join(folder, '2'))).backingFile, '1')
})
