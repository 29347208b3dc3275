import { join } from 'node:path'
import test from 'ava'
import { createImage, type DirtyRange, openImage } from '../../lib/index.js'
import { makeFolder } from '../support/temp-folder.js'

async function all(ranges: AsyncIterable<DirtyRange>): Promise<DirtyRange[]> {
  const found: DirtyRange[] = []
  for await (const range of ranges) found.push(range)
  return found
}

test('an incremental backup copies what has changed since the last one', async (t) => {
  const folder = await makeFolder(t)
  const [path, backup] = [join(folder, 'disk.qcow2'), new Uint8Array(2 ** 20)]
  await createImage(path, { size: 2 ** 20 })
  await using image = await openImage(path)
  await image.bitmaps.add('monday', { granularity: 4096 })
  await image.write(new Uint8Array(5000).fill(1), 100_000)
  await image.bitmaps.add('tuesday', { granularity: 4096 })
  await image.bitmaps.disable('monday')
  await image.write(new Uint8Array(10).fill(2), 500_000)
  for await (const { offset, length } of image.bitmaps.ranges('monday'))
    backup.set(await image.read({ offset, length }), offset)
  t.is(backup[104_999], 1)
  t.is(backup[500_000], 0)
  for await (const { offset, length } of image.bitmaps.ranges('tuesday'))
    backup.set(await image.read({ offset, length }), offset)
  t.deepEqual(backup, await image.read({ offset: 0, length: 2 ** 20 }))
})

test('bitmaps of another image are merged, if that is as large', async (t) => {
  const folder = await makeFolder(t)
  const paths = ['one', 'two', 'small'].map((name) => join(folder, name))
  for (const [index, path] of paths.entries())
    await createImage(path, { size: index === 2 ? 2 ** 19 : 2 ** 20 })
  const [one, two, small] = await Promise.all(paths.map((path) => openImage(path)))
  if (one === undefined || two === undefined || small === undefined) return
  for (const image of [one, two, small]) await image.bitmaps.add('x', { granularity: 512 })
  await one.write(new Uint8Array(1), 1000)
  await two.bitmaps.merge('x', [{ image: one, name: 'x' }])
  t.deepEqual(await all(two.bitmaps.ranges('x')), [{ offset: 512, length: 512 }])
  await t.throwsAsync(small.bitmaps.merge('x', [{ image: one, name: 'x' }]), { message: /different sizes/ })
  for (const image of [one, two, small]) await image.close()
})

test('misuse is told, and a raw image has none', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk.raw')
  await createImage(path, { size: 2 ** 20, format: 'raw' })
  await using image = await openImage(path, { format: 'raw' })
  t.deepEqual(await image.bitmaps.list(), [])
  await t.throwsAsync(image.bitmaps.add('x'), { code: 'ERR_NOT_SUPPORTED' })
  await t.throwsAsync(image.bitmaps.add('x', { granularty: 512 } as object), {
    message: /did you mean "granularity"/,
  })
  await t.throwsAsync(image.bitmaps.add(7 as unknown as string), { code: 'ERR_INVALID_ARGUMENT' })
  await t.throwsAsync(image.bitmaps.merge('x', [{ name: 'y' } as never]), { code: 'ERR_INVALID_ARGUMENT' })
  await using reader = await openImage(path, { format: 'raw', readOnly: true, locking: 'off' })
  await t.throwsAsync(reader.bitmaps.clear('x'), { code: 'ERR_READ_ONLY' })
})

test('what stands under a new top keeps its bitmaps, stored', async (t) => {
  const folder = await makeFolder(t)
  const [base, top] = [join(folder, 'base.qcow2'), join(folder, 'top.qcow2')]
  await createImage(base, { size: 2 ** 20 })
  await using image = await openImage(base)
  await image.bitmaps.add('x')
  await image.write(new Uint8Array(1).fill(1), 0)
  await image.createOverlay(top)
  t.deepEqual(await image.bitmaps.list(), [])
  await image.write(new Uint8Array(1).fill(1), 2 ** 19)
  await using below = await openImage(base, { readOnly: true })
  const [found] = await below.bitmaps.list()
  t.is(found?.inconsistent, false)
  t.deepEqual(await all(below.bitmaps.ranges('x')), [{ offset: 0, length: 65536 }])
})
