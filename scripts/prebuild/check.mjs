// Look at prebuilt binaries without running them, and at the tarball that holds them:  npm run prebuilds:check [-- TARGET ...]
//
// Each must be for its processor, ask for nothing but what every such system has, and show nothing but the two functions that Node looks for.
// The glibc floor is read with `objdump -T`. Without names, all of them must be there, and the tarball must be as small as is promised.
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { chosen, glibcFloor, pathOf, targets } from './targets.mjs'
import { needPrograms, outputOf, root } from './tools.mjs'
import { readMachO } from './macho.mjs'

const mostPackedBytes = 6e6

const exported = ['napi_register_module_v1', 'node_api_module_get_api_version_v1']
/** What a glibc prebuild may load; newer systems have all of it in libc.so.6. */
const glibcLibraries = /^(lib(c|m|dl|rt|pthread)\.so\.\d+|ld-linux-.*)$/
const windowsLibraries = /^(KERNEL32|msvcrt|api-ms-win-crt-[a-z0-9-]+)\.dll$/i
const macLibraries = /^\/usr\/lib\/lib(System\.B|c\+\+\.1)\.dylib$/

const names = process.argv.slice(2)
if (process.platform === 'linux') needPrograms({ binutils: '/usr/bin/objdump' })
let failed = 0
for (const name of chosen(names)) report(pathOf(targets[name]), () => look(targets[name]))
if (names.length === 0) report('the tarball', lookAtTarball)
process.exitCode = failed === 0 ? 0 : 1

function report(what, action) {
  try {
    console.log(`${what}: ${action()}`)
  } catch (error) {
    failed++
    console.log(`${what}: FAILED: ${error.message}`)
  }
}

function look(target) {
  const file = join(root, pathOf(target))
  if (!existsSync(file)) throw new Error('is not there')
  const found = { linux: lookAtElf, darwin: lookAtMachO, win32: lookAtExecutable }[target.platform](
    file,
    target,
  )
  must(!readFileSync(file).includes(root), `has the path ${root} in it`)
  return `${statSync(file).size} bytes, ${found}`
}

function lookAtElf(file, { arch, file: name }) {
  const header = outputOf('objdump', ['-f', '-p', file])
  const libraries = [...header.matchAll(/NEEDED\s+(\S+)/g)].map(([, library]) => library)
  const machine = readFileSync(file).readUInt16LE(18)
  must({ 62: 'x64', 183: 'arm64' }[machine] === arch, `is for machine ${machine}`)
  const symbols = outputOf('objdump', ['-T', file]).split('\n')
  const shown = symbols.filter((line) => / [gw]\s.*\s(?!\*UND\*)\S+\t/.test(line) && !line.includes('*UND*'))
  mustShow(shown.map((line) => line.trim().split(/\s+/).at(-1)))
  const versions = [...new Set(symbols.flatMap((line) => /GLIBC_([\d.]+)/.exec(line)?.[1] ?? []))].sort(
    compare,
  )
  if (name.includes('.musl.')) {
    must(versions.length === 0, `asks for GLIBC_${versions.at(-1)}`)
    mustLoad(libraries, /^libc\.so$/)
    return `needs ${libraries.join(', ')}, nothing of glibc`
  }
  mustLoad(libraries, glibcLibraries)
  must(compare(versions.at(-1) ?? '0', glibcFloor) <= 0, `asks for GLIBC_${versions.at(-1)}`)
  return `needs glibc ${versions.at(-1)}, may need ${glibcFloor}; ${libraries.join(', ')}`
}

function lookAtMachO(file, { arch }) {
  const found = readMachO(readFileSync(file))
  must(found.arch === arch, `is for ${found.arch}`)
  mustLoad(found.libraries, macLibraries)
  // Apple's processors run nothing that is not signed, be it by nobody in particular.
  must(arch !== 'arm64' || found.signature !== undefined, 'is not signed')
  must(found.signature?.valid !== false, 'has a signature of other bytes')
  const signed =
    found.signature === undefined ? 'not signed' : found.signature.adHoc ? 'signed ad hoc' : 'signed'
  return `needs macOS ${found.oldestMacos}, ${found.libraries.join(', ')}; ${signed}`
}

function lookAtExecutable(file) {
  const header = outputOf('objdump', ['-p', file])
  must(/pei-x86-64/.test(header), 'is no program for x64')
  const libraries = [...header.matchAll(/DLL Name: (\S+)/g)].map(([, library]) => library)
  mustLoad(libraries, windowsLibraries)
  const [, table = ''] = /\[Ordinal\/Name Pointer\] Table\n([^]*?)\n\n/.exec(header) ?? []
  mustShow(table.split('\n').map((line) => line.trim().split(/\s+/).at(-1)))
  return `needs ${libraries.join(', ')}; Node-API from the host, whatever its name`
}

function lookAtTarball() {
  const [{ size, unpackedSize, files }] = JSON.parse(
    outputOf('npm', ['pack', '--ignore-scripts', '--dry-run', '--json'], {
      cwd: root,
      shell: process.platform === 'win32',
    }),
  )
  const paths = files.map(({ path }) => path)
  for (const target of Object.values(targets)) must(paths.includes(pathOf(target)), `lacks ${pathOf(target)}`)
  must(paths.includes('dist/lib/index.js'), 'lacks dist: run npm run build')
  must(size <= mostPackedBytes, `has ${size} bytes, more than ${mostPackedBytes}`)
  return `${size} bytes of at most ${mostPackedBytes}, ${unpackedSize} unpacked, ${paths.length} files`
}

function must(holds, what) {
  if (!holds) throw new Error(what)
}

function mustLoad(libraries, allowed) {
  const others = libraries.filter((name) => !allowed.test(name))
  must(libraries.length > 0 && others.length === 0, `needs ${others.join(', ') || 'no library at all'}`)
}

function mustShow(found) {
  const others = found.filter((name) => !exported.includes(name))
  const lacking = exported.filter((name) => !found.includes(name))
  must(others.length === 0, `shows ${others.slice(0, 5).join(', ')}`)
  must(lacking.length === 0, `does not show ${lacking.join(', ')}`)
}

function compare(one, other) {
  const [a, b] = [one, other].map((text) => text.split('.').map(Number))
  return a[0] - b[0] || a[1] - b[1]
}
