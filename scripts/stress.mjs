// Make the addon's threads work under a sanitizer:  npm run stress -- [--sanitizer thread|address|undefined|none] [--minutes N] [--seed S]
//
// Without --sanitizer all three, one after the other, each for so many minutes. What comes after that goes to test/stress/main.ts.
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { buildSanitized, sanitizerNames } from './sanitizers.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const { values } = parseArgs({
  options: {
    sanitizer: { type: 'string' },
    minutes: { type: 'string', default: '1' },
    rounds: { type: 'string' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 20) },
  },
})
const { sanitizer, ...rest } = values
const words = Object.entries(rest).flatMap(([name, value]) => [`--${name}`, value])
const chosen = sanitizer === undefined ? sanitizerNames : [sanitizer]
for (const name of chosen) {
  if (name === 'none' || sanitizerNames.includes(name)) continue
  console.error(`There is no sanitizer '${name}'; there are: ${sanitizerNames.join(', ')}, none`)
  process.exit(1)
}

if (!stress()) process.exitCode = 1

function stress() {
  if (spawnSync('npm', ['run', '--silent', 'build'], { cwd: root, stdio: 'inherit' }).status !== 0)
    return false
  let isGood = true
  for (const name of chosen) {
    const environment = name === 'none' ? {} : buildSanitized(name)
    if (environment === undefined) return false
    console.log(`=== ${name}`)
    const { status, signal } = spawnSync(process.execPath, ['dist/test/stress/main.js', ...words], {
      cwd: root,
      stdio: 'inherit',
      env: { ...process.env, ...environment },
    })
    const isClean = status === 0
    console.log(`--- ${name}: ${isClean ? 'no report' : `FAILED (${signal ?? status})`}`)
    isGood &&= isClean
  }
  return isGood
}
