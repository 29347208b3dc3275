import { execFileSync } from 'node:child_process'
import { link, mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { Qcow2Error } from '../../lib/base/errors.js'
import { defaultCache } from '../../lib/image/cache-modes.js'
import { couldNotOpen, identifyFile, openFile } from '../../lib/image/image-file.js'
import { makeFolder } from '../support/temp-folder.js'

test('all names of a file are one file, and other files are others', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'a')
  await writeFile(path, 'x')
  await link(path, join(folder, 'hard'))
  await symlink('a', join(folder, 'soft'))
  await writeFile(join(folder, 'b'), 'x')
  const identity = await identifyFile(path)
  t.is(await identifyFile(join(folder, 'hard')), identity)
  t.is(await identifyFile(join(folder, 'soft')), identity)
  t.not(await identifyFile(join(folder, 'b')), identity)
})

test('what is no file that an image can be in is refused at once', async (t) => {
  const folder = await makeFolder(t)
  await mkdir(join(folder, 'dir'))
  execFileSync('mkfifo', [join(folder, 'pipe')])
  await symlink('round', join(folder, 'round'))
  const cases: [string, string, RegExp][] = [
    ['dir', 'ERR_IS_A_DIRECTORY', /Could not open '.*dir': Is a directory/],
    ['missing', 'ERR_NOT_FOUND', /Could not open '.*missing': No such file or directory/],
    ['missing/below', 'ERR_NOT_FOUND', /Could not open '.*below': No such file or directory/],
    ['pipe', 'ERR_NOT_SUPPORTED', /Could not open '.*pipe': Not a regular file or block device/],
    ['round', 'ERR_IO', /Could not open '.*round': Too many symbolic links encountered/],
  ]
  for (const [name, code, message] of cases) {
    await t.throwsAsync(identifyFile(join(folder, name)), { instanceOf: Qcow2Error, code, message }, name)
  }
})

test('a missing file is told of in the words of qemu-img', async (t) => {
  const path = join(await makeFolder(t), 'missing')
  const error = await t.throwsAsync(openFile(path, { readOnly: true, cache: defaultCache }), {
    code: 'ERR_NOT_FOUND',
    message: `Could not open '${path}': No such file or directory`,
  })
  t.is((error as Qcow2Error | undefined)?.path, path)
})

test('failures that say more by themselves pass as they are', (t) => {
  const error = new Qcow2Error('ERR_IO', 'EIO: i/o error, read', { path: 'a', errno: 5 })
  t.is(couldNotOpen(error), error)
  const other = new Error('other')
  t.is(couldNotOpen(other), other)
})

test('a name that could do something to a terminal is told harmlessly', async (t) => {
  const path = join(await makeFolder(t), 'a\u001b[2Jb')
  await t.throwsAsync(identifyFile(path), {
    code: 'ERR_NOT_FOUND',
    message: /a\\u\{1b\}\[2Jb': No such file/,
  })
})
