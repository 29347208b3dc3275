import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { passDataFileGate } from '../../lib/image/data-file-gate.js'
import { makeFolder } from '../support/temp-folder.js'

const denied = { code: 'ERR_DATA_FILE_DENIED' } as const

test('names that are no plain paths are followed by no gate that goes by names', async (t) => {
  const image = join(await makeFolder(t), 'disk.qcow2')
  for (const name of [
    'json:{"driver":"file"}',
    'nbd://host/export',
    'nbd:unix:/sock',
    'file:data',
    'fat:/etc',
    '',
  ]) {
    for (const gate of ['deny', 'same-directory', 'allow'] as const)
      await t.throwsAsync(passDataFileGate(gate, { name, image }), denied, `${gate} ${name}`)
  }
  await t.throwsAsync(passDataFileGate('allow', { name: undefined, image }), {
    ...denied,
    message: /does not name it/,
  })
})

test('same-directory lets pass what really is there, links and upward names are not', async (t) => {
  const folder = await makeFolder(t)
  const image = join(folder, 'images', 'disk.qcow2')
  await mkdir(join(folder, 'images'))
  for (const name of ['secret', join('images', 'data'), join('images', 'odd\u001b[2J')])
    await writeFile(join(folder, name), 'x')
  await symlink('../secret', join(folder, 'images', 'link'))
  await symlink('data', join(folder, 'images', 'good-link'))
  const ask = (name: string): Promise<string> => passDataFileGate('same-directory', { name, image })
  t.is(await ask('data'), join(folder, 'images', 'data'))
  t.is(await ask('good-link'), join(folder, 'images', 'data'))
  t.is(await ask(join(folder, 'images', 'data')), join(folder, 'images', 'data'))
  for (const name of ['../secret', 'link', join(folder, 'secret'), '/etc/passwd'])
    await t.throwsAsync(ask(name), { ...denied, message: /outside the image's folder/ }, name)
  await t.throwsAsync(ask('missing'), { code: 'ERR_NOT_FOUND' })
  const odd = await t.throwsAsync(passDataFileGate('deny', { name: 'odd\u001b[2J', image }), denied)
  t.false(odd.message.includes('\u001b'))
})

test('a function is asked with what the image says, and its answer counts', async (t) => {
  const image = '/images/disk.qcow2'
  t.is(await passDataFileGate(({ name }) => `other/${name}`, { name: 'nbd:x', image }), '/images/other/nbd:x')
  t.is(await passDataFileGate(() => Promise.resolve('/data'), { name: undefined, image }), '/data')
  await t.throwsAsync(
    passDataFileGate(() => undefined, { name: 'x', image }),
    { ...denied, message: "Data file 'x' is not opened: the caller does not allow it" },
  )
  for (const answer of [5, '', 'a\0b', null])
    await t.throwsAsync(passDataFileGate((() => answer) as never, { name: 'x', image }), {
      code: 'ERR_INVALID_OPTION',
    })
})

test('of names that point outside nothing is told but that, whether there is such a file or not', async (t) => {
  const folder = await makeFolder(t)
  const inside = join(folder, 'vm')
  await mkdir(join(folder, 'there'))
  await mkdir(inside)
  for (const path of ['there/file', 'vm/base']) await writeFile(join(folder, path), '')
  for (const target of ['there', 'gone']) await symlink(`../${target}/file`, join(inside, `link-${target}`))
  const image = join(inside, 'disk.qcow2')
  const ask = (name: string): Promise<unknown> => passDataFileGate('same-directory', { name, image })
  const told = async (name: string, unknown: string): Promise<unknown> => {
    const error = await t.throwsAsync(ask(name), { code: 'ERR_DATA_FILE_DENIED' }, name)
    const { code, cause, errno } = error as Error & { code: string; errno: unknown }
    return { code, cause, errno, message: error?.message.replaceAll(unknown, '*') }
  }
  for (const pattern of ['../*/file', join(folder, '*/file'), '../*/file/more', 'link-*', '../*/x/../../']) {
    const [there, gone] = ['there', 'gone'].map((word) => told(pattern.replace('*', word), word))
    t.deepEqual(await there, await gone, pattern)
  }
  for (const word of ['there', 'gone'])
    await t.notThrowsAsync(ask(`../${word}/../vm/base`), 'what is here is found whatever is there')
  for (const name of ['missing', '../gone/../vm/missing'])
    await t.throwsAsync(ask(name), { code: 'ERR_NOT_FOUND' }, name)
})
