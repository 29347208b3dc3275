import { chmod, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { openImage, Qcow2Error } from '../../lib/index.js'
import { writeTarget } from '../../lib/image/atomic-target.js'
import { makeFolder } from '../support/temp-folder.js'

const options = { overwrite: false, locking: true, signal: undefined }

test('a file appears complete under its name, and nothing else stays', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk')
  const result = await writeTarget(path, options, async (temporary) => {
    t.is((await readdir(folder)).length, 1)
    t.not(temporary, path)
    await writeFile(temporary, 'complete')
    await t.throwsAsync(readFile(path), { code: 'ENOENT' })
    return 7
  })
  t.is(result, 7)
  t.is(await readFile(path, 'utf8'), 'complete')
  t.deepEqual(await readdir(folder), ['disk'])
})

test('a file that exists is replaced only if that is meant', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk')
  await writeFile(path, 'old')
  await chmod(path, 0o600)
  await t.throwsAsync(
    writeTarget(path, options, () => Promise.reject(new Error('must not be asked'))),
    { code: 'ERR_EXISTS', message: /disk': it exists; pass overwrite: true/ },
  )
  await writeTarget(path, { ...options, overwrite: true }, (temporary) => writeFile(temporary, 'new'))
  t.is(await readFile(path, 'utf8'), 'new')
  t.is((await stat(path)).mode & 0o777, 0o600, 'who may read it does not change')
})

test('a file that appears meanwhile is not replaced', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk')
  const written = writeTarget(path, options, async () => writeFile(path, 'somebody else'))
  await t.throwsAsync(written, { code: 'ERR_EXISTS' })
  t.is(await readFile(path, 'utf8'), 'somebody else')
  t.deepEqual(await readdir(folder), ['disk'])
})

test('what fails or is aborted leaves things as they were', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk')
  await writeFile(path, 'old')
  const failing = writeTarget(path, { ...options, overwrite: true }, () =>
    Promise.reject(new Error('broken')),
  )
  await t.throwsAsync(failing, { message: 'broken' })
  const controller = new AbortController()
  const aborted = writeTarget(
    path,
    { ...options, overwrite: true, signal: controller.signal },
    async (temporary) => {
      await writeFile(temporary, 'new')
      controller.abort(new Error('enough'))
    },
  )
  await t.throwsAsync(aborted, { message: 'enough' })
  t.is(await readFile(path, 'utf8'), 'old')
  t.deepEqual(await readdir(folder), ['disk'])
})

test('a failure is told of the file that was asked for, not of the temporary one', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  const cause = (temporary: string): Qcow2Error =>
    new Qcow2Error('ERR_NO_SPACE', `no space left, write '${temporary}'`, { path: temporary, errno: 28 })
  const failing = writeTarget(path, options, (temporary) => Promise.reject(cause(temporary)))
  const error = await t.throwsAsync(failing, {
    code: 'ERR_NO_SPACE',
    message: `no space left, write '${path}'`,
  })
  t.like(error, { path, errno: 28 })
  const other = new Qcow2Error('ERR_IO', 'the source', { path: '/source' })
  await t.throwsAsync(
    writeTarget(path, options, () => Promise.reject(other)),
    { is: other },
  )
})

test('a link is written through, not replaced', async (t) => {
  const folder = await makeFolder(t)
  await mkdir(join(folder, 'store'))
  await writeFile(join(folder, 'store/disk'), 'old')
  await symlink('store/disk', join(folder, 'link'))
  await writeTarget(join(folder, 'link'), { ...options, overwrite: true }, (temporary) =>
    writeFile(temporary, 'new'),
  )
  t.is(await readFile(join(folder, 'store/disk'), 'utf8'), 'new')
  t.deepEqual(await readdir(join(folder, 'store')), ['disk'])
  await symlink('store/new', join(folder, 'dangling'))
  await writeTarget(join(folder, 'dangling'), options, (temporary) => writeFile(temporary, 'first'))
  t.is(await readFile(join(folder, 'store/new'), 'utf8'), 'first')
})

test('a file in use is not replaced', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  await writeFile(path, new Uint8Array(512))
  const image = await openImage(path, { format: 'raw' })
  const replaced = writeTarget(path, { ...options, overwrite: true }, (temporary) =>
    writeFile(temporary, 'new'),
  )
  await t.throwsAsync(replaced, { code: 'ERR_IMAGE_LOCKED' })
  const link = `${path}-link`
  await symlink(path, link)
  const behindLink = writeTarget(link, { ...options, overwrite: true }, () => Promise.resolve())
  await t.throwsAsync(behindLink, { message: /image \[.*disk-link\]\?$/ })
  await image.close()
})

test('folders, and folders that are missing, are told of', async (t) => {
  const folder = await makeFolder(t)
  const write = (temporary: string): Promise<void> => writeFile(temporary, 'new')
  await t.throwsAsync(writeTarget(folder, { ...options, overwrite: true }, write), {
    code: 'ERR_IS_A_DIRECTORY',
  })
  await t.throwsAsync(writeTarget(join(folder, 'missing/disk'), options, write), {
    code: 'ERR_NOT_FOUND',
    message: /Could not create '.*missing\/disk': No such file or directory/,
  })
})

test('a name as long as a name can be has room for a temporary one', async (t) => {
  const folder = await makeFolder(t)
  for (const name of ['x'.repeat(255), `${'é'.repeat(127)}x`]) {
    await writeTarget(join(folder, name), options, (temporary) => writeFile(temporary, 'new'))
    t.is(await readFile(join(folder, name), 'utf8'), 'new')
  }
})
