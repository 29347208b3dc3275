import { open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import {
  amendImage,
  checkImage,
  compactImage,
  compareImages,
  convertImage,
  createImage,
  imageInfo,
  openImage,
  resizeImage,
} from '../../lib/index.js'
import { lockedBytes } from '../support/lock-bytes.js'
import { makeDevice, mayLoop } from '../support/loop-device.js'
import { qemuCheck, qemuImg, qemuIo, qemuRead, run } from '../support/qemu.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

const mebibyte = 2 ** 20
const deviceBytes = 16 * mebibyte

const testOnDevice = mayLoop() ? test.serial : test.serial.skip
if (!mayLoop()) {
  test('this machine lets nobody make block devices', (t) => {
    t.log('SKIPPED: images on block devices')
    t.pass()
  })
}

for (const clusterSize of [512, 65536, 2 * mebibyte]) {
  testOnDevice(`an image on a device is one to the stock tools: ${clusterSize} byte clusters`, async (t) => {
    const device = await makeDevice(t, deviceBytes)
    const folder = await makeFolder(t, { fast: true })
    const random = new SeededRandom(seedOfRun())
    await t.throwsAsync(createImage(device, { size: mebibyte }), { code: 'ERR_EXISTS' })
    const size = 5 * mebibyte + 512
    await createImage(device, { size, clusterSize, overwrite: true })
    t.is(await qemuCheck(device), '')
    t.like(await imageInfo(device), { format: 'qcow2', virtualSize: size })
    const content = Buffer.alloc(size)
    for (const cache of ['writeback', 'none'] as const) {
      const image = await openImage(device, { cache })
      t.deepEqual(await lockedBytes(device), [100, 101, 103, 201, 203])
      await t.throwsAsync(createImage(device, { size, overwrite: true }), { code: 'ERR_IMAGE_LOCKED' })
      for (let step = 0; step < 20; step++) {
        const offset = random.integer(size)
        const bytes = random.bytes(random.between(1, Math.min(100_000, size - offset)))
        await image.write(bytes, offset)
        content.set(bytes, offset)
      }
      await image.writeZeroes({ offset: mebibyte, length: 300_000, unmap: true })
      content.fill(0, mebibyte, mebibyte + 300_000)
      await image.discard({ offset: 2 * mebibyte, length: 2 * mebibyte })
      content.fill(0, 2 * mebibyte, 4 * mebibyte)
      await image.close()
      t.is(await qemuCheck(device), '')
      t.true((await qemuRead(device, 'qcow2', join(folder, 'read'))).equals(content))
    }
    await resizeImage(device, size / 2 - 256, { shrink: true })
    await resizeImage(device, size)
    content.fill(0, size / 2 - 256)
    t.is(await qemuCheck(device), '')
    t.true(
      (await qemuRead(device, 'qcow2', join(folder, 'read'))).equals(content),
      'what was cut off does not come back',
    )
    t.like(await checkImage(device, { repair: 'all' }), { corruptions: 0, leaks: 0 })
  })
}

testOnDevice('what the stock tools wrote on a device is read and written', async (t) => {
  const device = await makeDevice(t, deviceBytes)
  const folder = await makeFolder(t, { fast: true })
  await qemuImg('create', '-q', '-f', 'qcow2', device, '64M')
  await qemuIo(device, ['write -q -P 1 0 1M', 'write -q -P 2 40M 100k'])
  const image = await openImage(device)
  await image.write(new Uint8Array(100).fill(3), 500_000)
  await image.snapshots.create('one')
  await image.write(new Uint8Array(100).fill(4), 500_000)
  await image.snapshots.apply('one')
  t.is((await image.read({ offset: 500_050, length: 1 }))[0], 3)
  await image.snapshots.delete('one')
  await image.close()
  t.is(await qemuCheck(device), '')
  await convertImage(device, join(folder, 'copy'), { format: 'qcow2' })
  t.true((await compareImages(device, join(folder, 'copy'))).identical)
  await qemuImg('compare', device, join(folder, 'copy'))
})

testOnDevice('at the end of a device there is no space, nothing is lost, and nothing leaks', async (t) => {
  for (const clusterSize of [512, 65536]) {
    const device = await makeDevice(t, 2 * mebibyte + 4096)
    await createImage(device, { size: 64 * mebibyte, clusterSize, overwrite: true })
    const image = await openImage(device)
    const piece = 65536
    let written = 0
    await t.throwsAsync(
      async () => {
        for (; ; written++) await image.write(new Uint8Array(piece).fill(written + 1), written * piece)
      },
      { code: 'ERR_NO_SPACE' },
    )
    t.true(written > 20, String(written))
    await image.discard({ offset: 0, length: piece })
    await image.close()
    t.is(await qemuCheck(device), '')
    const again = await openImage(device)
    await again.write(new Uint8Array(piece / 2).fill(0xee), 0)
    for (let index = 1; index < written; index++)
      t.is((await again.read({ offset: index * piece, length: 1 }))[0], index + 1)
    await again.close()
    t.is(await qemuCheck(device), '')
    await t.throwsAsync(
      createImage(device, { size: 64 * mebibyte, preallocation: 'full', overwrite: true }),
      {
        code: 'ERR_NO_SPACE',
      },
    )
    await t.throwsAsync(
      createImage(device, {
        size: 2 ** 40,
        clusterSize: 512 * 128,
        preallocation: 'metadata',
        overwrite: true,
      }),
      { code: 'ERR_NO_SPACE' },
    )
  }
})

testOnDevice('a disk is converted onto a device and from one', async (t) => {
  const device = await makeDevice(t, deviceBytes)
  const folder = await makeFolder(t, { fast: true })
  const source = join(folder, 'source')
  const random = new SeededRandom(seedOfRun())
  const content = Buffer.concat([
    random.bytes(mebibyte),
    Buffer.alloc(mebibyte),
    random.bytes(mebibyte + 512),
  ])
  await writeFile(source, content)
  await t.throwsAsync(convertImage(source, device, { sourceFormat: 'raw', format: 'qcow2' }), {
    code: 'ERR_EXISTS',
  })
  const common = { sourceFormat: 'raw', overwrite: true } as const
  for (const compress of [false, true]) {
    await convertImage(source, device, { ...common, format: 'qcow2', compress })
    t.is(await qemuCheck(device), '')
    t.true((await qemuRead(device, 'qcow2', join(folder, 'read'))).equals(content))
  }
  await convertImage(source, device, { ...common, format: 'raw' })
  const bytes = await readFile(device)
  t.is(bytes.length, deviceBytes)
  t.true(
    bytes.subarray(0, content.length).equals(content),
    'holes of the source are zeros on a device that held something',
  )
  await convertImage(device, join(folder, 'back'), { sourceFormat: 'raw', format: 'qcow2' })
  t.is((await imageInfo(join(folder, 'back'))).virtualSize, deviceBytes)
  await writeFile(source, new Uint8Array(deviceBytes + 512))
  await t.throwsAsync(convertImage(source, device, { ...common, format: 'raw' }), { code: 'ERR_NO_SPACE' })
})

testOnDevice('a raw device keeps its length', async (t) => {
  const device = await makeDevice(t, deviceBytes)
  await createImage(device, { size: deviceBytes / 2, format: 'raw', overwrite: true })
  t.like(await imageInfo(device, { format: 'raw' }), { virtualSize: deviceBytes })
  const file = await open(device)
  const start = Buffer.alloc(1024)
  await file.read(start, 0, 1024, 0)
  await file.close()
  t.deepEqual(
    [start[0], start[511], start[512]],
    [0, 0, 0xff],
    'as the stock tool: the first sector is cleared',
  )
  await t.throwsAsync(createImage(device, { size: deviceBytes + 512, format: 'raw', overwrite: true }), {
    code: 'ERR_NO_SPACE',
  })
  for (const size of [deviceBytes / 2, 2 * deviceBytes]) {
    await t.throwsAsync(resizeImage(device, size, { format: 'raw', shrink: true }), {
      code: 'ERR_NOT_SUPPORTED',
    })
  }
  await resizeImage(device, deviceBytes, { format: 'raw' })
  const theirs = await run('qemu-img', ['resize', '-f', 'raw', device, '128M'])
  t.regex(theirs.stderr, /Cannot resize device files/)
  const image = await openImage(device, { format: 'raw' })
  await image.write(Uint8Array.of(7), deviceBytes - 1)
  await image.writeZeroes({ offset: 1000, length: 100_000, unmap: true })
  await image.discard({ offset: 8192, length: 4096 })
  t.deepEqual([...(await image.read({ offset: 999, length: 2 }))], [0xff, 0])
  await t.throwsAsync(image.write(Uint8Array.of(1), deviceBytes), { code: 'ERR_OUT_OF_RANGE' })
  await image.close()
})

testOnDevice('refcounts are built anew on a device, behind all that is in use', async (t) => {
  const device = await makeDevice(t, deviceBytes)
  const folder = await makeFolder(t, { fast: true })
  const content = Buffer.from(new SeededRandom(seedOfRun()).bytes(mebibyte))
  await createImage(device, { size: mebibyte, overwrite: true })
  const image = await openImage(device)
  await image.write(content, 0)
  await image.close()
  const file = await open(device, 'r+')
  // The count of the first data cluster, in the refcount block that is cluster 2: as if nobody had ever taken it.
  await file.write(new Uint8Array(2), 0, 2, 2 * 65536 + 5 * 2)
  await file.sync()
  await file.close()
  t.like(await checkImage(device), { needsRebuild: true })
  t.like(await checkImage(device, { repair: 'all' }), { corruptions: 0, leaks: 0, needsRebuild: false })
  t.is(await qemuCheck(device), '')
  await amendImage(device, { refcountBits: 64 })
  t.is(await qemuCheck(device), '')
  t.true((await qemuRead(device, 'qcow2', join(folder, 'read'))).equals(content))
})

testOnDevice(
  'an image on a device is compacted, and what the device then holds behind it is given back',
  async (t) => {
    const device = await makeDevice(t, deviceBytes, { punches: true })
    await createImage(device, { size: 8 * mebibyte, overwrite: true })
    const image = await openImage(device)
    for (let at = 0; at < 8; at++) await image.write(new Uint8Array(mebibyte).fill(1 + at), at * mebibyte)
    await image.discard({ offset: 0, length: 4 * mebibyte })
    await image.close()
    const { moved, lengthBefore, lengthAfter } = await compactImage(device)
    t.is(moved, 4 * mebibyte)
    t.deepEqual([lengthBefore, lengthAfter], [deviceBytes, deviceBytes])
    t.is(await qemuCheck(device), '')
    for (let at = 4; at < 8; at++) await qemuIo(device, [`read -P ${1 + at} ${at}M 1M`])
    const bytes = await readFile(device)
    t.true(bytes.subarray(5 * mebibyte).every((byte) => byte === 0))
  },
)
