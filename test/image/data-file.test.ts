import {
  link,
  mkdir,
  readFile,
  rename as moveFile,
  stat,
  symlink,
  truncate,
  unlink,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { amendImage, checkImage, commitImage, createImage, imageInfo, openImage } from '../../lib/index.js'
import { lockedBytes } from '../support/lock-bytes.js'
import { makeFolder } from '../support/temp-folder.js'

const size = 2 ** 20
const denied = { code: 'ERR_DATA_FILE_DENIED' } as const

async function newImage(
  t: ExecutionContext,
  dataFile = 'data.raw',
): Promise<{ folder: string; path: string; data: string }> {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk.qcow2')
  await createImage(path, { size, dataFile })
  return { folder, path, data: join(folder, 'data.raw') }
}

/** Let the image name another data file, of as many bytes. */
async function rename(path: string, from: string, to: string): Promise<void> {
  const bytes = await readFile(path)
  const at = bytes.indexOf(from)
  bytes.write(to.padEnd(from.length, '\0'), at, 'latin1')
  await writeFile(path, bytes)
}

test('nobody opens a data file unasked; info and check need none', async (t) => {
  const { path, data } = await newImage(t)
  await t.throwsAsync(openImage(path), denied)
  await unlink(data)
  t.is((await imageInfo(path)).qcow2?.dataFile, 'data.raw')
  t.like(await checkImage(path), { corruptions: 0 })
  await t.throwsAsync(openImage(path, { dataFile: 'allow' }), { code: 'ERR_NOT_FOUND' })
  await mkdir(data)
  await t.throwsAsync(openImage(path, { dataFile: 'allow' }), { code: 'ERR_IS_A_DIRECTORY' })
})

test('written, synced and closed, all of it is in the data file', async (t) => {
  const { path, data } = await newImage(t)
  for (const cache of ['writeback', 'writethrough', 'unsafe'] as const) {
    const image = await openImage(path, { dataFile: 'same-directory', cache })
    await image.write(new Uint8Array(5000).fill(7), 100)
    await image.flush()
    const { syncsIssued } = image.stats()
    t.is(syncsIssued > 0, cache !== 'unsafe')
    await image.close()
  }
  const bytes = await readFile(data)
  t.is(bytes.length, size)
  t.deepEqual(new Uint8Array(bytes.subarray(0, 5200)), new Uint8Array(5200).fill(7, 100, 5100))
  await truncate(data, 2000)
  const image = await openImage(path, { dataFile: (reference) => reference.name, readOnly: true })
  t.deepEqual(await image.read({ offset: 1000, length: 3000 }), new Uint8Array(3000).fill(7, 0, 1000))
  await image.close()
})

test('only what has changed is synced, of real files too', async (t) => {
  const { path } = await newImage(t)
  await using image = await openImage(path, {
    dataFile: 'allow',
    cache: { direct: false, sync: 'flush', reservation: 0 },
  })
  await image.write(new Uint8Array(65536).fill(1), 0)
  await image.flush()
  const syncs = async (change: () => Promise<void>): Promise<number> => {
    const before = image.stats().syncsIssued
    await change()
    await image.flush()
    return image.stats().syncsIssued - before
  }
  t.is(await syncs(() => image.write(new Uint8Array(65536).fill(2), 65536)), 2, 'data, mapping')
  t.is(await syncs(() => image.write(new Uint8Array(65536).fill(3), 0)), 1, 'data')
  t.is(await syncs(() => image.writeZeroes({ offset: 0, length: 65536 })), 1, 'a flag')
  t.is(await syncs(() => Promise.resolve()), 0)
})

test('a file of the chain is no data file, whatever it is called', async (t) => {
  const { folder, path, data } = await newImage(t)
  const open = (): Promise<unknown> =>
    openImage(path, { dataFile: 'allow', backing: 'allow', readOnly: true })
  const loop = { ...denied, message: /is the image itself, or another file of its chain/ }
  await unlink(data)
  await symlink('disk.qcow2', data)
  await t.throwsAsync(open(), loop)
  await unlink(data)
  await link(path, data)
  await t.throwsAsync(open(), loop)
  await unlink(data)
  const base = join(folder, 'base.raw')
  await createImage(base, { size, format: 'raw' })
  const overlay = join(folder, 'over.qcow2')
  await createImage(overlay, { backingFile: 'base.raw', backingFormat: 'raw', dataFile: 'data.raw' })
  await unlink(data)
  await link(base, data)
  await t.throwsAsync(openImage(overlay, { dataFile: 'allow', readOnly: true }), loop)
})

test('names that point elsewhere open nothing', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk.qcow2')
  await symlink('/dev/null', join(folder, 'link.data'))
  for (const name of ['nbd://a/b', 'json:{}  ', 'link.data', '/dev/null']) {
    await createImage(path, { size, dataFile: 'data1.raw', overwrite: true })
    await rename(path, 'data1.raw', name)
    await t.throwsAsync(openImage(path, { dataFile: 'same-directory' }), denied, name)
  }
})

test("the data file is locked as QEMU's tools lock one", async (t) => {
  const { path, data } = await newImage(t)
  const image = await openImage(path, { dataFile: 'allow' })
  t.deepEqual(await lockedBytes(data), [100, 101, 103, 203])
  await t.throwsAsync(openImage(path, { dataFile: 'allow', readOnly: true }), { code: 'ERR_IMAGE_LOCKED' })
  await image.close()
  t.deepEqual(await lockedBytes(data), [])
  const reader = await openImage(path, { dataFile: 'allow', readOnly: true })
  t.deepEqual(await lockedBytes(data), [100, 203])
  await reader.close()
})

test('an overlay freezes the data file with its image', async (t) => {
  const { folder, path, data } = await newImage(t)
  const image = await openImage(path, { dataFile: 'allow' })
  await image.write(new Uint8Array(100).fill(1), 0)
  await image.createOverlay(join(folder, 'top.qcow2'))
  t.deepEqual(await lockedBytes(data), [100, 203])
  const before = await readFile(data)
  await image.write(new Uint8Array(100).fill(2), 50)
  t.deepEqual(
    await image.read({ offset: 0, length: 200 }),
    new Uint8Array(200).fill(1, 0, 50).fill(2, 50, 150),
  )
  await image.close()
  t.true(before.equals(await readFile(data)))
})

test('a commit goes into the data file of the base; that of what is emptied gives its bytes back', async (t) => {
  const { folder, path, data } = await newImage(t)
  const top = join(folder, 'top.qcow2')
  await createImage(top, { backingFile: 'disk.qcow2', backingFormat: 'qcow2', dataFile: 'top.raw' })
  const image = await openImage(top, { dataFile: 'same-directory' })
  await image.write(new Uint8Array(70000).fill(5), 1000)
  await image.close()
  const { emptied } = await commitImage(top, { dataFile: 'same-directory' })
  t.true(emptied)
  t.deepEqual(
    new Uint8Array((await readFile(data)).subarray(0, 72000)),
    new Uint8Array(72000).fill(5, 1000, 71000),
  )
  t.true((await stat(join(folder, 'top.raw'))).blocks <= 8)
  await using after = await openImage(top, { dataFile: 'allow', readOnly: true })
  t.deepEqual(await after.read({ offset: 0, length: 72000 }), new Uint8Array(72000).fill(5, 1000, 71000))
  t.deepEqual(await lockedBytes(path), [100, 201, 203])
})

test('amending the size of an image takes its data file along, and its name may become another', async (t) => {
  const { folder, path, data } = await newImage(t)
  await amendImage(path, { size: 2 * size, openDataFile: 'allow' })
  t.is((await stat(data)).size, 2 * size)
  t.like(await checkImage(path), { corruptions: 0, leaks: 0 })
  await t.throwsAsync(amendImage(path, { dataFile: 'other.raw' }), denied)
  {
    await using image = await openImage(path, { dataFile: 'allow' })
    await image.write(new Uint8Array(100).fill(5), 7)
  }
  const other = join(folder, 'other.raw')
  await amendImage(path, { dataFile: 'other.raw', openDataFile: 'allow' })
  await t.throwsAsync(openImage(path, { dataFile: 'allow' }), { code: 'ERR_NOT_FOUND' })
  await moveFile(data, other)
  {
    await using image = await openImage(path, { dataFile: 'same-directory', readOnly: true })
    t.deepEqual(await image.read({ offset: 7, length: 100 }), new Uint8Array(100).fill(5))
  }
  // Where it has been moved already, the caller says where it is.
  await moveFile(other, data)
  await amendImage(path, { dataFile: 'data.raw', openDataFile: () => data })
  t.is((await imageInfo(path)).qcow2?.dataFile, 'data.raw')
  await amendImage(path, { dataFile: '', openDataFile: 'allow' })
  await t.throwsAsync(openImage(path, { dataFile: 'allow' }), { ...denied, message: /does not name it/ })
  t.like(await checkImage(path), { corruptions: 0, leaks: 0 })
})

test('a raw data file ceases to be one where that is asked for, or where the image is encrypted', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk.qcow2')
  await createImage(path, { size, dataFile: 'data.raw', dataFileRaw: true })
  await amendImage(path, { dataFileRaw: true, openDataFile: 'allow' })
  t.true((await imageInfo(path)).qcow2?.dataFileRaw)
  await amendImage(path, { dataFileRaw: false, openDataFile: 'allow' })
  t.false((await imageInfo(path)).qcow2?.dataFileRaw)
  await t.throwsAsync(amendImage(path, { dataFileRaw: true, openDataFile: 'allow' }), {
    code: 'ERR_NOT_SUPPORTED',
    message: 'data-file-raw cannot be set on existing images',
  })
  const encrypted = join(folder, 'encrypted.qcow2')
  const encrypt = { format: 'luks', passphrase: 'abc', iterTime: 10 } as const
  await createImage(encrypted, { size, dataFile: 'cipher.raw', dataFileRaw: true, encrypt })
  t.true((await imageInfo(encrypted)).qcow2?.dataFileRaw, 'as the stock tool makes it')
  await using image = await openImage(encrypted, { dataFile: 'allow', encryption: { passphrase: 'abc' } })
  t.deepEqual(await image.read({ offset: 0, length: size }), new Uint8Array(size), 'zeros, and no noise')
  await image.write(new Uint8Array(100).fill(5), 7)
  t.false(
    (await imageInfo(encrypted, { forceShare: true })).qcow2?.dataFileRaw,
    'nobody reads the disk there',
  )
})
