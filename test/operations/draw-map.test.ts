import { copyFile, link, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { drawMap, MemoryFile, createImage } from '../../lib/index.js'
import { runCli } from '../support/cli.js'
import { qemuImg, qemuIo } from '../support/qemu.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

/** @returns how many elements there are. @throws  it is no well-formed XML */
function countElements(svg: string): number {
  const open: string[] = []
  let count = 0
  const bad = (what: string): never => {
    throw new Error(`${what}, in ${open.join(' > ')}`)
  }
  if (/[^\P{Cc}\n]|\p{Cs}|[\uFFFE\uFFFF]/u.test(svg)) bad('a character that XML has not')
  for (const [token] of svg.matchAll(/<[^>]*>?|[^<]+/g)) {
    if (/&(?!(?:amp|lt|gt|quot);)/.test(token)) bad(`a lone ampersand: ${token}`)
    if (!token.startsWith('<')) continue
    const tag = /^<(\/?)([a-z]+)((?: [a-zA-Z:-]+="[^"<]*")*)(\/?)>$/.exec(token)
    if (tag === null) throw new Error(`no tag: ${token}`)
    const [, closing, name = '', , empty] = tag
    if (closing === '/') {
      if (open.pop() !== name) bad(`</${name}>`)
      continue
    }
    count++
    if (empty === '') open.push(name)
  }
  if (open.length > 0) bad('it ends')
  return count
}

/** Bytes by state and layer, as the legend says. */
function legendOf(svg: string): Record<string, number> {
  const shares: Record<string, number> = {}
  for (const [, kind = '', bytes] of svg.matchAll(/data-kind="([^"]+)" data-bytes="(\d+)"/g)) {
    const name = kind.replace('compressed', 'data')
    shares[name] = (shares[name] ?? 0) + Number(bytes)
  }
  return shares
}

type Entry = { length: number; depth: number; present: boolean; zero: boolean }

async function stockShares(path: string, ...range: string[]): Promise<Record<string, number>> {
  const entries = JSON.parse(await qemuImg('map', '--output=json', ...range, path)) as Entry[]
  const shares: Record<string, number> = {}
  for (const { length, depth, present, zero } of entries) {
    const kind = present ? `${zero ? 'zero' : 'data'}-${Math.min(4, depth)}` : 'unallocated'
    shares[kind] = (shares[kind] ?? 0) + length
  }
  return shares
}

async function makeChain(folder: string, random: SeededRandom, layers: number): Promise<string> {
  let below: string | undefined
  for (let layer = layers - 1; layer >= 0; layer--) {
    const path = join(folder, `${layer}.qcow2`)
    const backing = below === undefined ? [] : ['-b', below, '-F', 'qcow2']
    await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', ...backing, path, '64M')
    // The stock tool compresses into clusters only that nothing was written to.
    const squeezed = new Set(Array.from({ length: 20 }, () => random.integer(16000) * 4))
    const commands = [...squeezed].map((offset) => `write -q -c ${offset}k 4k`)
    for (let count = 0; count < 40; count++) {
      const offset = random.integer(16000) * 4
      const length = random.between(1, Math.floor(Math.min(400, 65536 - offset) / 4)) * 4
      commands.push(`write -q ${random.pick(['', '-z '])}${offset}k ${length}k`)
    }
    await qemuIo(path, commands)
    below = path
  }
  return join(folder, '0.qcow2')
}

test('the legend has the bytes that qemu-img map lists, of chains of every depth', async (t) => {
  const seed = seedOfRun()
  t.log(`seed ${seed}`)
  const random = new SeededRandom(seed)
  for (const layers of [1, 3, 7]) {
    const path = await makeChain(await makeFolder(t, { fast: true }), random.fork(), layers)
    const { svg, files } = await drawMap(path)
    t.is(files.length, layers)
    t.deepEqual(legendOf(svg), await stockShares(path), `${layers} layers`)
    const part = await drawMap(path, { offset: 5_000_192, length: 30_000_128 })
    t.deepEqual(
      legendOf(part.svg),
      await stockShares(path, '-s', '5000192', '-l', '30000128'),
      `a part of ${layers} layers`,
    )
    const rest = await drawMap(path, { offset: 60_000_256 })
    t.deepEqual(legendOf(rest.svg), await stockShares(path, '-s', '60000256'))
    const beyond = await drawMap(path, { offset: 60_000_256, length: 2 ** 40 })
    t.is(beyond.svg, rest.svg)
    t.true(countElements(svg) > 100)
  }
})

test('each part tells on hovering what it is, and together they are the disk', async (t) => {
  const path = await makeChain(await makeFolder(t, { fast: true }), new SeededRandom(3), 2)
  const { svg } = await drawMap(path)
  let at = 0
  for (const [, offset, length] of svg.matchAll(/<title>[^<]*offset (\d+) \([^<]*length (\d+) \(/g)) {
    t.is(Number(offset), at)
    at += Number(length)
  }
  t.is(at, 64 * 1024 * 1024)
  t.is((svg.match(/<(?:path|g)[^>]*><title>/g) ?? []).length, (svg.match(/<title>/g) ?? []).length)
})

test('however many runs a disk has, the picture has some thousand parts, and refers to nothing outside', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const path = join(folder, 'striped.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', path, '8M')
  const every = Array.from({ length: 4000 }, (_, index) => `write -q ${index * 1024 * 2} 512`)
  await qemuIo(path, every)
  const { svg } = await drawMap(path)
  // A group, its title, and two shares for each cell.
  t.true(countElements(svg) < 4 * 2560 + 200)
  t.false(/https?:(?!\/\/www\.w3\.org\/2000\/svg")|href|@import|<script|<image/.test(svg))
  const vast = join(folder, 'vast.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=2M', vast, '4P')
  t.true(countElements((await drawMap(vast)).svg) < 100)
})

test('names of strangers are text in it, and an empty disk is a picture too', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const name = `<script>&"'\u0001\u202e${'x'.repeat(100)}.qcow2`
  await qemuImg('create', '-q', '-f', 'qcow2', join(folder, name), '1M')
  const { svg } = await drawMap(join(folder, name))
  t.true(countElements(svg) > 5)
  t.true(svg.includes("Map of &lt;script&gt;&amp;&quot;'\\u{1}\\u{202e}xxx"))
  const memory = new MemoryFile()
  await createImage(memory, { size: 0 })
  const empty = await drawMap(memory)
  t.true(countElements(empty.svg) > 5)
  t.true(empty.svg.includes('there is nothing to show'))
  t.true(countElements((await drawMap(join(folder, name), { offset: 2 ** 40 })).svg) > 5)
})

async function makeImages(t: ExecutionContext): Promise<string> {
  const folder = await makeFolder(t, { fast: true })
  await qemuImg('create', '-q', '-f', 'qcow2', join(folder, 'base.qcow2'), '1M')
  const options = ['-b', 'base.qcow2', '-F', 'qcow2']
  await qemuImg('create', '-q', '-f', 'qcow2', ...options, join(folder, 'disk.qcow2'))
  return folder
}

test('map --svg writes the picture, in place of an older one', async (t) => {
  const folder = await makeImages(t)
  const quiet = { code: 0, stdout: '', stderr: '' }
  t.deepEqual(await runCli(['map', '--svg', 'out.svg', 'disk.qcow2'], folder), quiet)
  const { svg } = await drawMap(join(folder, 'disk.qcow2'))
  t.is(await readFile(join(folder, 'out.svg'), 'utf8'), svg)
  t.deepEqual(await runCli(['map', '--svg=out.svg', '-s', '64k', '-l', '64k', 'disk.qcow2'], folder), quiet)
  t.not(await readFile(join(folder, 'out.svg'), 'utf8'), svg)
  t.deepEqual((await readdir(folder)).sort(), ['base.qcow2', 'disk.qcow2', 'out.svg'])
})

test('a picture takes the place of no image, under whatever name, and of nothing else that is none', async (t) => {
  const folder = await makeImages(t)
  await link(join(folder, 'disk.qcow2'), join(folder, 'hard'))
  await symlink('base.qcow2', join(folder, 'soft'))
  await copyFile(join(folder, 'disk.qcow2'), join(folder, 'other.qcow2'))
  await writeFile(join(folder, 'text'), 'my notes')
  await mkdir(join(folder, 'sub'))
  await symlink('/dev/null', join(folder, 'null'))
  const before = await Promise.all(
    ['disk.qcow2', 'base.qcow2', 'other.qcow2', 'text'].map((name) => readFile(join(folder, name))),
  )
  for (const [target, why] of [
    ['disk.qcow2', /it is the image or a file that it needs/],
    ['hard', /it is the image or a file that it needs/],
    ['soft', /it is something else/],
    ['base.qcow2', /it is something else/],
    ['other.qcow2', /it is something else/],
    ['text', /it is something else/],
    ['null', /it is something else/],
    ['sub', /Is a directory/],
    ['missing/out.svg', /No such file or directory/],
  ] as const) {
    const { code, stdout, stderr } = await runCli(['map', '--svg', target, 'disk.qcow2'], folder)
    t.deepEqual([code, stdout], [1, ''], target)
    t.regex(stderr, why, target)
  }
  const after = await Promise.all(
    ['disk.qcow2', 'base.qcow2', 'other.qcow2', 'text'].map((name) => readFile(join(folder, name))),
  )
  t.deepEqual(after, before)
  t.is((await stat(join(folder, 'hard'))).nlink, 2)
})

test('a disk that begins like a picture is a disk, if the image needs it', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  await writeFile(join(folder, 'base.raw'), `<svg >${'x'.repeat(506)}`)
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', join(folder, 'disk.qcow2'))
  const { code, stderr } = await runCli(['map', '--svg', 'base.raw', 'disk.qcow2'], folder)
  t.is(code, 1)
  t.regex(stderr, /it is the image or a file that it needs/)
})

test('--svg and --output contradict each other, and --s is still the start', async (t) => {
  const folder = await makeImages(t)
  const both = await runCli(['map', '--svg', 'a.svg', '--output=json', 'disk.qcow2'], folder)
  t.is(both.code, 1)
  t.regex(both.stderr, /cannot be used at the same time/)
  const abbreviated = await runCli(['map', '--s', '64k', '--output=json', 'disk.qcow2'], folder)
  t.regex(abbreviated.stdout, /^\[\{ "start": 65536,/)
})
