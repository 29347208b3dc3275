import { existsSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { type CliOutcome, runCommand } from '../support/cli.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))

type Manifest = {
  readonly version: string
  readonly bin: Record<string, string>
  readonly exports: Record<string, string | Record<string, string>>
}

const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Manifest

/** An empty project, with the package installed from its tarball: its addon is compiled there. */
let project = ''
let tarball = ''

async function run(folder: string, ...words: string[]): Promise<CliOutcome> {
  const outcome = await runCommand(words, folder)
  if (outcome.code !== 0) throw new Error(`${words.join(' ')}: ${outcome.stdout}${outcome.stderr}`)
  return outcome
}

test.before(async (t) => {
  t.timeout(600_000)
  project = await mkdtemp(join(tmpdir(), 'qcow2-package-'))
  // Its scripts would build again what runs just now.
  const { stdout } = await run(
    root,
    'npm',
    'pack',
    '--ignore-scripts',
    '--json',
    '--pack-destination',
    project,
  )
  const [packed] = JSON.parse(stdout) as { filename: string }[]
  tarball = join(project, packed?.filename ?? '')
  await writeFile(join(project, 'package.json'), JSON.stringify({ name: 'consumer', private: true }))
  await run(
    project,
    'npm',
    'install',
    '--prefix',
    project,
    '--no-audit',
    '--no-fund',
    '--prefer-offline',
    '--build-from-source',
    tarball,
  )
})

test.after.always(async () => {
  if (project !== '') await rm(project, { recursive: true, force: true })
})

/** Everything that exports and bin point at. */
function targets(): string[] {
  const exported = Object.values(manifest.exports).flatMap((entry) =>
    typeof entry === 'string' ? [entry] : Object.values(entry),
  )
  return [...exported, ...Object.values(manifest.bin)]
}

test('the tarball holds what is pointed at, the sources of the addon, and no tests', async (t) => {
  const { stdout } = await run(project, 'tar', 'tzf', tarball)
  const files = stdout
    .trim()
    .split('\n')
    .map((path) => path.replace(/^package\//, ''))
  for (const target of targets()) t.true(files.includes(target.replace(/^\.\//, '')), target)
  for (const name of ['README.md', 'LICENSE', 'CHANGELOG.md', 'binding.gyp', 'native/sources.gypi']) {
    t.true(files.includes(name), name)
  }
  const { variables } = JSON.parse(readFileSync(join(root, 'native/sources.gypi'), 'utf8')) as {
    variables: { native_sources: string[] }
  }
  for (const name of variables.native_sources) t.true(files.includes(name), name)
  t.deepEqual(
    files
      .filter((name) => !/^prebuilds\/[^/]+\/node\.napi\.[^/]*node$/.test(name)) // if they have been made here
      .filter((name) => /(^|\/)(test|node_modules|build|out|\.ci)\/|\.(node|map)$/.test(name)),
    [],
  )
})

test.serial('installing compiles the addon, and leaves no second copy of anything', async (t) => {
  const installed = join(project, 'node_modules', 'qcow2')
  t.true(existsSync(join(installed, 'build', 'Release', 'qcow2.node')))
  const packages = (await readdir(join(project, 'node_modules'))).filter((name) => !name.startsWith('.'))
  t.deepEqual(packages.sort(), ['fzstd', 'node-addon-api', 'node-gyp-build', 'qcow2'])
})

const smoke = `
  const path = 'smoke-' + process.pid + '.qcow2'
  await createImage(path, { size: 1024 * 1024 })
  const image = await openImage(path)
  await image.write(Uint8Array.of(1, 2, 3), 70000)
  await image.close()
  const again = await openImage(path, { readOnly: true })
  const bytes = await again.read({ offset: 69999, length: 5 })
  await again.close()
  const { corruptions, leaks } = await checkImage(path)
  console.log(JSON.stringify([...bytes, corruptions, leaks]))`

test('import works', async (t) => {
  await writeFile(
    join(project, 'import.mjs'),
    `import { checkImage, createImage, openImage } from 'qcow2'\n${smoke}`,
  )
  const { stdout, stderr } = await run(project, process.execPath, 'import.mjs')
  t.deepEqual([stdout, stderr], ['[0,1,2,3,0,0,0]\n', ''])
})

test('require works', async (t) => {
  await writeFile(
    join(project, 'require.cjs'),
    `const { checkImage, createImage, openImage } = require('qcow2')\n;(async () => {${smoke}\n})()`,
  )
  // Node 20 says that it is experimental.
  const { stdout } = await run(project, process.execPath, '--no-warnings', 'require.cjs')
  t.is(stdout, '[0,1,2,3,0,0,0]\n')
})

test('import and require give one and the same', async (t) => {
  await writeFile(
    join(project, 'both.mjs'),
    `import { createRequire } from 'node:module'
import * as imported from 'qcow2'
const required = createRequire(import.meta.url)('qcow2')
console.log(Object.keys(imported).every((name) => imported[name] === required[name]), 'default' in imported)`,
  )
  t.is((await run(project, process.execPath, '--no-warnings', 'both.mjs')).stdout, 'true false\n')
})

test('the block queue is to be had alone, and nothing else is reachable', async (t) => {
  await writeFile(
    join(project, 'queue.mjs'),
    `import { openBlockQueue } from 'qcow2/block-queue'
const queue = await openBlockQueue('journal', { create: true })
const context = queue.context()
await context.write(Uint8Array.of(7), 4096)
context.barrier()
await context.write(Uint8Array.of(9), 0)
await queue.flush()
console.log(queue.stats().syncsIssued > 0)
await queue.close()
await import('qcow2/dist/lib/base/assert.js').catch((error) => console.log(error.code))`,
  )
  const { stdout } = await run(project, process.execPath, 'queue.mjs')
  t.is(stdout, 'true\nERR_PACKAGE_PATH_NOT_EXPORTED\n')
})

test('the command is installed under its name', async (t) => {
  const { stdout } = await run(project, join(project, 'node_modules/.bin/qcow2'), '--version')
  t.is(stdout, `qcow2 version ${manifest.version}\n`)
})

test('the installed command reads clusters that qemu-img has compressed with zstd', async (t) => {
  const content = Buffer.alloc(300_032, 'the quick brown fox ')
  await writeFile(join(project, 'words.raw'), content)
  const shape = ['-f', 'raw', '-O', 'qcow2', '-o', 'compression_type=zstd']
  await run(project, 'qemu-img', 'convert', '-c', ...shape, 'words.raw', 'words.qcow2')
  await run(project, join(project, 'node_modules/.bin/qcow2'), 'convert', 'words.qcow2', 'words.back')
  t.true(readFileSync(join(project, 'words.back')).equals(content))
})

/** Compile a file as a consumer would, with every check on. */
async function compile(name: string, text: string): Promise<CliOutcome> {
  await writeFile(join(project, name), text)
  await mkdir(join(project, 'node_modules/@types'), { recursive: true })
  const types = join(project, 'node_modules/@types/node')
  if (!existsSync(types)) {
    await symlink(join(root, 'node_modules/@types/node'), types)
    await symlink(join(root, 'node_modules/undici-types'), join(project, 'node_modules/undici-types'))
  }
  const options = [
    '--strict',
    '--module',
    'nodenext',
    '--target',
    'es2022',
    '--types',
    'node',
    '--exactOptionalPropertyTypes',
  ]
  return runCommand([join(root, 'node_modules/.bin/tsc'), ...options, name], project)
}

test.serial('the types say what there is', async (t) => {
  const { stdout, code } = await compile(
    'types.mts',
    `import { createImage, openImage, Qcow2Error, type Extent, type QueueStats } from 'qcow2'
import { openBlockQueue } from 'qcow2/block-queue'
const image = await openImage('x', { cache: { direct: true, sync: 'write' }, backing: (reference) => reference.name })
const bytes: Uint8Array = await image.read({ offset: 0, length: 1 })
const stats: QueueStats = image.stats()
for await (const extent of image.extents()) { const one: Extent = extent; void one }
await using queue = await openBlockQueue('y')
// @ts-expect-error -- there is no such option
await createImage('x', { size: 1, clustersize: 512 })
// @ts-expect-error -- an offset is a number
await image.write(bytes, '0')
if (new Error() instanceof Qcow2Error) console.log(stats, queue)
`,
  )
  t.is(stdout, '')
  t.is(code, 0)
})

test.serial("the README's example compiles and runs", async (t) => {
  t.timeout(120_000)
  const [, example = ''] = /```ts\n([^]*?)```/.exec(readFileSync(join(root, 'README.md'), 'utf8')) ?? []
  t.true(example.includes('openImage'))
  const { stdout, code } = await compile('readme.mts', example)
  t.is(stdout, '')
  t.is(code, 0)
  const ran = await run(project, process.execPath, 'readme.mjs')
  t.regex(ran.stdout, /104, 101, 108, 108, 111/)
  t.regex(ran.stdout, /corruptions: 0/)
})

test("the README's commands are what the scripts of the package offer", (t) => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8')
  const commands = [...readme.matchAll(/^node scripts\/setup\.mjs.*$/gm)].map(([line]) => line)
  t.deepEqual(commands, [
    'node scripts/setup.mjs && npm ci && npm run demo',
    'node scripts/setup.mjs test && npm ci && npm test',
  ])
})
