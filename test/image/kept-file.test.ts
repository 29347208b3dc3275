import { readdir, readFile, rename, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { keepFile } from '../../lib/image/kept-file.js'
import { makeFolder } from '../support/temp-folder.js'

async function replace(folder: string): Promise<void> {
  await writeFile(join(folder, 'new'), 'new')
  await rename(join(folder, 'new'), join(folder, 'disk'))
}

test('what was replaced is put back, or let go', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk')
  await writeFile(path, 'old')
  const first = await keepFile(path)
  await replace(folder)
  await first?.putBack()
  t.is(await readFile(path, 'utf8'), 'old')
  t.deepEqual(await readdir(folder), ['disk'])
  const second = await keepFile(path)
  await second?.putBack()
  t.deepEqual(await readdir(folder), ['disk'], 'what was never replaced is as it was')
  const third = await keepFile(path)
  await replace(folder)
  await third?.letGo()
  t.is(await readFile(path, 'utf8'), 'new')
  t.deepEqual(await readdir(folder), ['disk'])
})

test('the file behind a link is kept, and where there is none nothing is', async (t) => {
  const folder = await makeFolder(t)
  await writeFile(join(folder, 'disk'), 'old')
  await symlink('disk', join(folder, 'link'))
  const kept = await keepFile(join(folder, 'link'))
  await replace(folder)
  await kept?.putBack()
  t.is(await readFile(join(folder, 'link'), 'utf8'), 'old')
  t.is(await keepFile(join(folder, 'missing')), undefined)
})
