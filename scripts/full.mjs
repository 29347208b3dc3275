// The long proof:  npm run full [-- NAME...]   ten times as long:  npm run night
//
// All that is proven with large numbers, step by step; goes on after a failure. Arguments choose steps by name. Ends with a line for each step,
// and with status 1 if any has failed.
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = fileURLToPath(new URL('..', import.meta.url))
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    /** So many times as long. */
    times: { type: 'string', default: '1' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 20) },
  },
})
const times = Number(values.times)
const seed = values.seed
const count = (number) => String(number * times)

const steps = {
  build: ['npm', 'run', '--silent', 'build'],
  tests: ['npm', 'test'],
  crash: [
    'npm',
    'run',
    'crash',
    '--',
    '--all',
    '--budget',
    count(1_500_000),
    '--qemu',
    count(2300),
    '--seed',
    seed,
  ],
  faults: ['npm', 'run', 'faults', '--', '--count', count(50_000), '--seed', seed],
  fuzz: ['npm', 'run', 'fuzz', '--', '--count', count(100_000), '--seed', seed],
  'file faults': ['npx', 'ava', 'dist/test/crash/faulty-file.test.js'],
  kills: ['npm', 'run', 'kills', '--', '--count', count(500), '--seed', seed],
  sequences: ['npx', 'ava', 'dist/test/oracle/**/*.test.js', 'dist/test/properties/**/*.test.js'],
  repair: ['npx', 'ava', 'dist/test/qcow2/repair.test.js'],
  conformance: ['npx', 'ava', 'dist/test/conformance/*.test.js'],
  schedules: ['npm', 'run', 'schedules'],
  stress: ['npm', 'run', 'stress', '--', '--minutes', count(10), '--seed', seed],
  terminate: ['npm', 'run', 'terminate', '--', '--count', count(200), '--seed', seed],
  package: ['npm', 'run', 'package-check'],
  figures: ['node', 'scripts/figures.mjs'],
}
/** What tests take from the environment, where they take their numbers from there. */
const environment = {
  QCOW2_SEQUENCES: count(1000),
  QCOW2_FILE_FAULTS: count(2000),
  QCOW2_CONFORMANCE: '3',
  QCOW2_REPAIR_ROUNDS: count(600),
  QCOW2_ENCRYPTIONS: 'all',
  QCOW2_SEED: seed,
}
const takesEnvironment = ['sequences', 'file faults', 'conformance', 'repair']

const unknown = positionals.filter((name) => !(name in steps))
if (unknown.length > 0) {
  console.error(`No step of that name: ${unknown.join(', ')}. There are: ${Object.keys(steps).join(', ')}`)
  process.exit(1)
}
console.log(`seed ${seed}`)
const report = []
for (const [name, [program, ...words]] of Object.entries(steps)) {
  // What the others run is built in any case.
  if (positionals.length > 0 && name !== 'build' && !positionals.includes(name)) continue
  console.log(`\n=== ${name}: ${program} ${words.join(' ')}`)
  const started = performance.now()
  const env = takesEnvironment.includes(name) ? { ...process.env, ...environment } : process.env
  const { status } = spawnSync(program, words, { cwd: root, stdio: 'inherit', env })
  if (status !== 0) process.exitCode = 1
  const seconds = ((performance.now() - started) / 1000).toFixed(0)
  report.push(`${name.padEnd(11)} ${status === 0 ? 'ok' : 'FAILED'}, ${seconds} s`)
}
console.log(`\n${report.join('\n')}`)
