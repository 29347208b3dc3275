import { join } from 'node:path'
import test from 'ava'
import { checkLocation, nameOf } from '../../lib/image/location.js'
import { checkImage, convertImage, createImage, imageInfo, MemoryFile, openImage } from '../../lib/index.js'
import { makeFolder } from '../support/temp-folder.js'

const size = 2 ** 20

test('an image is where a path leads, or in memory, and nowhere else', async (t) => {
  const file = new MemoryFile('here')
  t.is(checkLocation('f', file), file)
  t.is(nameOf(file), 'here')
  t.is(nameOf(checkLocation('f', 'there')), 'there')
  for (const wrong of [undefined, null, 1, '', {}, new Uint8Array(1)]) {
    t.throws(() => checkLocation('f', wrong), { code: 'ERR_INVALID_OPTION' })
    await t.throwsAsync(openImage(wrong as string), { code: 'ERR_INVALID_OPTION' })
    await t.throwsAsync(createImage(wrong as string, { size }), { code: 'ERR_INVALID_OPTION' })
  }
})

test('what is wrong with an image in memory is told by its name', async (t) => {
  const file = MemoryFile.from(new TextEncoder().encode('QFI\xfb'), 'upload 7')
  await t.throwsAsync(openImage(new MemoryFile('upload 6'), { format: 'qcow2' }), { message: /'upload 6'/ })
  await t.throwsAsync(openImage(file, { format: 'qcow2' }), { message: /'upload 7'/ })
  await t.throwsAsync(checkImage(file, { format: 'qcow2' }), { message: /'upload 7'/ })
  await t.throwsAsync(imageInfo(file, { format: 'qcow2' }), { message: /'upload 7'/ })
})

test('an image in memory is used by one writer, or by several readers', async (t) => {
  const file = new MemoryFile()
  await createImage(file, { size })
  const writer = await openImage(file)
  await t.throwsAsync(openImage(file), { code: 'ERR_IMAGE_LOCKED' })
  await t.throwsAsync(openImage(file, { readOnly: true }), { code: 'ERR_IMAGE_LOCKED' })
  await (await openImage(file, { readOnly: true, forceShare: true })).close()
  await writer.close()
  const readers = [await openImage(file, { readOnly: true }), await openImage(file, { readOnly: true })]
  await t.throwsAsync(openImage(file), { code: 'ERR_IMAGE_LOCKED' })
  await t.throwsAsync(convertImage(file, file, { format: 'raw', overwrite: true }), {
    code: 'ERR_IMAGE_LOCKED',
  })
  for (const reader of readers) await reader.close()
  await (await openImage(file)).close()
})

test('beside an image in memory there is nothing', async (t) => {
  const folder = await makeFolder(t)
  const base = join(folder, 'base')
  await createImage(base, { size })
  const inFile = await openImage(base)
  await inFile.write(Uint8Array.of(7), 0)
  await inFile.close()
  const backing = { backingFormat: 'qcow2', size } as const
  const [relative, absolute] = [new MemoryFile(), new MemoryFile()]
  await t.throwsAsync(createImage(relative, { ...backing, backingFile: 'base' }), {
    code: 'ERR_NOT_SUPPORTED',
  })
  await createImage(relative, { ...backing, backingFile: 'base', unsafe: true })
  await createImage(absolute, { ...backing, backingFile: base })
  for (const file of [relative, absolute]) {
    await t.throwsAsync(openImage(file), { code: 'ERR_BACKING_DENIED', message: /in memory/ })
    await t.throwsAsync(openImage(file, { backing: 'deny' }), { code: 'ERR_BACKING_DENIED' })
    t.is((await imageInfo(file)).fullBackingFile, undefined)
  }
  await t.throwsAsync(openImage(relative, { backing: 'allow' }), { code: 'ERR_BACKING_DENIED' })
  for (const [file, gate] of [
    [absolute, 'allow'],
    [relative, () => base],
  ] as const) {
    const image = await openImage(file, { backing: gate })
    t.is((await image.read({ offset: 0, length: 1 }))[0], 7)
    await t.throwsAsync(image.createOverlay(join(folder, 'overlay')), { code: 'ERR_NOT_SUPPORTED' })
    await image.close()
  }
})

test('an image in memory has no external data file', async (t) => {
  const folder = await makeFolder(t)
  await t.throwsAsync(createImage(new MemoryFile(), { size, dataFile: join(folder, 'data') }), {
    code: 'ERR_NOT_SUPPORTED',
  })
  const path = join(folder, 'disk')
  await createImage(path, { size, dataFile: 'data' })
  const { readFile } = await import('node:fs/promises')
  const file = MemoryFile.from(await readFile(path))
  for (const dataFile of ['same-directory', 'allow', () => join(folder, 'data')] as const) {
    await t.throwsAsync(openImage(file, { dataFile }), { code: 'ERR_DATA_FILE_DENIED', message: /in memory/ })
  }
})
