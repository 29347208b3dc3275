// What a user's project meets, with everything it may be met with:  npm run package-check [-- NAME...]
//
// Installs the packed package in empty projects without a compiler, on each Node.js that is supported; has its exports and types judged; lays
// it into an Electron archive; rebuilds it with @electron/rebuild; and bundles a program that uses it. Arguments choose steps by name. Takes
// minutes and half a gigabyte in out/tools; test/package/ has what is quick. Electron itself is not run.
import { spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { bundlers, program } from './package-bundles.mjs'
import { tools } from './tools.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
/** An Electron that @electron/rebuild knows; it is not fetched. */
const electronVersion = '41.0.0'
const mostInstallSeconds = 5

build()
const { Consumer, installed, packPackage } = await import('../dist/test/support/packed.js')
const folder = mkdtempSync(join(tmpdir(), 'qcow2-package-check-'))
const newFolder = (name) => mkdtempSync(join(folder, `${name}-`))

const steps = {
  docs: () => void run('npm', 'run', '--silent', 'docs'),
  types: () => {
    const attw = tools('@arethetypeswrong/cli')('@arethetypeswrong/cli', 'dist/index.js')
    // There is one build: require() gives the ES module, as every Node.js since 20.19 does. The resolution of before Node.js 16 knows no
    // subpaths at all.
    const rules = ['--profile', 'node16', '--ignore-rules', 'cjs-resolves-to-esm']
    run(process.execPath, attw, tarball, ...rules, '--no-emoji', '--no-color')
    return 'ok, attw finds 0 problems'
  },
  'Node.js 20': () => consume(process.execPath),
  'Node.js 22': () => consume(nodeOf('n22')),
  'Node.js 24': () => consume(nodeOf('n24')),
  'Electron archive': inArchive,
  '@electron/rebuild': rebuilt,
  ...Object.fromEntries(Object.entries(bundlers).map(([name, bundle]) => [name, () => bundled(bundle)])),
}

let tarball = ''
try {
  const wanted = process.argv.slice(2)
  const unknown = wanted.filter((name) => !(name in steps))
  if (unknown.length > 0)
    throw new Error(`no step ${unknown.join(', ')}; there are: ${Object.keys(steps).join(', ')}`)
  tarball = await packPackage(folder, 'prebuilt')
  for (const [name, step] of Object.entries(steps)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue
    const said = await Promise.resolve()
      .then(step)
      .catch((error) => {
        process.exitCode = 1
        return `FAILED: ${error.message}`
      })
    console.log(`${name}: ${said ?? 'ok'}`)
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}

function build() {
  const { status } = spawnSync('npm', ['run', '--silent', 'build'], { cwd: root, stdio: 'inherit' })
  if (status !== 0) process.exit(1)
  if (!existsSync(join(root, 'build/Release/qcow2.node'))) run('npm', 'run', '--silent', 'build:native')
}

/** @returns what it printed */
function run(command, ...words) {
  const { status, stdout, stderr, error } = spawnSync(command, words, { cwd: root, encoding: 'utf8' })
  if (status !== 0) throw new Error(`${[command, ...words].join(' ')}: ${error ?? ''}${stdout}${stderr}`)
  return stdout
}

function expect(isSo, otherwise) {
  if (!isSo) throw new Error(otherwise)
}

function nodeOf(name) {
  return tools(name)(name, 'bin/node')
}

async function newConsumer(node = process.execPath) {
  const consumer = await Consumer.make(newFolder('consumer'), node)
  const started = performance.now()
  const { code, stdout, stderr } = await consumer.install(tarball)
  expect(code === 0, stdout + stderr)
  expect(!existsSync(join(installed(consumer), 'build')), 'the addon was compiled')
  return { consumer, seconds: (performance.now() - started) / 1000 }
}

/** Whether a file of the consumer's, run by its Node.js, prints what `program` is to print. */
async function works(consumer, file) {
  const { code, stdout, stderr } = await consumer.node('--no-warnings', file)
  expect(code === 0 && stdout === program.prints, `${file} ended with ${code}: ${stdout}${stderr}`)
}

async function consume(node) {
  let { consumer, seconds } = await newConsumer(node)
  // Something else may have kept the machine busy.
  if (seconds >= mostInstallSeconds) ({ consumer, seconds } = await newConsumer(node))
  const { code, stdout, stderr } = await consumer.readmeExample()
  expect(code === 0 && /corruptions: 0/.test(stdout), stderr)
  writeFileSync(join(consumer.folder, 'program.mjs'), program.imports)
  writeFileSync(join(consumer.folder, 'program.cjs'), program.requires)
  await works(consumer, 'program.mjs')
  await works(consumer, 'program.cjs')
  expect(seconds < mostInstallSeconds, `the installation took ${seconds.toFixed(1)} s`)
  const { stdout: version } = await consumer.node('--version')
  return `${version.trim()}: installed in ${seconds.toFixed(1)} s without a compiler; the README's first example, import and require work`
}

/** As electron-builder and forge lay it: everything in app.asar, what the README's pattern names beside it. */
async function inArchive() {
  const { consumer } = await newConsumer()
  writeFileSync(join(consumer.folder, 'program.mjs'), `${program.imports}\n${program.showsAddon}`)
  const [, pattern] = /"asarUnpack": \["([^"]+)"\]/.exec(readFileSync(join(root, 'README.md'), 'utf8')) ?? []
  expect(pattern !== undefined, 'the README has no pattern for asarUnpack')
  rmSync(join(consumer.folder, 'programs'), { recursive: true })
  const resources = newFolder('resources')
  const archive = join(resources, 'app.asar')
  const asar = tools('@electron/asar')('@electron/asar', 'bin/asar.mjs')
  run(nodeOf('n22'), asar, 'pack', consumer.folder, archive, '--unpack', pattern)
  // Only Electron reads an archive: for Node.js it is unpacked to a folder of its name, without what lies beside it.
  run(nodeOf('n22'), asar, 'extract', archive, join(resources, 'contents'))
  rmSync(archive)
  renameSync(join(resources, 'contents'), archive)
  run('find', archive, '-name', '*.node', '-delete')
  const said = run('env', '-C', resources, process.execPath, join(archive, 'program.mjs'))
  const [, addon = ''] = /^addon: (.*)$/m.exec(said) ?? []
  expect(said.startsWith(program.prints), said)
  expect(addon.startsWith(`${archive}.unpacked/node_modules/qcow2/prebuilds/`), `loaded from ${addon}`)
  return `ok, the addon came from app.asar.unpacked (${pattern})`
}

async function rebuilt() {
  const { consumer } = await newConsumer()
  const before = readFileSync(addonOf(consumer))
  const rebuild = tools('@electron/rebuild')('@electron/rebuild', 'lib/cli.js')
  const words = ['--version', electronVersion, '--module-dir', consumer.folder, '--force']
  run(nodeOf('n22'), rebuild, ...words)
  // It leaves a mark of its own there.
  const mark = join(installed(consumer), 'build/Release/.forge-meta')
  expect(existsSync(mark), 'it has not looked at the package')
  expect(readFileSync(addonOf(consumer)).equals(before), 'the prebuilt addon is another one')
  expect(!existsSync(join(installed(consumer), 'build/Release/qcow2.node')), 'it was compiled')
  writeFileSync(join(consumer.folder, 'program.mjs'), program.imports)
  await works(consumer, 'program.mjs')
  return 'ok, it found the prebuilt addon and left it alone'
}

function addonOf(consumer) {
  return join(installed(consumer), `prebuilds/${process.platform}-${process.arch}/node.napi.node`)
}

async function bundled(bundle) {
  const { consumer } = await newConsumer()
  const source = join(consumer.folder, 'source')
  mkdirSync(source)
  writeFileSync(join(source, 'program.mjs'), `import './other.mjs'\n${program.imports}`)
  writeFileSync(join(source, 'other.mjs'), 'globalThis.other = true\n')
  const out = join(consumer.folder, 'out')
  const file = await bundle({ entry: join(source, 'program.mjs'), out, tools })
  const text = readFileSync(join(out, file), 'utf8')
  expect(text.includes('globalThis.other') && !/import *['"].\/other/.test(text), `${file} is no bundle`)
  cpSync(join(out, file), join(consumer.folder, file))
  rmSync(source, { recursive: true })
  await works(consumer, file)
}
