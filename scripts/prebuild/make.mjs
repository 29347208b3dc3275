// Make prebuilt binaries:  npm run prebuilds [-- TARGET ...]
//
// On Linux all of them can be made (TARGET: see targets.mjs): those for Linux by prebuildify, from binding.gyp, with a compiler that brings
// its own C libraries; those for macOS and Windows from the same sources and flags without it, since gyp knows these systems only at home. On macOS
// and Windows the binary of that system is made, by prebuildify with the system's own compiler: these are the ones to publish.
import { cpSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, delimiter, dirname, join } from 'node:path'
import { chosen, nodeVersion, pathOf, targets } from './targets.mjs'
import { installed, needPrograms, nodeHeaders, root, run, workFolder } from './tools.mjs'

const names = chosen(process.argv.slice(2)).filter(isPossible)
if (names.length === 0) {
  console.error(`None of these can be made on ${process.platform}-${process.arch}`)
  process.exit(1)
}
for (const name of names) {
  const target = targets[name]
  const file = join(root, pathOf(target))
  const started = performance.now()
  rmSync(file, { force: true })
  if (target.platform === process.platform) prebuildify(target)
  else compile(name, target, file)
  const seconds = ((performance.now() - started) / 1000).toFixed(0)
  console.log(`${pathOf(target)}: ${statSync(file).size} bytes, ${seconds} s`)
}

function isPossible(name) {
  const { platform, arch } = targets[name]
  // Elsewhere there is the system's own compiler alone.
  if (process.platform === 'linux') return true
  return platform === process.platform && (platform === 'darwin' || arch === process.arch)
}

/** In a copy: node-gyp begins with removing build/, which is the developer's. */
function prebuildify({ arch, tags, zig }) {
  const source = join(workFolder, 'source')
  rmSync(source, { recursive: true, force: true })
  mkdirSync(source, { recursive: true })
  for (const name of ['binding.gyp', 'package.json', 'native']) {
    cpSync(join(root, name), join(source, name), { recursive: true })
  }
  symlinkSync(join(root, 'node_modules'), join(source, 'node_modules'), 'junction')
  const headers = nodeHeaders()
  const program = createRequire(import.meta.url).resolve('prebuildify/bin.js')
  const shape = ['--napi', '--name', 'node.napi', '--target', nodeVersion, '--arch', arch, ...tags]
  // The linker strips for other processors than this one, too.
  const strip = process.platform === 'linux' ? [] : ['--strip']
  run(process.execPath, [program, ...shape, ...strip, '--cwd', source, '--out', root], {
    env: {
      ...process.env,
      JOBS: '2',
      ...(process.platform === 'linux' ? zigForGyp(zig) : {}),
      ...(headers === undefined ? {} : { npm_config_nodedir: headers }),
    },
  })
}

/** A folder with zig, and where it keeps what it has compiled of its libraries. */
function zigEnvironment() {
  const folder = join(installed('compilers'), 'zig')
  const cache = join(workFolder, 'cache')
  return {
    PATH: `${folder}${delimiter}${process.env.PATH}`,
    ZIG_GLOBAL_CACHE_DIR: process.env.ZIG_GLOBAL_CACHE_DIR ?? cache,
    ZIG_LOCAL_CACHE_DIR: process.env.ZIG_LOCAL_CACHE_DIR ?? cache,
  }
}

function zigForGyp(target) {
  // What of the C++ library is linked in must not be taken for the host's, nor the host's for it.
  const exports = join(root, 'scripts', 'prebuild', 'exports.map')
  return {
    ...zigEnvironment(),
    CC: `zig cc -target ${target}`,
    CXX: `zig c++ -target ${target}`,
    LDFLAGS: `-s -Wl,--version-script=${exports}`,
  }
}

/** What binding.gyp says, without gyp. */
function compile(name, target, file) {
  const objects = join(workFolder, name)
  rmSync(objects, { recursive: true, force: true })
  mkdirSync(objects, { recursive: true })
  mkdirSync(dirname(file), { recursive: true })
  const headers = nodeHeaders()
  if (headers === undefined) throw new Error(`${process.execPath} came without its headers`)
  const { native_sources, native_defines } = readJson('native/sources.gypi').variables
  const [{ cflags_cc }] = readJson('binding.gyp').targets
  const { compiler, environment, link } =
    target.zig === undefined ? mingw(target, objects) : zigForMac(target)
  const flags = [
    ...cflags_cc.filter((flag) => flag !== '-pthread'),
    ...[...native_defines, 'BUILDING_NODE_EXTENSION'].map((define) => `-D${define}`),
    '-I',
    join(root, 'node_modules', 'node-addon-api'),
    // Of Node itself: nothing there is for one system only.
    '-isystem',
    join(headers, 'include', 'node'),
  ]
  const [program, ...words] = compiler
  const env = { ...process.env, ...environment }
  const made = native_sources.map((source) => {
    const object = join(objects, `${basename(source, '.cc')}.o`)
    run(program, [...words, ...flags, '-c', join(root, source), '-o', object], { env })
    return object
  })
  run(program, [...words, '-shared', '-s', ...made, ...link, '-o', file], { env })
}

function zigForMac({ zig }) {
  // Node-API is found in whatever program loads it. Without a name of its own the file would be called what it is called here.
  const link = ['-Wl,-undefined,dynamic_lookup', '-Wl,-install_name,@rpath/qcow2.node']
  return { compiler: ['zig', 'c++', '-target', zig, '-fPIC'], environment: zigEnvironment(), link }
}

function mingw({ mingw: prefix }, objects) {
  const compiler = `${prefix}-g++-posix`
  needPrograms({ 'g++-mingw-w64-x86-64': `/usr/bin/${compiler}` })
  // Node-API is imported when it is first used, from the program that there is then: see native/host_windows.cc.
  const definitions = join(installed('compilers'), 'node-api-headers', 'def')
  const functions = ['node_api.def', 'js_native_api.def'].flatMap((name) =>
    readFileSync(join(definitions, name), 'utf8')
      .split(/\r?\n/)
      .filter((line) => /^\s*napi_|^\s*node_api_/.test(line)),
  )
  const definition = join(objects, 'node.def')
  const library = join(objects, 'libnode.a')
  writeFileSync(definition, ['LIBRARY node.exe', 'EXPORTS', ...functions, ''].join('\n'))
  run(`${prefix}-dlltool`, ['-d', definition, '--output-delaylib', library])
  return { compiler: [compiler], environment: {}, link: ['-static', library, '-ldelayimp'] }
}

function readJson(path) {
  return JSON.parse(readFileSync(join(root, path), 'utf8'))
}
