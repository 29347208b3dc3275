import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { symlink } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { convertImage, createImage, imageInfo, openImage, type OpenOptions } from '../../lib/index.js'
import { cliPath, runCommand } from '../support/cli.js'
import { lockedBytes } from '../support/lock-bytes.js'
import { qemuImg, run } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

/** Start `qemu-io` on an image and keep it open. @returns a function that ends it */
async function heldByQemu(
  t: ExecutionContext,
  path: string,
  ...options: string[]
): Promise<() => Promise<void>> {
  const child = spawn('qemu-io', [...options, path], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = once(child, 'exit')
  const end = async (): Promise<void> => {
    child.stdin.end('quit\n')
    await ended
  }
  t.teardown(end)
  // The answer to a command shows that the image is open and locked.
  child.stdin.write('length\n')
  await once(child.stdout, 'data')
  return end
}

async function makeImages(t: ExecutionContext): Promise<{ qcow2: string; raw: string }> {
  const folder = await makeFolder(t)
  const qcow2 = join(folder, 'disk.qcow2')
  const raw = join(folder, 'disk.raw')
  await createImage(qcow2, { size: 1024 * 1024 })
  await createImage(raw, { size: 1024 * 1024, format: 'raw' })
  return { qcow2, raw }
}

const locked = (lock: string) => ({
  code: 'ERR_IMAGE_LOCKED',
  message: new RegExp(`Failed to get ${lock} lock`),
})

test('an open image holds the bytes that QEMU holds in its place', async (t) => {
  const { qcow2, raw } = await makeImages(t)
  const cases: [string, OpenOptions, number[]][] = [
    [qcow2, {}, [100, 101, 103, 201, 203]],
    [qcow2, { readOnly: true }, [100, 201, 203]],
    [qcow2, { readOnly: true, forceShare: true }, [100]],
    [qcow2, { locking: 'off' }, []],
    [raw, { format: 'raw' }, [100, 101, 103, 201]],
    [raw, { format: 'raw', readOnly: true }, [100, 201, 203]],
  ]
  for (const [path, options, bytes] of cases) {
    const image = await openImage(path, options)
    t.deepEqual(await lockedBytes(path), bytes, JSON.stringify(options))
    await image.close()
    t.deepEqual(await lockedBytes(path), [])
  }
})

test('the bytes held for a qcow2 image are those of qemu-io', async (t) => {
  const { qcow2 } = await makeImages(t)
  for (const readOnly of [false, true]) {
    const end = await heldByQemu(t, qcow2, '-f', 'qcow2', ...(readOnly ? ['-r'] : []))
    const theirs = await lockedBytes(qcow2)
    await end()
    const image = await openImage(qcow2, { readOnly })
    t.deepEqual(await lockedBytes(qcow2), theirs)
    await image.close()
  }
})

test('an image that QEMU writes is not opened, for writing or for reading', async (t) => {
  const { qcow2 } = await makeImages(t)
  const end = await heldByQemu(t, qcow2, '-f', 'qcow2')
  await t.throwsAsync(openImage(qcow2), locked('"write"'))
  await t.throwsAsync(openImage(qcow2, { readOnly: true }), locked('shared "write"'))
  await t.throwsAsync(imageInfo(qcow2), locked('shared "write"'))
  await t.throwsAsync(createImage(qcow2, { size: 512, overwrite: true }), locked('"write"'))
  const shared = await openImage(qcow2, { readOnly: true, forceShare: true })
  await shared.close()
  t.is((await imageInfo(qcow2, { forceShare: true })).virtualSize, 1024 * 1024)
  await end()
  await (await openImage(qcow2)).close()
})

test('an image that we write is not opened by QEMU, for writing or for reading', async (t) => {
  const { qcow2 } = await makeImages(t)
  const image = await openImage(qcow2)
  const write = await run('qemu-io', ['-f', 'qcow2', '-c', 'write 0 512', qcow2])
  t.regex(write.stderr, /Failed to get "write" lock/)
  const read = await run('qemu-img', ['check', qcow2])
  t.regex(read.stderr, /Failed to get shared "write" lock/)
  const resize = await run('qemu-img', ['resize', qcow2, '2M'])
  t.regex(resize.stderr, /Failed to get "write" lock/)
  await image.close()
  await qemuImg('resize', '-q', qcow2, '2M')
})

test('readers share an image with QEMU and with each other, and keep writers out', async (t) => {
  const { qcow2 } = await makeImages(t)
  await heldByQemu(t, qcow2, '-r', '-f', 'qcow2')
  const first = await openImage(qcow2, { readOnly: true })
  const second = await openImage(qcow2, { readOnly: true })
  await t.throwsAsync(openImage(qcow2), locked('"write"'))
  await qemuImg('check', qcow2)
  await first.close()
  await second.close()
})

test('one process cannot open an image for writing twice', async (t) => {
  const { qcow2, raw } = await makeImages(t)
  for (const [path, format] of [
    [qcow2, 'qcow2'],
    [raw, 'raw'],
  ] as const) {
    const image = await openImage(path, { format })
    await t.throwsAsync(openImage(path, { format }), locked('"write"'))
    await t.throwsAsync(openImage(path, { format, readOnly: true }), locked('shared "write"'))
    await image.close()
    await (await openImage(path, { format })).close()
  }
})

test('a raw image that QEMU writes is not written by us, and the other way round', async (t) => {
  const { raw } = await makeImages(t)
  const end = await heldByQemu(t, raw, '-f', 'raw')
  await t.throwsAsync(openImage(raw, { format: 'raw' }), { code: 'ERR_IMAGE_LOCKED' })
  await end()
  const image = await openImage(raw, { format: 'raw' })
  const write = await run('qemu-io', ['-f', 'raw', '-c', 'write 0 512', raw])
  t.regex(write.stderr, /Failed to get "write" lock/)
  await image.close()
})

test('a backing file in use can be shared by overlays, but not written', async (t) => {
  const { qcow2: base } = await makeImages(t)
  const overlays = ['one', 'two'].map((name) => join(base, '..', `${name}.qcow2`))
  for (const path of overlays) await createImage(path, { backingFile: 'disk.qcow2', backingFormat: 'qcow2' })
  const images = await Promise.all(overlays.map((path) => openImage(path)))
  t.deepEqual(await lockedBytes(base), [100, 100, 201, 201, 203, 203])
  const write = await run('qemu-io', ['-f', 'qcow2', '-c', 'write 0 512', base])
  t.regex(write.stderr, /Failed to get "write" lock/)
  await t.throwsAsync(openImage(base), locked('"write"'))
  for (const image of images) await image.close()
  t.deepEqual(await lockedBytes(base), [])
})

test('of an image in use the command says what qemu-img says, and makes overlays of it', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'used.qcow2')
  await createImage(path, { size: 1024 * 1024 })
  await createImage(join(folder, 'source'), { size: 1024 * 1024 })
  const link = join(folder, 'qemu-img')
  await symlink(cliPath, link)
  const end = await heldByQemu(t, path, '-f', 'qcow2')
  for (const command of [
    'create -q -f qcow2 -b used.qcow2 -F qcow2 overlay',
    'create -q -f qcow2 used.qcow2 1M',
    'convert -O qcow2 source used.qcow2',
    'convert -O raw source used.qcow2',
    'convert -n -O qcow2 source used.qcow2',
    'resize used.qcow2 2M',
  ]) {
    const ours = await runCommand([process.execPath, link, ...command.split(' ')], folder)
    const theirs = await runCommand(['qemu-img', ...command.split(' ')], folder)
    t.deepEqual(ours, theirs, command)
  }
  await end()
})

test('a conversion onto its own source is refused, and the source stays', async (t) => {
  const { qcow2 } = await makeImages(t)
  await t.throwsAsync(convertImage(qcow2, qcow2, { format: 'raw', overwrite: true }), {
    code: 'ERR_IMAGE_LOCKED',
  })
  t.is((await imageInfo(qcow2)).format, 'qcow2')
})

test('a failed opening leaves no locks behind', async (t) => {
  const { qcow2 } = await makeImages(t)
  const end = await heldByQemu(t, qcow2, '-r', '-f', 'qcow2')
  await t.throwsAsync(openImage(qcow2), { code: 'ERR_IMAGE_LOCKED' })
  await end()
  t.deepEqual(await lockedBytes(qcow2), [])
})
