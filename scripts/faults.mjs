// Inject faults into the simulated device:  npm run faults -- [--count N] [--seed S] [--threads N]   or  --replay LINE
//
// Builds, then runs test/crash/fault-main.ts with the same arguments. A failure prints the line that shows it again.
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const run = (program, words) => spawnSync(program, words, { cwd: root, stdio: 'inherit' }).status ?? 1
process.exitCode =
  run('npm', ['run', '--silent', 'build']) ||
  run(process.execPath, ['dist/test/crash/fault-main.js', ...process.argv.slice(2)])
