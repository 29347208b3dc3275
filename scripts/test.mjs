// All checks and tests, in order:  npm test
//
// Goes on after a failure, so that one run shows all of it; the last line is `N passed, N failed`, which is also written to
// out/test-result.txt. A step that is no test counts as one failure if it fails. Arguments choose steps by name.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runAva } from './run-ava.mjs'
import { buildSanitized } from './sanitizers.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
process.chdir(root)

/** Tests that make the addon's threads work; the others would say nothing new under a sanitiser. */
const nativeTests = ['native', 'queue', 'stress'].map((folder) => `dist/test/${folder}/**/*.test.js`)

const steps = {
  build: () => run('npm', 'run', '--silent', 'build'),
  'native build': () => nativeBuildIsFresh() || run('npm', 'run', '--silent', 'build:native'),
  lint: () => run('npx', 'eslint', '--max-warnings=0', 'lib', 'test'),
  format: () =>
    run(
      'npx',
      'prettier',
      '--check',
      '--log-level=warn',
      'lib',
      'test',
      'scripts',
      'examples',
      'eslint.config.js',
    ),
  'native format': formatNative,
  tests: () => runAva([], {}),
  'failing memory': failingMemory,
  'thread sanitizer': () => sanitizer('thread'),
  'address sanitizer': () => sanitizer('address'),
}

let passed = 0
let failed = 0
const wanted = process.argv.slice(2)
const unknown = wanted.filter((name) => !(name in steps))
if (unknown.length > 0) {
  console.error(`No step of that name: ${unknown.join(', ')}. There are: ${Object.keys(steps).join(', ')}`)
  process.exit(1)
}
for (const [name, step] of Object.entries(steps)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue
  console.log(`\n=== ${name}`)
  const started = performance.now()
  const result = await step()
  const counts = typeof result === 'boolean' ? { passed: 0, failed: result ? 0 : 1 } : result
  passed += counts.passed
  failed += counts.failed
  const seconds = ((performance.now() - started) / 1000).toFixed(0)
  console.log(`--- ${name}: ${counts.failed > 0 ? `FAILED (${counts.failed})` : 'ok'}, ${seconds} s`)
}
// Nothing at all is no success.
if (wanted.length === 0 && passed === 0) failed++
const result = `${passed} passed, ${failed} failed`
mkdirSync('out', { recursive: true })
writeFileSync('out/test-result.txt', `${result}\n`)
console.log(`\n${result}`)
process.exitCode = failed === 0 ? 0 : 1

/** @returns whether it succeeded */
function run(program, ...words) {
  const { status, error } = spawnSync(program, words, { stdio: 'inherit' })
  if (error) console.error(error.message)
  return status === 0
}

/** @returns what it printed, undefined if it failed */
function output(program, ...words) {
  const { status, stdout } = spawnSync(program, words, { encoding: 'utf8' })
  return status === 0 ? stdout : undefined
}

/** node-gyp always starts anew. */
function nativeBuildIsFresh() {
  const binary = 'build/Release/qcow2.node'
  if (!existsSync(binary)) return false
  const built = statSync(binary).mtimeMs
  return ['binding.gyp', ...nativeFiles()].every((path) => statSync(path).mtimeMs < built)
}

function nativeFiles() {
  return readdirSync('native', { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
}

/** Other versions of clang-format lay some lines out differently. */
function formatNative() {
  const version = output('clang-format', '--version') ?? 'no clang-format'
  if (!/version 14\./.test(version)) {
    console.log(`SKIPPED: the layout of C++ is that of clang-format 14; here is: ${version.trim()}`)
    return true
  }
  return run(
    'clang-format',
    '--dry-run',
    '-Werror',
    ...nativeFiles().filter((path) => /\.(cc|h)$/.test(path)),
  )
}

/** Build the addon with a sanitiser, and run the native unit tests and the tests that load the addon. */
async function sanitizer(variant) {
  const environment = buildSanitized(variant)
  if (environment === undefined) return false
  const unit = runCTest(join('out', variant, 'build'))
  const suite = await runAva(nativeTests, environment)
  return { passed: unit.passed + suite.passed, failed: unit.failed + suite.failed }
}

/** Let every allocation of the addon fail in turn, in a build of which that can be asked. */
function failingMemory() {
  if (process.platform !== 'linux') {
    console.log('SKIPPED: memory can be made to fail on Linux only')
    return true
  }
  if (!run('npm', 'run', '--silent', 'native:faulty')) return false
  const { stdout, status } = spawnSync(process.execPath, ['dist/test/memory/main.js'], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, QCOW2_PREBUILD: join(root, 'out', 'faulty') },
  })
  process.stdout.write(stdout)
  const [, good, bad] = /^(\d+) passed, (\d+) failed$/m.exec(stdout) ?? []
  if (good === undefined) return { passed: 0, failed: 1 }
  return { passed: Number(good), failed: Number(bad) + (status !== 0 && Number(bad) === 0 ? 1 : 0) }
}

function runCTest(folder) {
  const { stdout, status } = spawnSync('ctest', ['--test-dir', folder, '--output-on-failure'], {
    encoding: 'utf8',
  })
  process.stdout.write(stdout)
  const [, broken, all] = /(\d+) tests? failed out of (\d+)/.exec(stdout) ?? []
  if (all === undefined || Number(all) === 0) return { passed: 0, failed: 1 }
  const failures = Number(broken) + (status !== 0 && Number(broken) === 0 ? 1 : 0)
  return { passed: Number(all) - Number(broken), failed: failures }
}
