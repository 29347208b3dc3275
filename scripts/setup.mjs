// Installs from Debian what the addon's build and the demonstration need, and with `test` as argument what the tests need too.
// Does nothing where all of it is there already.  node scripts/setup.mjs [test]
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'

/** Each package, and a file that shows that it is there. */
const forBuilding = {
  'g++': ['/usr/bin/g++'],
  make: ['/usr/bin/make'],
  python3: ['/usr/bin/python3'],
  e2fsprogs: ['/usr/sbin/mke2fs', '/sbin/mke2fs'],
}
const forTesting = {
  cmake: ['/usr/bin/cmake'],
  'clang-format': ['/usr/bin/clang-format'],
  'qemu-utils': ['/usr/bin/qemu-img', '/usr/bin/qemu-io'],
  strace: ['/usr/bin/strace'],
  chromium: ['/usr/bin/chromium'],
  'grub-rescue-pc': ['/usr/lib/grub-rescue/grub-rescue-cdrom.iso'],
}

const wanted = { ...forBuilding, ...(process.argv[2] === 'test' ? forTesting : {}) }
const missing = Object.keys(wanted).filter((name) => !wanted[name].some((path) => existsSync(path)))

if (missing.length > 0) {
  if (!existsSync('/usr/bin/apt-get')) {
    console.error(
      `Please install: ${missing.join(', ')} (this is no Debian, so that it cannot be done for you)`,
    )
    process.exit(1)
  }
  console.log(`Installing ${missing.join(', ')}`)
  apt('update', '-q')
  apt('install', '-q', '-y', '--no-install-recommends', ...missing)
}

/** Run apt-get as root, or through sudo. */
function apt(...words) {
  const root = process.getuid() === 0 ? [] : ['sudo']
  const [program, ...rest] = [...root, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', ...words]
  const { status, error } = spawnSync(program, rest, { stdio: ['inherit', 'inherit', 'inherit'] })
  if (status === 0) return
  console.error(`${[program, ...rest].join(' ')} failed${error ? `: ${error.message}` : ''}`)
  process.exit(1)
}
