import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { cliModulePath, cliPath, runCli, runCommand } from '../support/cli.js'
import { makeFolder } from '../support/temp-folder.js'

test('messages begin with the name that the program was called by', async (t) => {
  const folder = await makeFolder(t)
  await symlink(cliPath, join(folder, 'qemu-img'))
  const ours = await runCli(['info', 'missing'], folder)
  t.is(ours.stderr, "qcow2: Could not open 'missing': No such file or directory\n")
  const linked = await runCommand([process.execPath, join(folder, 'qemu-img'), 'info', 'missing'], folder)
  t.is(linked.stderr, "qemu-img: Could not open 'missing': No such file or directory\n")
  t.is(linked.code, 1)
})

test('no failure shows a stack trace', async (t) => {
  const folder = await makeFolder(t)
  await writeFile(join(folder, 'broken.qcow2'), Buffer.from('514649fb00000003', 'hex'))
  for (const args of [
    ['info', 'missing'],
    ['info', '.'],
    ['info', 'broken.qcow2'],
    ['check', 'broken.qcow2'],
    ['create'],
    ['frob'],
  ]) {
    const { code, stderr } = await runCli(args, folder)
    t.is(code, 1, args.join(' '))
    t.notRegex(stderr, /^\s+at |node:|\.js:\d/m, args.join(' '))
    t.regex(stderr, /^qcow2: ./)
  }
})

test('a reader that goes away changes nothing about the outcome', async (t) => {
  const folder = await makeFolder(t)
  await runCli(['create', 'big.raw', '1M'], folder)
  const child = spawn(process.execPath, [cliPath, 'info', 'big.raw'], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  child.stdout.destroy()
  let stderr = ''
  child.stderr.on('data', (text: Buffer) => {
    stderr += text.toString()
  })
  const [code] = (await once(child, 'close')) as [number]
  t.is(code, 0)
  t.is(stderr, '')
})

test('a verb loads nothing that it does not need', async (t) => {
  const folder = await makeFolder(t)
  await runCli(['create', '-f', 'qcow2', 'x.qcow2', '1M'], folder)
  const list = "process.on('exit', () => process._rawDebug(JSON.stringify(globalThis.loadedModules)))"
  await writeFile(
    join(folder, 'spy.mjs'),
    `import { register } from 'node:module'
import { MessageChannel } from 'node:worker_threads'
globalThis.loadedModules = []
const { port1, port2 } = new MessageChannel()
port1.on('message', (url) => globalThis.loadedModules.push(url)).unref()
const hooks = "let port; export async function initialize(data) { port = data.port }" +
  "export async function load(url, context, next) { port.postMessage(url); return next(url, context) }"
register('data:text/javascript,' + encodeURIComponent(hooks), { data: { port: port2 }, transferList: [port2] })
${list}
`,
  )
  const { stderr, code } = await runCommand(
    [process.execPath, '--import', join(folder, 'spy.mjs'), cliModulePath, 'info', 'x.qcow2'],
    folder,
  )
  t.is(code, 0)
  const loaded = (JSON.parse(stderr.trim().split('\n').at(-1) ?? '') as string[]).map((url) =>
    url.replace(/.*\/dist\//, ''),
  )
  t.true(loaded.includes('lib/cli/verb-info.js'))
  for (const path of [
    'lib/index.js',
    'lib/qcow2/image.js',
    'lib/qcow2/check.js',
    'lib/operations/convert.js',
    'lib/cli/verb-convert.js',
  ]) {
    t.false(loaded.includes(path), path)
  }
})
