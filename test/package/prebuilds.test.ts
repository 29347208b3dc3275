import { createRequire } from 'node:module'
import test from 'ava'

type Target = {
  readonly platform: string
  readonly arch: string
  readonly file: string
  readonly tags: string[]
}
type Tags = { napi?: boolean; runtime?: string; armv?: string; libc?: string; specificity: number }
type Loader = {
  parseTags(file: string): Tags
  compareTags(runtime: string): (one: Tags, other: Tags) => number
}

const { targets, pathOf } = (await import(
  new URL('../../../scripts/prebuild/targets.mjs', import.meta.url).href
)) as { targets: Record<string, Target>; pathOf: (target: Target) => string }
const loader = createRequire(import.meta.url)('node-gyp-build') as Loader

test('the loader reads from the name of each prebuild what it is for', (t) => {
  for (const [name, target] of Object.entries(targets)) {
    const { napi, runtime, armv, libc } = loader.parseTags(target.file)
    t.true(napi, name)
    t.is(runtime, 'node', name)
    t.is(armv, target.arch === 'arm64' ? '8' : undefined, name)
    t.is(libc, name.endsWith('-musl') ? 'musl' : undefined, name)
  }
})

test('where the C library is musl its own prebuild comes first', (t) => {
  for (const arch of ['x64', 'arm64']) {
    const files = Object.values(targets).filter(
      (target) => target.platform === 'linux' && target.arch === arch,
    )
    const sorted = files.map(({ file }) => loader.parseTags(file)).sort(loader.compareTags('node'))
    t.deepEqual(
      sorted.map(({ libc }) => libc),
      ['musl', undefined],
    )
  }
})

test('the tool that rebuilds for Electron finds one prebuild for each system', (t) => {
  const paths = Object.values(targets).map(pathOf)
  for (const system of ['linux-x64', 'linux-arm64', 'darwin-x64', 'darwin-arm64', 'win32-x64']) {
    const file = system.endsWith('arm64') ? 'node.napi.armv8.node' : 'node.napi.node'
    t.true(paths.includes(`prebuilds/${system}/${file}`), system)
  }
  t.is(new Set(paths).size, paths.length)
})

test('prebuildify is told the tags that the names have', (t) => {
  for (const { file, tags } of Object.values(targets)) {
    const told = tags.filter((tag) => !tag.startsWith('--')).map((tag) => (tag === '8' ? 'armv8' : tag))
    t.is(file, ['node', 'napi', ...told, 'node'].join('.'))
  }
})
