import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { createImage, type CreateOptions, imageInfo, openImage, type Progress } from '../../lib/index.js'
import { makeFolder } from '../support/temp-folder.js'

test('the defaults are those of qemu-img', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  t.deepEqual(await createImage(path, { size: 1000 }), { path, format: 'qcow2', size: 1024 })
  const info = await imageInfo(path)
  t.like(info, { format: 'qcow2', virtualSize: 1024, clusterSize: 65536 })
  t.like(info.qcow2, { compat: '1.1', refcountBits: 16, lazyRefcounts: false, compressionType: 'zlib' })
})

test('every option of the format arrives in the image', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk')
  const size = 1024 * 1024
  await createImage(path, {
    size,
    clusterSize: 4096,
    refcountBits: 1,
    lazyRefcounts: true,
    compressionType: 'zstd',
  })
  const info = await imageInfo(path)
  t.is(info.clusterSize, 4096)
  t.like(info.qcow2, { refcountBits: 1, lazyRefcounts: true, compressionType: 'zstd' })
  await createImage(join(folder, 'old'), { size, compat: '0.10' })
  t.is((await imageInfo(join(folder, 'old'))).qcow2?.compat, '0.10')
})

test('an existing file is not overwritten unless that is meant', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  await createImage(path, { size: 512, format: 'raw' })
  await t.throwsAsync(createImage(path, { size: 1024 }), { code: 'ERR_EXISTS' })
  t.is((await imageInfo(path)).format, 'raw')
  await createImage(path, { size: 1024, overwrite: true })
  t.is((await imageInfo(path)).format, 'qcow2')
})

test('the size can be that of the backing file', async (t) => {
  const folder = await makeFolder(t)
  await createImage(join(folder, 'base.raw'), { size: 5120, format: 'raw' })
  await createImage(join(folder, 'base.qcow2'), { size: 9728 })
  for (const [format, size] of [
    ['raw', 5120],
    ['qcow2', 9728],
  ] as const) {
    const path = join(folder, `over-${format}`)
    const created = await createImage(path, { backingFile: `base.${format}`, backingFormat: format })
    t.is(created.size, size)
    t.like(await imageInfo(path), { backingFile: `base.${format}`, backingFormat: format, virtualSize: size })
  }
  const path = join(folder, 'larger')
  await createImage(path, { size: 1024 * 1024, backingFile: 'base.raw', backingFormat: 'raw' })
  t.is((await imageInfo(path)).virtualSize, 1024 * 1024)
})

test('a backing file must be there, as it is said to be, unless nobody is to look', async (t) => {
  const folder = await makeFolder(t)
  await createImage(join(folder, 'base.raw'), { size: 5120, format: 'raw' })
  const path = join(folder, 'disk')
  const create = (options: CreateOptions) => createImage(path, options)
  await t.throwsAsync(create({ backingFile: 'missing', backingFormat: 'raw' }), { code: 'ERR_NOT_FOUND' })
  await t.throwsAsync(create({ backingFile: 'base.raw', backingFormat: 'qcow2' }), {
    code: 'ERR_NOT_AN_IMAGE',
  })
  await t.throwsAsync(create({ backingFile: 'base.raw' }), {
    code: 'ERR_INVALID_OPTION',
    message: /backingFormat/,
  })
  await t.throwsAsync(create({ backingFile: 'disk', backingFormat: 'qcow2' }), { code: 'ERR_INVALID_OPTION' })
  await t.throwsAsync(create({ backingFile: 'missing', backingFormat: 'raw', unsafe: true }), {
    code: 'ERR_INVALID_OPTION',
    message: /"size" is required/,
  })
  t.deepEqual(await readdir(folder), ['base.raw'])
  await create({ backingFile: 'missing', backingFormat: 'raw', unsafe: true, size: 512 })
})

test('options that do not go together are refused before a file is touched', async (t) => {
  const folder = await makeFolder(t)
  const cases: [object, string][] = [
    [{}, 'ERR_INVALID_OPTION'],
    [{ size: -512 }, 'ERR_OUT_OF_RANGE'],
    [{ size: 2 ** 60 }, 'ERR_OUT_OF_RANGE'],
    [{ size: 512, clusterSize: 1000 }, 'ERR_OUT_OF_RANGE'],
    [{ size: 2 ** 52, clusterSize: 512 }, 'ERR_OUT_OF_RANGE'],
    [{ size: 512, compat: '0.10', refcountBits: 8 }, 'ERR_INVALID_OPTION'],
    [{ size: 512, compat: '0.10', lazyRefcounts: true }, 'ERR_INVALID_OPTION'],
    [{ size: 512, format: 'raw', clusterSize: 4096 }, 'ERR_INVALID_OPTION'],
    [{ size: 512, format: 'raw', preallocation: 'metadata' }, 'ERR_INVALID_OPTION'],
    [{ size: 512, backingFormat: 'raw' }, 'ERR_INVALID_OPTION'],
    [
      { size: 512, preallocation: 'full', backingFile: 'x', backingFormat: 'raw', unsafe: true },
      'ERR_INVALID_OPTION',
    ],
    [{ size: 512, extendedL2: true, compat: '0.10' }, 'ERR_INVALID_OPTION'],
    [{ size: 512, extendedL2: true, clusterSize: 8192 }, 'ERR_INVALID_OPTION'],
    [{ size: 512, dataFile: 'x', compat: '0.10' }, 'ERR_INVALID_OPTION'],
    [{ size: 512, dataFileRaw: true }, 'ERR_INVALID_OPTION'],
    [{ size: 512, dataFile: 'nbd://host' }, 'ERR_INVALID_OPTION'],
    [{ size: 512, encrypt: {} }, 'ERR_INVALID_OPTION'],
    [{ size: 512, encrypt: 'a passphrase' }, 'ERR_INVALID_OPTION'],
    [{ size: 512, encrypt: { format: 'luks' } }, 'ERR_INVALID_OPTION'],
    [{ size: 512, clustersize: 4096 }, 'ERR_INVALID_OPTION'],
  ]
  for (const [options, code] of cases) {
    const created = createImage(join(folder, 'disk'), options)
    await t.throwsAsync(created, { code }, JSON.stringify(options))
  }
  t.deepEqual(await readdir(folder), [])
})

for (const format of ['qcow2', 'raw'] as const) {
  test(`preallocation takes the space of a ${format} image on the host, and reports progress`, async (t) => {
    const path = join(await makeFolder(t), 'disk')
    const size = 20 * 1024 * 1024
    for (const preallocation of ['off', 'falloc', 'full'] as const) {
      const reports: Progress[] = []
      await createImage(path, {
        size,
        format,
        preallocation,
        overwrite: true,
        onProgress: (report) => reports.push(report),
      })
      const { blocks } = await stat(path)
      t.is(blocks * 512 >= size, preallocation !== 'off', preallocation)
      if (preallocation !== 'off')
        t.like(reports.at(-1), { phase: 'create', bytesDone: size, bytesTotal: size })
      const image = await openImage(path, { format })
      t.deepEqual(await image.read({ offset: size - 3, length: 3 }), new Uint8Array(3))
      await image.close()
    }
  })

  test(`aborting the creation of a ${format} image leaves nothing behind`, async (t) => {
    const folder = await makeFolder(t)
    const controller = new AbortController()
    const created = createImage(join(folder, 'disk'), {
      size: 512 * 1024 * 1024,
      format,
      preallocation: 'falloc',
      signal: controller.signal,
      onProgress: ({ bytesDone }) => bytesDone > 0 && controller.abort(new Error('enough')),
    })
    await t.throwsAsync(created, { message: 'enough' })
    t.deepEqual(await readdir(folder), [])
  })
}

test('an empty image is to the byte what the layout says', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  await createImage(path, { size: 64 * 1024 * 1024 })
  const bytes = await readFile(path)
  t.is(bytes.length, 196616)
  t.is(bytes.toString('latin1', 0, 4), 'QFI\xfb')
})
