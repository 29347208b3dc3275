import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

/**
 * Run test files, print what is worth reading, and count.
 * @param files  patterns; none: what package.json says
 * @param environment  added to this process's
 * @returns {Promise<{ passed: number, failed: number }>}
 */
export async function runAva(files, environment) {
  const child = spawn(process.execPath, ['node_modules/ava/entrypoints/cli.mjs', '--tap', ...files], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...environment },
  })
  let passed = 0
  let failed = 0
  let reporting = false
  for await (const line of createInterface({ input: child.stdout })) {
    const [, not, skipped] = /^(not )?ok \d+(?: - .*?)?( # SKIP.*)?$/.exec(line) ?? []
    const isResult = /^(not )?ok /.test(line)
    if (isResult) {
      reporting = not !== undefined
      if (skipped !== undefined) console.log(line)
      else if (not === undefined) passed++
      else failed++
    }
    // A failure is followed by its details, a passed test by nothing that anybody needs.
    if (reporting || /^# (?:SKIPPED|seed)/i.test(line.trim())) console.log(line)
  }
  const code = child.exitCode ?? (await new Promise((resolve) => child.once('close', resolve)))
  // A file that crashed, or found no tests, has no line of its own.
  if (code !== 0 && failed === 0) failed = 1
  console.log(`${passed} passed, ${failed} failed`)
  return { passed, failed }
}
