import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { untestedFiles } from './support/untested-files.js'

/** The repository: this file runs as dist/test/tidy.test.js. */
const root = fileURLToPath(new URL('../..', import.meta.url))

/** Longest file that anybody wants to read. */
const mostLines = 500

type Source = { readonly path: string; readonly text: string }

function filesBelow(folder: string, ending: RegExp): Source[] {
  if (!existsSync(join(root, folder))) return []
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => ending.test(name))
    .map((name) => join(folder, name))
    .sort()
    .map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }))
}

const lib = filesBelow('lib', /\.ts$/)
const tests = filesBelow('test', /\.ts$/)
const scripts = filesBelow('scripts', /\.(mjs|sh)$/)
const native = filesBelow('native', /\.(cc|h)$/)
const examples = filesBelow('examples', /^(?!.*node_modules).*\.(mjs|cjs|js|css|html)$/)
const everything = [...lib, ...tests, ...scripts, ...native, ...examples]

/** Every `path:line: text` that matches, apart from lines that `allowed` lets pass. */
function linesMatching(sources: readonly Source[], pattern: RegExp, allowed?: RegExp): string[] {
  return sources.flatMap(({ path, text }) =>
    text.split('\n').flatMap((line, index) => {
      if (!pattern.test(line) || allowed?.test(line) === true) return []
      return [`${path}:${index + 1}: ${line.trim()}`]
    }),
  )
}

function none(t: ExecutionContext, found: readonly string[], rule: string): void {
  t.is(found.length, 0, `${rule}\n  ${found.join('\n  ')}`)
}

test('there is something to look at', (t) => {
  t.true(lib.length > 50)
  t.true(tests.length > 30)
  t.true(native.length > 10)
  t.true(examples.length > 5)
})

/** The layers, from the ground up. A file imports from its own folder or from a lower layer. */
const layers: Readonly<Record<string, number>> = {
  base: 0,
  native: 1,
  queue: 2,
  luks: 2,
  qcow2: 3,
  raw: 3,
  image: 4,
  operations: 5,
  cli: 7,
}

type Import = { readonly from: string; readonly specifier: string }

const imports: Import[] = lib.flatMap(({ path, text }) =>
  [
    ...text.matchAll(
      /^(?:import|export|\}) [^;\n]*?from '([^']+)'|\bimport\('([^']+)'\)|^import '([^']+)'/gm,
    ),
  ].map(([, a, b, c]) => ({ from: path, specifier: a ?? b ?? c ?? '' })),
)

const isLocal = ({ specifier }: Import): boolean => specifier.startsWith('.')
/** lib/qcow2/read.ts -> qcow2; lib/index.ts -> '' */
const folderOf = (path: string): string => /^lib\/([^/]+)\//.exec(path)?.[1] ?? ''
const targetOf = ({ from, specifier }: Import): string =>
  normalize(join(dirname(from), specifier)).replace(/\.js$/, '.ts')

test('a file imports from its own folder or from a lower layer only', (t) => {
  const wrong = imports.filter(isLocal).filter((entry) => {
    const [from, to] = [folderOf(entry.from), folderOf(targetOf(entry))]
    // The entry points at the top of lib stand above all layers.
    if (from === '' || from === to) return false
    return (layers[to] ?? Number.POSITIVE_INFINITY) >= (layers[from] ?? -1)
  })
  none(
    t,
    wrong.map(({ from, specifier }) => `${from} imports ${specifier}`),
    'imports against the layers',
  )
})

test('every folder of lib has its layer, and every import leads to a file', (t) => {
  none(
    t,
    lib.map(({ path }) => folderOf(path)).filter((name) => name !== '' && layers[name] === undefined),
    'no layer',
  )
  const missing = imports.filter(isLocal).filter((entry) => !existsSync(join(root, targetOf(entry))))
  none(
    t,
    missing.map(({ from, specifier }) => `${from} imports ${specifier}`),
    'no such file',
  )
})

test('nothing but Node itself, the addon loader and a decoder is imported from outside', (t) => {
  const outside = imports
    .filter((entry) => !isLocal(entry) && !entry.specifier.startsWith('node:'))
    .map(({ from, specifier }) => `${from} imports ${specifier}`)
  const decoder = 'lib/qcow2/zstd.ts imports fzstd'
  t.true(outside.includes(decoder))
  none(
    t,
    outside.filter((entry) => entry !== decoder),
    'a dependency nobody decided on',
  )
  none(t, linesMatching(lib, /^import .*'fzstd'/), 'the decoder is loaded when a cluster asks for it')
  none(
    t,
    linesMatching(
      lib.filter(({ path }) => folderOf(path) !== 'native'),
      /node-gyp-build|\.node'/,
    ),
    'the addon is loaded in lib/native only',
  )
})

test('the packages that users get are the three that were decided on', (t) => {
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>
  }
  t.deepEqual(Object.keys(dependencies).sort(), ['fzstd', 'node-addon-api', 'node-gyp-build'])
})

test('no file is longer than anybody wants to read', (t) => {
  const long = everything
    .map(({ path, text }) => ({ path, lines: text.split('\n').length - 1 }))
    .filter(({ lines }) => lines > mostLines)
  none(
    t,
    long.map(({ path, lines }) => `${path}: ${lines} lines`),
    `more than ${mostLines} lines`,
  )
})

test('file names are kebab-case and no room for everything', (t) => {
  const names = [...lib, ...tests].map(({ path }) => path)
  none(
    t,
    names.filter((path) => !/^([a-z0-9]+(-[a-z0-9]+)*\/)*[a-z0-9]+(-[a-z0-9]+)*(\.test)?\.ts$/.test(path)),
    'not kebab-case',
  )
  none(
    t,
    names.filter((path) => /\/(utils?|helpers?|common|misc)(\.test)?\.ts$/.test(path)),
    'a name that says nothing',
  )
})

test('nothing is left to do without a reason, and no check is switched off without one', (t) => {
  // Written apart so that this file passes its own rules.
  none(
    t,
    linesMatching(everything, new RegExp('\\b(TO' + 'DO|FIX' + 'ME|X' + 'XX)\\b'), /: [a-z].{15,}/),
    'to do, without a reason',
  )
  none(
    t,
    linesMatching(everything, new RegExp('@ts-(ig' + 'nore|nocheck|expect-error)'), /-- .{10,}/),
    'the compiler silenced',
  )
  none(
    t,
    linesMatching(everything, new RegExp('eslint-dis' + 'able|prettier-ig' + 'nore'), /-- .{10,}/),
    'the linter silenced',
  )
  none(t, linesMatching([...tests], new RegExp('\\btest\\.(on' + 'ly|failing|todo)\\b')), 'tests left out')
})

test('no file knows the machine that it was written on', (t) => {
  none(
    t,
    linesMatching(everything, new RegExp('["\'`( ]/(wo' + 'rk|ro' + 'ot|ho' + 'me)/')),
    'a path of one machine',
  )
})

test('the library prints nothing, exports by name, and loads without waiting', (t) => {
  none(t, linesMatching(lib, /\bconsole\./), 'console')
  none(
    t,
    linesMatching(
      lib.filter(({ path }) => folderOf(path) !== 'cli'),
      /process\.(stdout|stderr|exit|argv)/,
    ),
    "the process is the caller's",
  )
  none(t, linesMatching([...lib, ...tests], /^export default\b/), 'export default')
  none(
    t,
    linesMatching(lib, /^(?:(?:export )?(?:const|let) .*= )?await\b/),
    'top-level await: require() could not load it',
  )
})

test('nothing is of type any', (t) => {
  none(t, linesMatching([...lib, ...tests], /(?::|\bas|<|\|) ?any\b(?! [a-z])/, /^\s*(\/\/|\*|\/\*)/), 'any')
})

test('every barrier stands in the ordering policy', (t) => {
  const users = lib.filter(({ path }) => !['queue', 'native'].includes(folderOf(path)))
  const elsewhere = users.filter(({ path }) => path !== 'lib/qcow2/write-ordering.ts')
  none(
    t,
    linesMatching(elsewhere, /\.(barrier|countBarrier|enqueue|sectionAfterData)\(/),
    'ordering outside of write-ordering.ts',
  )
})

test('the request queue is pure: no I/O, no lock, no thread, no JavaScript', (t) => {
  const pure = native.filter(({ path }) => /^native\/request_queue\.(cc|h)$/.test(path))
  t.is(pure.length, 2)
  none(
    t,
    linesMatching(
      pure,
      /#include <(thread|mutex|shared_mutex|condition_variable|atomic|future|fstream|iostream|unistd\.h|fcntl\.h|sys\/.*|napi\.h|node_api\.h|uv\.h)>/,
    ),
    'impure',
  )
})

test('the addon has no mutable state outside of its environments', (t) => {
  const variable =
    /^\s*(?:inline )?(?:static|thread_local)\s+(?!const\b|constexpr\b|inline constexpr\b|_?assert\b)[^()]*(?:=.*|\{.*\})?;/
  none(t, linesMatching(native, variable), 'static mutable state')
  none(t, linesMatching(native, /^(?:std::)?[A-Za-z_:<>, ]+[ *&]+g_[a-z_]+/), 'a global variable')
})

/** Compiled, a file of types alone is empty. */
function hasCode(path: string): boolean {
  const compiled = readFileSync(join(root, 'dist', path.replace(/\.ts$/, '.js')), 'utf8')
  return compiled.replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$|^export \{\};$|^import .*$/gm, '').trim() !== ''
}

test('every file of lib with code has a test of its name, or a reason', (t) => {
  const untested = lib
    .map(({ path }) => relative('lib', path))
    .filter(
      (path) =>
        !existsSync(join(root, 'test', path.replace(/\.ts$/, '.test.ts'))) && hasCode(join('lib', path)),
    )
  none(
    t,
    untested.filter((path) => untestedFiles[path] === undefined),
    'no test and no reason',
  )
  none(
    t,
    Object.keys(untestedFiles).filter((path) => !untested.includes(path)),
    'listed, but has a test or is gone',
  )
})
