import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

const sanitizers = {
  // Node itself is not built with it: what its own calls look like says nothing.
  thread: {
    library: 'libtsan.so',
    options: { TSAN_OPTIONS: 'ignore_noninstrumented_modules=1:halt_on_error=1' },
  },
  // Node frees little of what it holds when it ends.
  address: { library: 'libasan.so', options: { ASAN_OPTIONS: 'detect_leaks=0' } },
  undefined: {
    library: 'libubsan.so',
    options: { UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1' },
  },
}

export const sanitizerNames = Object.keys(sanitizers)

/**
 * Build the addon with a sanitizer.
 * @returns the environment in which Node loads that build; undefined if there is none, which has been said then
 */
export function buildSanitized(variant) {
  const build = spawnSync('npm', ['run', '--silent', `native:${variant}`], { cwd: root, stdio: 'inherit' })
  if (build.status !== 0) return undefined
  const { library, options } = sanitizers[variant]
  const { stdout } = spawnSync('g++', [`-print-file-name=${library}`], { encoding: 'utf8' })
  const path = stdout?.trim()
  if (path === undefined || !existsSync(path)) {
    console.error(`${library} is not installed`)
    return undefined
  }
  return { QCOW2_PREBUILD: join(root, 'out', variant), LD_PRELOAD: path, ...options }
}
