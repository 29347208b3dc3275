import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'
import { Consumer, installed, packPackage } from '../support/packed.js'

/** `npm run package-check` does it with other versions of Node, bundlers and packagers. */
let folder = ''
let prebuilt = ''
let sources = ''

test.before(async (t) => {
  t.timeout(120_000)
  folder = await mkdtemp(join(tmpdir(), 'qcow2-prebuilt-'))
  prebuilt = await packPackage(await subfolder('with'), 'built')
  sources = await packPackage(await subfolder('without'), 'none')
})

test.after.always(async () => {
  if (folder !== '') await rm(folder, { recursive: true, force: true })
})

const subfolder = (name: string): Promise<string> => mkdtemp(join(folder, `${name}-`))

async function installedWith(t: ExecutionContext, ...options: string[]): Promise<Consumer> {
  const consumer = await Consumer.make(await subfolder('consumer'))
  const { code, stdout, stderr } = await consumer.install(prebuilt, ...options)
  t.is(code, 0, stdout + stderr)
  return consumer
}

test('a prebuilt addon that fits is used: there is no compiler, and nothing is compiled', async (t) => {
  const consumer = await installedWith(t)
  t.false(existsSync(join(installed(consumer), 'build')))
  const { code, stdout, stderr } = await consumer.readmeExample()
  t.is(code, 0, stderr)
  t.regex(stdout, /104, 101, 108, 108, 111/)
  t.regex(stdout, /corruptions: 0/)
})

test('it is used too where install scripts are blocked', async (t) => {
  const consumer = await installedWith(t, '--ignore-scripts')
  const { code, stderr } = await consumer.readmeExample()
  t.is(code, 0, stderr)
})

test('with neither, the installation fails, and says what was tried and what to do', async (t) => {
  const consumer = await Consumer.make(await subfolder('consumer'))
  const { code, stderr } = await consumer.install(sources)
  t.not(code, 0)
  for (const part of [
    `no native addon for ${process.platform}-${process.arch}`,
    'looked in: ',
    'there is none',
    'then tried: node-gyp rebuild',
    'What to do: install a C++17 compiler, make and Python 3',
  ]) {
    t.true(stderr.includes(part), `${part}: ${stderr}`)
  }
  t.false(existsSync(installed(consumer)))
})

test('with neither, and with install scripts blocked, the first use says it', async (t) => {
  const consumer = await Consumer.make(await subfolder('consumer'))
  t.is((await consumer.install(sources, '--ignore-scripts')).code, 0)
  const { code, stderr } = await consumer.readmeExample()
  t.is(code, 1)
  for (const part of [
    'ERR_ADDON_NOT_LOADED',
    installed(consumer),
    'build/Release, then prebuilds/',
    'npm rebuild qcow2',
  ]) {
    t.true(stderr.includes(part), `${part}: ${stderr}`)
  }
})

test('publint has nothing to say', async (t) => {
  const consumer = await installedWith(t, '--ignore-scripts')
  const { messages, pkg } = await publint({ pkgDir: installed(consumer), strict: true, pack: false })
  t.deepEqual(
    messages.map((message) => formatMessage(message, pkg, { color: false })),
    [],
  )
  t.is(pkg['name'], 'qcow2')
})
