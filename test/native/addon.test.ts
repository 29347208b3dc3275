import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { addon, unpackedRoot } from '../../lib/native/addon.js'
import { runProgram } from '../support/child.js'
import { makeFolder } from '../support/temp-folder.js'

const useAddon = new URL('./programs/use-addon.js', import.meta.url)

/** Load the addon in a process that finds its builds below `folder`. */
async function loadFrom(folder: string): Promise<{ abi?: number; code?: string; message?: string }> {
  const around = ['env', `QCOW2_PREBUILD=${folder}`]
  const result = await runProgram(useAddon, [], { around })
  if (result.code !== 0) throw new Error(result.stderr)
  return JSON.parse(result.stdout) as { abi?: number; code?: string; message?: string }
}

test('importing the package does not load the addon', async (t) => {
  const result = await runProgram(new URL('./programs/load-nothing.js', import.meta.url), [])
  t.is(result.stdout.trim(), 'false', result.stderr)
})

test('without an addon the error says what was tried and what to do', async (t) => {
  const folder = await makeFolder(t)
  const { code, message = '' } = await loadFrom(folder)
  t.is(code, 'ERR_ADDON_NOT_LOADED')
  for (const part of [
    folder,
    'build/Release',
    `prebuilds/${process.platform}-${process.arch}`,
    'npm rebuild qcow2',
  ]) {
    t.true(message.includes(part), message)
  }
})

test('an addon that cannot be loaded gives an error that says why', async (t) => {
  const folder = await makeFolder(t)
  await mkdir(join(folder, 'build/Release'), { recursive: true })
  await writeFile(join(folder, 'build/Release/qcow2.node'), 'this is no library')
  const { code, message = '' } = await loadFrom(folder)
  t.is(code, 'ERR_ADDON_NOT_LOADED')
  t.regex(message, /file too short|invalid ELF header|not valid|slice is not/)
})

test('an addon of another version is refused', async (t) => {
  const folder = await makeFolder(t)
  await mkdir(join(folder, 'build/Release'), { recursive: true })
  // The real addon, and a copy of the loader that expects another number.
  const root = fileURLToPath(new URL('../../..', import.meta.url))
  await copyFile(join(root, 'package.json'), join(folder, 'package.json'))
  const program = join(folder, 'program.mjs')
  const source = await readFile(new URL('../../lib/native/addon.js', import.meta.url), 'utf8')
  const outdated = source.replace(/const expectedAbi = \d+/, 'const expectedAbi = 0')
  t.not(outdated, source)
  await mkdir(join(folder, 'dist/lib/native'), { recursive: true })
  await mkdir(join(folder, 'dist/lib/base'), { recursive: true })
  await writeFile(
    join(folder, 'dist/lib/native/addon.js'),
    outdated.replace("'node-gyp-build'", `'${root}/node_modules/node-gyp-build/index.js'`),
  )
  await copyFile(
    new URL('../../lib/base/errors.js', import.meta.url),
    join(folder, 'dist/lib/base/errors.js'),
  )
  await writeFile(
    program,
    "import { addon } from './dist/lib/native/addon.js'\ntry { addon() } catch (error) { console.log(error.code, error.message) }\n",
  )
  const around = ['env', `QCOW2_PREBUILD=${process.env['QCOW2_PREBUILD'] ?? root}`]
  const result = await runProgram(new URL(`file://${program}`), [], { around })
  t.regex(
    result.stdout,
    /^ERR_ADDON_NOT_LOADED .*another version: it says \d+, this package needs 0/s,
    result.stderr,
  )
})

test('a second request for the addon gives the first one', (t) => {
  t.is(addon(), addon())
})

test('inside an archive of Electron the unpacked copy is used, if there is one', (t) => {
  const packed = '/opt/vm/resources/app.asar/node_modules/qcow2/'
  const unpacked = '/opt/vm/resources/app.asar.unpacked/node_modules/qcow2/'
  t.is(
    unpackedRoot(packed, (path) => path === unpacked),
    unpacked,
  )
  t.is(
    unpackedRoot(packed, () => false),
    packed,
  )
  t.is(
    unpackedRoot('/opt/app/node_modules/qcow2/', () => true),
    '/opt/app/node_modules/qcow2/',
  )
  t.is(
    unpackedRoot('C:\\vm\\app.asar\\qcow2\\', () => true),
    'C:\\vm\\app.asar.unpacked\\qcow2\\',
  )
})
