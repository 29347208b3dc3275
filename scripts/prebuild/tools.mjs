// What the scripts beside this one have in common: running programs, and the npm packages that they need and nobody else.
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../..', import.meta.url))

/** Everything that is made on the way; kept, so that the next run is quick. */
export const workFolder = join(root, 'out', 'prebuild')

/** Run a program, which must succeed. @returns its standard output, if that is captured */
export function run(program, words, options = {}) {
  const { status, error, stdout } = spawnSync(program, words, {
    stdio: 'inherit',
    encoding: 'utf8',
    ...options,
  })
  if (status === 0) return stdout
  throw new Error(`${program} ${words.join(' ')}: ${error?.message ?? `exit code ${status}`}`)
}

/** @returns standard output of a program that must succeed */
export function outputOf(program, words, options = {}) {
  return run(program, words, { stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1 << 28, ...options })
}

/**
 * Install the pinned packages of scripts/prebuild/NAME, unless that has been done. Their scripts do not run.
 * @returns the folder with one folder for each
 */
export function installed(name) {
  const from = join(root, 'scripts', 'prebuild', name)
  const folder = join(workFolder, name)
  const lock = readFileSync(join(from, 'package-lock.json'), 'utf8')
  const done = join(folder, 'node_modules', '.installed.json')
  if (!existsSync(done) || readFileSync(done, 'utf8') !== lock) {
    mkdirSync(folder, { recursive: true })
    for (const file of ['package.json', 'package-lock.json'])
      copyFileSync(join(from, file), join(folder, file))
    // --force: they are for other systems too. No links: one of them would be called node.
    const quiet = ['--no-bin-links', '--no-audit', '--no-fund', '--loglevel=error']
    run('npm', ['ci', '--ignore-scripts', '--force', ...quiet], { cwd: folder })
    copyFileSync(join(from, 'package-lock.json'), done)
  }
  return join(folder, 'node_modules')
}

/** Install from Debian what of this is missing: { package: a program of it }. */
export function needPrograms(wanted) {
  const missing = Object.keys(wanted).filter((name) => !existsSync(wanted[name]))
  if (missing.length === 0) return
  const asRoot = process.getuid() === 0 ? [] : ['sudo']
  const [program, ...words] = [...asRoot, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get']
  run(program, [...words, 'update', '-q'])
  run(program, [...words, 'install', '-q', '-y', '--no-install-recommends', ...missing])
}

/** The folder with the headers of the Node that runs this. @returns undefined where it came without */
export function nodeHeaders() {
  const prefix = dirname(dirname(process.execPath))
  return existsSync(join(prefix, 'include', 'node', 'node_api.h')) ? prefix : undefined
}
