// End threads amid their work, and look for what they leak:  npm run terminate -- [--count N] [--seed S] [--sanitizer address|none]
//
// Builds, then runs test/terminate/main.ts on an AddressSanitizer build of the addon, with LeakSanitizer: any leak fails, also one of
// Node's. With --sanitizer none on the build that is there.
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { buildSanitized } from './sanitizers.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '200' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 20) },
    sanitizer: { type: 'string', default: 'address' },
  },
})
const words = ['dist/test/terminate/main.js', '--count', values.count, '--seed', values.seed]
process.chdir(root)
process.exitCode = terminate() ? 0 : 1

function terminate() {
  if (spawnSync('npm', ['run', '--silent', 'build'], { stdio: 'inherit' }).status !== 0) return false
  if (values.sanitizer === 'none') return runThreads({})
  const environment = buildSanitized('address')
  if (environment === undefined) return false
  return runThreads({ ...environment, ASAN_OPTIONS: 'detect_leaks=1:malloc_context_size=30' })
}

function runThreads(environment) {
  const { status, signal } = spawnSync(process.execPath, words, {
    stdio: 'inherit',
    env: { ...process.env, ...environment },
  })
  console.log(status === 0 ? 'no crash, no report' : `FAILED: ${signal ?? `exit code ${status}`}`)
  return status === 0
}
