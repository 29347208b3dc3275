import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as zlib from 'node:zlib'
import test from 'ava'
import { addon } from '../../lib/native/addon.js'
import { cliPath, runCli, runCommand } from '../support/cli.js'
import { placesOf } from '../support/image-bytes.js'
import { run } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

/** A raw image with data, holes and a tail that fills no cluster. */
async function makeSource(folder: string, megabytes = 3): Promise<Buffer> {
  const bytes = Buffer.alloc(megabytes * 2 ** 20 + 512)
  for (let offset = 0; offset < bytes.length; offset += 300_000) {
    bytes.subarray(offset, offset + 70_000).fill(offset % 251)
  }
  bytes.fill(0xaa, bytes.length - 512)
  await writeFile(join(folder, 'source.raw'), bytes)
  return bytes
}

test('raw to qcow2 and back gives the same bytes', async (t) => {
  const folder = await makeFolder(t)
  const bytes = await makeSource(folder)
  t.deepEqual(await runCli(['convert', '-f', 'raw', '-O', 'qcow2', 'source.raw', 'a.qcow2'], folder), {
    code: 0,
    stdout: '',
    stderr: '',
  })
  t.is((await runCli(['convert', 'a.qcow2', 'b.raw'], folder)).code, 0)
  t.true(bytes.equals(await readFile(join(folder, 'b.raw'))))
})

test('several sources are put one behind the other', async (t) => {
  const folder = await makeFolder(t)
  const bytes = await makeSource(folder)
  await runCli(['convert', '-f', 'raw', '-O', 'qcow2', 'source.raw', 'source.raw', 'two.qcow2'], folder)
  await runCli(['convert', 'two.qcow2', 'two.raw'], folder)
  t.true(Buffer.concat([bytes, bytes]).equals(await readFile(join(folder, 'two.raw'))))
})

const compressing = (type: string): string[] => [
  'convert',
  ...['-c', '-O', 'qcow2', '-o', `compression_type=${type}`],
  ...['source.raw', `${type}.qcow2`],
]

test('with -c the target is compressed, with zstd where there is a library for it', async (t) => {
  const folder = await makeFolder(t)
  const bytes = await makeSource(folder)
  for (const type of ['zlib', 'zstd'] as const) {
    const outcome = await runCli(compressing(type), folder)
    if (!addon().codecs[type]()) {
      t.is(outcome.code, 1)
      continue
    }
    t.deepEqual(outcome, { code: 0, stdout: '', stderr: '' })
    t.true((await stat(join(folder, `${type}.qcow2`))).size < bytes.length / 2)
    t.is((await runCli(['compare', 'source.raw', `${type}.qcow2`], folder)).code, 0)
    t.regex((await runCli(['info', `${type}.qcow2`], folder)).stdout, new RegExp(`compression type: ${type}`))
  }
})

// Where the system keeps its libraries elsewhere, or has none of it.
const testWithLibrary = process.platform === 'linux' && addon().codecs.zstd() ? test : test.skip

testWithLibrary('without a library, zstd is written by node:zlib alone and read all the same', async (t) => {
  const folder = await makeFolder(t)
  const bytes = await makeSource(folder)
  t.is((await runCli(compressing('zstd'), folder)).code, 0)
  await rename(join(folder, 'zstd.qcow2'), join(folder, 'read.qcow2'))
  await mkdir(join(folder, 'libraries'))
  await writeFile(join(folder, 'libraries/libzstd.so.1'), 'this is no library')
  const program = ['env', 'LD_LIBRARY_PATH=libraries', process.execPath, cliPath]
  const read = await runCommand([...program, 'convert', '-O', 'raw', 'read.qcow2', 'back.raw'], folder)
  t.deepEqual(read, { code: 0, stdout: '', stderr: '' })
  t.true(bytes.equals(await readFile(join(folder, 'back.raw'))))
  const written = await runCommand([...program, ...compressing('zstd')], folder)
  if ('zstdCompress' in zlib) {
    t.is(written.code, 0)
    return
  }
  t.is(written.code, 1)
  t.regex(
    written.stderr,
    /^\S+: Writing zstd compressed clusters takes Node\.js 22\.15, [^\n]*libzstd\.so\.1; [^\n]*\n$/,
  )
  t.false((await readdir(folder)).includes('zstd.qcow2'))
})

test('with -B only the difference is written', async (t) => {
  const folder = await makeFolder(t)
  await makeSource(folder)
  await runCli(['convert', '-f', 'raw', '-O', 'qcow2', 'source.raw', 'base.qcow2'], folder)
  const args = ['-O', 'qcow2', '-B', 'base.qcow2', '-F', 'qcow2', 'base.qcow2', 'thin.qcow2']
  t.is((await runCli(['convert', ...args], folder)).code, 0)
  const rows = JSON.parse((await runCli(['map', '--output=json', 'thin.qcow2'], folder)).stdout) as {
    depth: number
  }[]
  t.true(rows.every(({ depth }) => depth === 1))
  t.is((await runCli(['compare', 'thin.qcow2', 'source.raw'], folder)).code, 0)
})

test('with -n the image that exists is written into, and keeps its shape', async (t) => {
  const folder = await makeFolder(t)
  await makeSource(folder)
  await runCli(['create', '-f', 'qcow2', '-o', 'cluster_size=4k', 'target.qcow2', '8M'], folder)
  t.is((await runCli(['convert', '-n', '-O', 'qcow2', 'source.raw', 'target.qcow2'], folder)).code, 0)
  const info = await runCli(['info', 'target.qcow2'], folder)
  t.regex(info.stdout, /virtual size: 8 MiB[^]*cluster_size: 4096/)
  t.is((await runCli(['compare', 'source.raw', 'target.qcow2'], folder)).code, 0)
  t.is((await runCli(['check', 'target.qcow2'], folder)).code, 0)
})

test('-p without a terminal is the form that other programs read', async (t) => {
  const folder = await makeFolder(t)
  await makeSource(folder)
  const { stdout } = await runCli(['convert', '-p', '-O', 'qcow2', 'source.raw', 'a.qcow2'], folder)
  t.regex(stdout, /^ {4}\(0\.00\/100%\)\r(?: {4}\(\d+\.\d\d\/100%\)\r)* {4}\(100\.00\/100%\)\r\n$/)
  const quiet = await runCli(['convert', '-q', '-p', '-O', 'qcow2', 'source.raw', 'a.qcow2'], folder)
  t.is(quiet.stdout, '')
})

test('--json-progress is a line of JSON for each step on standard error', async (t) => {
  const folder = await makeFolder(t)
  const bytes = await makeSource(folder)
  const { stdout, stderr } = await runCli(
    ['convert', '--json-progress', '-O', 'qcow2', 'source.raw', 'a.qcow2'],
    folder,
  )
  t.is(stdout, '')
  const steps = stderr
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { bytesDone: number; bytesTotal: number })
  t.true(steps.length >= 2)
  t.true(steps.every(({ bytesTotal }) => bytesTotal === bytes.length))
  t.is(steps.at(-1)?.bytesDone, bytes.length)
})

for (const [signal, when] of [
  ['SIGINT', 'Ctrl-C'],
  ['SIGTERM', 'a polite kill'],
] as const) {
  test(`${when} in the middle leaves no half-written target, and the parent sees the signal`, async (t) => {
    const folder = await makeFolder(t)
    await makeSource(folder, 200)
    const args = [
      cliPath,
      'convert',
      '-p',
      '-f',
      'raw',
      '-O',
      'qcow2',
      '-t',
      'writethrough',
      '-S',
      '0',
      'source.raw',
      'target.qcow2',
    ]
    const child = spawn(process.execPath, args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] })
    // The first step beyond nothing: it is at work.
    await new Promise<void>((resolve) => {
      child.stdout.on('data', (text: Buffer) => {
        if (/\([1-9]/.test(text.toString())) resolve()
      })
    })
    child.kill(signal)
    const [code, killedBy] = (await once(child, 'exit')) as [number | null, string | null]
    t.is(code, null)
    t.is(killedBy, signal)
    t.deepEqual(await readdir(folder), ['source.raw'])
  })
}

test('a target that was there stays as it is when the conversion fails', async (t) => {
  const folder = await makeFolder(t)
  await writeFile(join(folder, 'target.qcow2'), 'precious')
  await writeFile(join(folder, 'broken.qcow2'), Buffer.from('514649fb00000003', 'hex'))
  t.is((await runCli(['convert', '-O', 'qcow2', 'broken.qcow2', 'target.qcow2'], folder)).code, 1)
  t.is(await readFile(join(folder, 'target.qcow2'), 'utf8'), 'precious')
  t.deepEqual((await readdir(folder)).sort(), ['broken.qcow2', 'target.qcow2'])
})

test('--salvage goes past what is damaged, and says what is lost', async (t) => {
  const folder = await makeFolder(t)
  await makeSource(folder)
  await runCli(['convert', '-f', 'raw', '-O', 'qcow2', 'source.raw', 'a.qcow2'], folder)
  const image = await readFile(join(folder, 'a.qcow2'))
  const [first, , third] = placesOf(image).l2
  for (const entry of [first, third]) image.writeBigUInt64BE(0x8000_0000_0005_0200n, entry)
  await writeFile(join(folder, 'a.qcow2'), image)
  const { code, stdout, stderr } = await runCli(['convert', '-q', '--salvage', 'a.qcow2', 'b.raw'], folder)
  t.is(code, 0)
  t.is(stdout, '')
  const [one, two, all, ...rest] = stderr.split('\n')
  t.regex(
    one ?? '',
    /^qcow2: warning: error while reading offset 0: Image is corrupt: .*; 65536 bytes are zeroes$/,
  )
  t.regex(two ?? '', /^qcow2: warning: error while reading offset 131072: .*; 65536 bytes are zeroes$/)
  t.is(all, 'qcow2: warning: 131072 bytes could not be read and are zeroes')
  t.deepEqual(rest, [''])
  t.deepEqual(
    await run('qemu-img', [
      'convert',
      '--salvage',
      '-O',
      'raw',
      join(folder, 'a.qcow2'),
      join(folder, 'c.raw'),
    ]).then(({ code }) => code),
    0,
  )
  t.true((await readFile(join(folder, 'b.raw'))).equals(await readFile(join(folder, 'c.raw'))))
})

for (const words of ['-C --salvage', '-C -c', '-C -S 4k', '-C -c -S 4k --salvage', '-C -S 4k --salvage']) {
  test(`${words} exclude each other, in the stock tool's words`, async (t) => {
    const folder = await makeFolder(t)
    await makeSource(folder)
    const args = ['convert', ...words.split(' '), '-O', 'qcow2', 'source.raw', 'x.qcow2']
    const stock = await run('qemu-img', args)
    const { code, stderr } = await runCli(args, folder)
    t.is(code, 1)
    t.is(stderr, stock.stderr.replace('qemu-img: ', 'qcow2: '))
    t.deepEqual(await readdir(folder), ['source.raw'])
  })
}

test('a backing file that is named for an image that exists changes nothing', async (t) => {
  const folder = await makeFolder(t)
  await makeSource(folder)
  await runCli(['convert', '-f', 'raw', '-O', 'qcow2', 'source.raw', 'base.qcow2'], folder)
  await runCli(['create', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'top.qcow2'], folder)
  for (const name of ['base.qcow2', 'missing']) {
    const words = ['convert', '-n', '-B', name, '-f', 'raw', '-O', 'qcow2', 'source.raw', 'top.qcow2']
    t.deepEqual(await runCli(words, folder), { code: 0, stdout: '', stderr: '' })
  }
  t.is((await runCli(['compare', '-F', 'raw', 'top.qcow2', 'source.raw'], folder)).code, 0)
})

test('what is equal in the backing file is not copied, where the stock tool copies it', async (t) => {
  const folder = await makeFolder(t)
  await makeSource(folder)
  await runCli(['convert', '-f', 'raw', '-O', 'qcow2', 'source.raw', 'base.qcow2'], folder)
  const words = ['convert', '-O', 'qcow2', '-B', 'file:base.qcow2', '-F', 'qcow2', 'base.qcow2', 'top.qcow2']
  t.is((await runCli(words, folder)).code, 0)
  const { stdout } = await runCli(['map', '--output=json', 'top.qcow2'], folder)
  t.true((JSON.parse(stdout) as { depth: number }[]).every(({ depth }) => depth === 1))
  const info = await runCli(['info', '--output=json', 'top.qcow2'], folder)
  t.is((JSON.parse(info.stdout) as Record<string, unknown>)['backing-filename'], 'base.qcow2', 'a plain path')
})
