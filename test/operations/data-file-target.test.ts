import { link, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import test from 'ava'
import { amendImage, convertImage, createImage, openImage } from '../../lib/index.js'
import { nameOf } from '../../lib/image/location.js'
import { checkFileNames, writeImageTarget } from '../../lib/operations/data-file-target.js'
import { makeFolder } from '../support/temp-folder.js'

const size = 2 ** 20

test('both files are there, or neither', async (t) => {
  const folder = await makeFolder(t)
  const options = { overwrite: false, locking: true, signal: undefined }
  const names = { dataFile: 'data', backingFile: undefined }
  const failing = writeImageTarget(join(folder, 'disk'), names, options, async (image, data) => {
    await writeFile(nameOf(image), 'image')
    await writeFile(data ?? '', 'data')
    throw new Error('no')
  })
  await t.throwsAsync(failing, { message: 'no' })
  t.deepEqual(await readdir(folder), [])
  await writeImageTarget(join(folder, 'disk'), names, options, async (image, data) => {
    await writeFile(nameOf(image), 'image')
    await writeFile(data ?? '', 'data')
  })
  t.deepEqual((await readdir(folder)).sort(), ['data', 'disk'])
  await t.throwsAsync(createImage(join(folder, 'new'), { size, dataFile: 'data' }), { code: 'ERR_EXISTS' })
  t.deepEqual(
    (await readdir(folder)).sort(),
    ['data', 'disk'],
    'a data file that is there is not given up for a new image',
  )
})

test('an image is not its own data file, nor is what it stands on', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk')
  await writeFile(join(folder, 'base'), '')
  await symlink('disk', join(folder, 'link'))
  await symlink('base', join(folder, 'base-link'))
  const check = (dataFile: string): Promise<void> =>
    checkFileNames('test', path, { dataFile, backingFile: 'base' })
  for (const name of [
    'disk',
    './disk',
    '',
    'json:{}',
    'nbd://x',
    'base',
    `../${basename(folder)}/disk`,
    'base-link',
  ])
    await t.throwsAsync(check(name), { instanceOf: TypeError, code: 'ERR_INVALID_OPTION' } as never, name)
  await writeFile(path, '')
  await t.throwsAsync(check('link'), { code: 'ERR_INVALID_OPTION' } as never)
  await link(path, join(folder, 'hard'))
  await t.notThrowsAsync(check('other'))
})

test('what would make an image its own backing file, or its own data file, is refused before anything is lost', async (t) => {
  const folder = await makeFolder(t)
  const at = (name: string): string => join(folder, name)
  await createImage(at('base'), { size })
  await createImage(at('top'), { backingFile: 'base', backingFormat: 'qcow2' })
  await createImage(at('disk'), { size, dataFile: 'data' })
  await symlink('base', at('base-link'))
  await symlink('disk', at('disk-link'))
  const before = await Promise.all(['base', 'disk'].map((name) => readFile(at(name))))
  const onItself = {
    backingFile: 'base-link',
    backingFormat: 'qcow2',
    overwrite: true,
    locking: 'off',
  } as const
  const refusal = { instanceOf: TypeError, code: 'ERR_INVALID_OPTION' } as never
  await t.throwsAsync(createImage(at('base'), onItself), refusal)
  await t.throwsAsync(convertImage(at('top'), at('base'), { ...onItself, format: 'qcow2' }), refusal)
  for (const dataFile of ['disk', at('disk-link')])
    await t.throwsAsync(amendImage(at('disk'), { dataFile, openDataFile: 'allow' }), refusal)
  t.deepEqual(await Promise.all(['base', 'disk'].map((name) => readFile(at(name)))), before)
})

test('a data file is as long as the disk from the beginning, and replaced only when that is asked for', async (t) => {
  const folder = await makeFolder(t)
  const data = join(folder, 'data')
  await writeFile(data, Buffer.alloc(3 * size, 1))
  await createImage(join(folder, 'disk'), { size: 1000, dataFile: 'data', overwrite: true })
  t.true((await readFile(data)).equals(Buffer.alloc(1024)))
})

test('converting into and from an image with a data file', async (t) => {
  const folder = await makeFolder(t)
  const at = (name: string): string => join(folder, name)
  const bytes = Buffer.alloc(size)
  bytes.fill(3, 70_000, 300_000)
  await writeFile(at('source'), bytes)
  for (const dataFileRaw of [false, true]) {
    const options = {
      format: 'qcow2',
      sourceFormat: 'raw',
      dataFile: 'data',
      dataFileRaw,
      overwrite: true,
    } as const
    await convertImage(at('source'), at('disk'), options)
    t.true((await readFile(at('data'))).equals(bytes), 'holes and all')
    t.true((await stat(at('data'))).blocks * 512 < size)
    await t.throwsAsync(convertImage(at('disk'), at('back'), { format: 'raw' }), {
      code: 'ERR_DATA_FILE_DENIED',
    })
    await convertImage(at('disk'), at('back'), {
      format: 'raw',
      sourceDataFile: 'same-directory',
      overwrite: true,
    })
    t.true((await readFile(at('back'))).equals(bytes))
  }
  const existing = { format: 'qcow2', sourceFormat: 'raw', existingTarget: true } as const
  await t.throwsAsync(convertImage(at('source'), at('disk'), existing), { code: 'ERR_DATA_FILE_DENIED' })
  await convertImage(at('source'), at('disk'), { ...existing, sourceDataFile: 'allow' })
  await t.throwsAsync(
    convertImage(at('source'), at('no'), {
      format: 'qcow2',
      dataFile: 'no.raw',
      compress: true,
      sourceFormat: 'raw',
    }),
    { code: 'ERR_NOT_SUPPORTED' },
  )
  await using image = await openImage(at('disk'), { dataFile: 'allow', readOnly: true })
  t.deepEqual(await image.read({ offset: 69_000, length: 2000 }), new Uint8Array(2000).fill(3, 1000))
})
