// Run the prebuilds of the packed tarball where they can be run here:  npm run prebuilds:prove [-- HOST ...]
//
// On Debian, x64: Node 20, 22 and 24; arm64 under qemu-user; Windows under Wine, also in a program that is not called node.exe. Each host has the
// tarball installed, is told to take prebuilds only, and does what guest.mjs says. One line for each; fails if one does.
import {
  closeSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { installed, needPrograms, outputOf, root, run, workFolder } from './tools.mjs'

/** Longer than a slow machine takes under an emulator. */
const mostSeconds = 900

const folder = join(workFolder, 'prove')
const noStatx = join(folder, 'no_statx.so')
const arm64 = ['/usr/bin/qemu-aarch64', '-L', '/usr/aarch64-linux-gnu', '-E', `LD_PRELOAD=${noStatx}`]
const wine = ['/usr/lib/wine/wine64']

const emulators = {
  arm64: { 'qemu-user': arm64[0], 'g++-aarch64-linux-gnu': '/usr/bin/aarch64-linux-gnu-g++' },
  wine: { wine64: wine[0], wine: '/usr/bin/wine' },
}

const hosts = {
  'linux-x64, Node 20': { node: 'linux-x64-20/bin/node' },
  'linux-x64, Node 22': { node: 'linux-x64-22/bin/node' },
  'linux-x64, Node 24': { node: 'linux-x64-24/bin/node' },
  'linux-arm64, Node 22, qemu-user': {
    node: 'linux-arm64-22/bin/node',
    under: arm64,
    needs: emulators.arm64,
  },
  // Node 24 does not start under Wine 8: V8 gets no address space.
  'win32-x64, Node 22, Wine': { node: 'win32-x64-22/bin/node.exe', under: wine, needs: emulators.wine },
  'win32-x64, Node 22 as app.exe, Wine': {
    node: 'win32-x64-22/bin/node.exe',
    called: 'app.exe',
    under: wine,
    needs: emulators.wine,
  },
}

const wanted = process.argv.slice(2)
const chosen = Object.keys(hosts).filter(
  (name) => wanted.length === 0 || wanted.some((part) => name.includes(part)),
)
installTarball()
const nodes = installed('hosts')
let failed = chosen.length === 0 ? 1 : 0
for (const name of chosen) {
  const started = performance.now()
  const outcome = prove(hosts[name])
  if (!outcome.startsWith('ok ')) failed++
  console.log(`${name}: ${outcome} [${((performance.now() - started) / 1000).toFixed(0)} s]`)
}
console.log(`${chosen.length - failed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1

/** As a user has it, apart from the scripts: of several systems' prebuilds each host takes its own. */
function installTarball() {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  const [{ filename }] = JSON.parse(
    outputOf('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', folder], { cwd: root }),
  )
  writeFileSync(
    join(folder, 'package.json'),
    JSON.stringify({ name: 'proof', private: true, type: 'module' }),
  )
  const quiet = ['--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error']
  run('npm', ['install', '--ignore-scripts', ...quiet, `./${filename}`], { cwd: folder })
  cpSync(join(root, 'scripts/prebuild/guest.mjs'), join(folder, 'guest.mjs'))
}

function prove({ node, called, under = [], needs = {} }) {
  needPrograms(needs)
  if (under === arm64) {
    const source = join(root, 'scripts/prebuild/no_statx.c')
    run('aarch64-linux-gnu-gcc', ['-shared', '-fPIC', source, '-o', noStatx])
  }
  let host = join(nodes, node)
  if (called !== undefined) {
    copyFileSync(host, join(folder, called))
    host = join(folder, called)
  }
  const result = join(folder, 'result.txt')
  rmSync(result, { force: true })
  const [program, ...words] = [...under, host, 'guest.mjs', 'result.txt']
  // Under Wine, Node takes files alone for its output.
  const said = join(folder, 'said.txt')
  const output = openSync(said, 'w')
  const { status, signal } = spawnSync(program, words, {
    cwd: folder,
    timeout: mostSeconds * 1000,
    stdio: ['ignore', output, output],
    env: {
      ...process.env,
      PREBUILDS_ONLY: '1',
      NODE_SKIP_PLATFORM_CHECK: '1',
      WINEPREFIX: join(workFolder, 'wine'),
      WINEDEBUG: '-all',
    },
  })
  closeSync(output)
  const outcome = existsSync(result) ? readFileSync(result, 'utf8') : ''
  if (status === 0 && outcome !== '') return outcome
  return `FAILED: ${outcome || 'no result'}; exit code ${status}, signal ${signal}\n${readFileSync(said, 'utf8')}`
}
