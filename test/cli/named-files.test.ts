import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { runCli } from '../support/cli.js'
import { encryptedName, qemuCreateEncrypted, secret } from '../support/encrypted.js'
import { qemuImg, qemuIoOn } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

test('a chain whose files have moved, each with a secret of its own, is read, compared and committed by naming them', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const at = (name: string): string => join(folder, name)
  await qemuCreateEncrypted(at('base'), '4M')
  await qemuIoOn([...secret, '--image-opts', encryptedName(at('base'))], ['write -q -P 5 0 512k'])
  await qemuImg('create', '-q', '-u', '-f', 'qcow2', '-b', at('base'), '-F', 'qcow2', at('top'), '4M')
  await rename(at('base'), at('elsewhere'))
  const chain = `driver=qcow2,file.filename=${at('top')},backing.driver=qcow2,backing.encrypt.key-secret=s0,backing.file.filename=${at('elsewhere')}`
  await qemuIoOn([...secret, '--image-opts', chain], ['write -q -P 7 0 4k'])
  t.is(
    (await runCli(['convert', ...secret, '--image-opts', chain, '-O', 'raw', at('ours')], folder)).stderr,
    '',
  )
  await qemuImg('convert', ...secret, '--image-opts', chain, '-O', 'raw', at('theirs'))
  const shown = await readFile(at('ours'))
  t.true(shown.equals(await readFile(at('theirs'))))
  t.is(shown[0], 7)
  t.is(shown[5000], 5)
  const map = await runCli(['map', ...secret, '--output=json', '--image-opts', chain], folder)
  t.is(map.stdout, await qemuImg('map', ...secret, '--output=json', '--image-opts', chain))
  const committed = await runCli(['commit', ...secret, '--image-opts', chain], folder)
  t.is(committed.stdout, 'Image committed.\n', committed.stderr)
  const name = encryptedName(at('elsewhere'))
  await qemuImg('convert', ...secret, '--image-opts', name, '-O', 'raw', at('after'))
  t.true(shown.equals(await readFile(at('after'))))
})

test('a data file that has moved is named; an image without one, or without a backing file, refuses the name', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const at = (name: string): string => join(folder, name)
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${at('data')}`, at('top'), '1M')
  await rename(at('data'), at('moved'))
  const list = `driver=qcow2,file.filename=${at('top')},data-file.driver=file,data-file.filename=${at('moved')}`
  await qemuIoOn(['--image-opts', list], ['write -q -P 3 64k 64k'])
  t.is((await runCli(['convert', '--image-opts', list, '-O', 'raw', at('ours')], folder)).stderr, '')
  t.is((await readFile(at('ours')))[65536], 3)
  await qemuImg('create', '-q', '-f', 'qcow2', at('plain'), '1M')
  for (const [option, why] of [
    [
      `data-file.filename=${at('moved')}`,
      /'data-file' can only be set for images with an external data file/,
    ],
    [`backing.file.filename=${at('moved')}`, /has no backing file that could be another one/],
  ] as const) {
    const name = `driver=qcow2,file.filename=${at('plain')},${option}`
    const { code, stderr } = await runCli(['map', '--image-opts', name], folder)
    t.is(code, 1)
    t.regex(stderr, why)
  }
})

test('one image over two files named for it is two disks: compared as such, and not put together', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const at = (name: string): string => join(folder, name)
  for (const [name, byte] of Object.entries({ one: 1, two: 2 }))
    await writeFile(at(name), Buffer.alloc(65536, byte))
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', at('one'), '-F', 'raw', at('top'))
  const over = (name: string): string =>
    `driver=qcow2,file.filename=${at('top')},backing.driver=raw,backing.file.filename=${at(name)}`
  const plain = `driver=qcow2,file.filename=${at('top')}`
  for (const [first, second, code] of [
    [over('one'), over('two'), 1],
    [plain, over('two'), 1],
    [over('two'), plain, 1],
    [over('one'), plain, 0],
  ] as const)
    t.is((await runCli(['compare', '--image-opts', first, second], folder)).code, code, `${first} ${second}`)
  const both = ['convert', '--image-opts', over('one'), over('two'), '-O', 'raw', at('out')]
  const { code, stderr } = await runCli(both, folder)
  t.is(code, 1)
  t.regex(stderr, /Only a single source image can have/)
})

test('convert -n writes into a target over the file that is named for it', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const at = (name: string): string => join(folder, name)
  await writeFile(at('base'), Buffer.alloc(131072, 1))
  await writeFile(at('source'), Buffer.alloc(512, 9))
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', at('base'), '-F', 'raw', at('top'))
  await rename(at('base'), at('moved'))
  const target = `driver=qcow2,file.filename=${at('top')},backing.driver=raw,backing.file.filename=${at('moved')}`
  const words = ['convert', '-n', '-f', 'raw', '--target-image-opts', at('source'), target]
  t.is((await runCli(words, folder)).stderr, '')
  await qemuImg('convert', '--image-opts', target, '-O', 'raw', at('out'))
  const shown = await readFile(at('out'))
  t.true(shown.equals(Buffer.concat([Buffer.alloc(512, 9), Buffer.alloc(131072 - 512, 1)])))
})
