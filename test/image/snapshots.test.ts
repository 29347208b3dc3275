import { join } from 'node:path'
import test from 'ava'
import { convertImage, createImage, openImage } from '../../lib/index.js'
import { makeFolder } from '../support/temp-folder.js'

test('misuse is refused before anything is done', async (t) => {
  const path = join(await makeFolder(t), 'disk.qcow2')
  await createImage(path, { size: 2 ** 20 })
  const image = await openImage(path)
  const { snapshots } = image
  const misused = { code: 'ERR_INVALID_ARGUMENT' }
  await t.throwsAsync(snapshots.create(5 as unknown as string), misused)
  await t.throwsAsync(snapshots.create('a\0b'), misused)
  await t.throwsAsync(snapshots.create('ä'.repeat(128)), { code: 'ERR_OUT_OF_RANGE', message: /255 bytes/ })
  await t.throwsAsync(snapshots.create('x', { onProgres: 1 } as object), { code: 'ERR_INVALID_OPTION' })
  for (const reference of [undefined, {}, { id: 1 }, { name: 'x', frob: 1 }, 7]) {
    await t.throwsAsync(snapshots.apply(reference as string), misused)
    await t.throwsAsync(snapshots.delete(reference as string), misused)
  }
  await t.throwsAsync(snapshots.apply('x'), { code: 'ERR_SNAPSHOT_NOT_FOUND' })
  t.deepEqual(await snapshots.list(), [])
  await image.close()
  await t.throwsAsync(snapshots.list(), { code: 'ERR_CLOSED' })
  await t.throwsAsync(snapshots.create('x'), { code: 'ERR_CLOSED' })
})

test('a read-only image lists its snapshots and makes none; a raw one has none', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk.qcow2')
  await createImage(path, { size: 2 ** 20 })
  const image = await openImage(path)
  await image.snapshots.create('x'.repeat(255))
  await image.close()
  const reader = await openImage(path, { readOnly: true })
  t.is((await reader.snapshots.list())[0]?.name.length, 255)
  await t.throwsAsync(reader.snapshots.create('y'), { code: 'ERR_READ_ONLY' })
  await reader.close()

  const rawPath = join(folder, 'disk.raw')
  await createImage(rawPath, { size: 2 ** 20, format: 'raw' })
  const raw = await openImage(rawPath, { format: 'raw' })
  t.deepEqual(await raw.snapshots.list(), [])
  await t.throwsAsync(raw.snapshots.create('y'), { code: 'ERR_NOT_SUPPORTED', message: /raw/ })
  await raw.close()
  const noView = openImage(rawPath, { format: 'raw', readOnly: true, snapshot: 'x' })
  await t.throwsAsync(noView, { code: 'ERR_SNAPSHOT_NOT_FOUND' })
})

test('reading a snapshot needs readOnly, and one source', async (t) => {
  const path = join(await makeFolder(t), 'disk.qcow2')
  await createImage(path, { size: 2 ** 20 })
  const wrong = { code: 'ERR_INVALID_OPTION' }
  await t.throwsAsync(openImage(path, { snapshot: 'x' }), wrong)
  await t.throwsAsync(openImage(path, { readOnly: true, snapshot: {} }), wrong)
  await t.throwsAsync(convertImage([path, path], `${path}.2`, { format: 'raw', snapshot: 'x' }), wrong)
  const missing = convertImage(path, `${path}.2`, { format: 'raw', snapshot: 'x' })
  await t.throwsAsync(missing, { code: 'ERR_SNAPSHOT_NOT_FOUND' })
})
