import { readdir, readFile, readlink, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type BackingGate, createImage, type DiskImage, openImage } from '../../lib/index.js'
import { qemuImg, qemuIo } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

const size = 1024 * 1024

/** A base with bytes 1 in its first half, and an overlay of it. */
async function makeChain(t: ExecutionContext): Promise<{ folder: string; base: string; overlay: string }> {
  const folder = await makeFolder(t)
  const base = join(folder, 'base.qcow2')
  const overlay = join(folder, 'overlay.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', base, String(size))
  await qemuIo(base, [`write -q -P 1 0 ${size / 2}`])
  await createImage(overlay, { backingFile: 'base.qcow2', backingFormat: 'qcow2' })
  return { folder, base, overlay }
}

async function byteAt(image: DiskImage, offset: number): Promise<number | undefined> {
  return (await image.read({ offset, length: 1 }))[0]
}

/** An image that refers to whatever a stranger may write there. */
async function withReference(
  folder: string,
  name: string,
  reference: string,
  format: string,
): Promise<string> {
  const path = join(folder, name)
  await qemuImg('create', '-q', '-f', 'qcow2', '-u', '-b', reference, '-F', format, path, String(size))
  return path
}

test('an overlay shows its backing file until it is written', async (t) => {
  const { base, overlay } = await makeChain(t)
  const before = await readFile(base)
  const image = await openImage(overlay)
  t.is(image.size, size)
  t.is(await byteAt(image, 0), 1)
  await image.write(Uint8Array.of(2), 0)
  t.deepEqual(await image.read({ offset: 0, length: 3 }), Uint8Array.of(2, 1, 1))
  t.is(await byteAt(image, size - 1), 0)
  await image.close()
  t.true((await readFile(base)).equals(before), 'a backing file is never written')
})

test('an image that is open already can stand below, and stays its owner’s', async (t) => {
  const { base, overlay } = await makeChain(t)
  const below = await openImage(base, { readOnly: true })
  const image = await openImage(overlay, { backing: () => below })
  t.is(await byteAt(image, 0), 1)
  await image.close()
  t.is(await byteAt(below, 0), 1)
  await below.close()
})

test('denied references open nothing and leave no locks', async (t) => {
  const { folder, overlay } = await makeChain(t)
  const asked: string[] = []
  const gates: BackingGate[] = ['deny', ({ name }) => void asked.push(name)]
  for (const backing of gates) {
    await t.throwsAsync(openImage(overlay, { backing }), { code: 'ERR_BACKING_DENIED' })
  }
  t.deepEqual(asked, ['base.qcow2'])
  const json = await withReference(
    folder,
    'json.qcow2',
    'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}',
    'raw',
  )
  await t.throwsAsync(openImage(json, { backing: 'allow' }), { code: 'ERR_BACKING_DENIED', message: /json:/ })
  const outside = await withReference(folder, 'outside.qcow2', '/etc/passwd', 'raw')
  await t.throwsAsync(openImage(outside), { code: 'ERR_BACKING_DENIED' })
  await (await openImage(overlay)).close()
})

test('a chain that comes back to itself is refused, under any name', async (t) => {
  const { folder } = await makeChain(t)
  const self = await withReference(folder, 'self.qcow2', 'self.qcow2', 'qcow2')
  await t.throwsAsync(openImage(self), {
    code: 'ERR_BACKING_LOOP',
    message: /Backing file 'self.qcow2' creates an infinite loop\./,
  })
  await symlink('loop-a.qcow2', join(folder, 'alias.qcow2'))
  const first = await withReference(folder, 'loop-a.qcow2', 'loop-b.qcow2', 'qcow2')
  await withReference(folder, 'loop-b.qcow2', 'alias.qcow2', 'qcow2')
  await t.throwsAsync(openImage(first), { code: 'ERR_BACKING_LOOP' })
})

test('a chain of 200 files is opened, one of more is refused', async (t) => {
  t.timeout(120_000)
  const folder = await makeFolder(t, { fast: true })
  const name = (index: number): string => `${index}.qcow2`
  await createImage(join(folder, name(0)), { size: 65536, clusterSize: 512 })
  const bottom = await openImage(join(folder, name(0)))
  await bottom.write(Uint8Array.of(7), 1000)
  await bottom.close()
  for (let index = 1; index <= 200; index++) {
    await createImage(join(folder, name(index)), {
      size: 65536,
      clusterSize: 512,
      backingFile: name(index - 1),
      backingFormat: 'qcow2',
      unsafe: true,
    })
  }
  const openInFolder = async (): Promise<number> => {
    const targets = (await readdir('/proc/self/fd')).map((fd) =>
      readlink(`/proc/self/fd/${fd}`).catch(() => ''),
    )
    return (await Promise.all(targets)).filter((target) => target.startsWith(folder)).length
  }
  const threads = async (): Promise<number> => (await readdir('/proc/self/task')).length
  const began = performance.now()
  const image = await openImage(join(folder, name(199)), { readOnly: true })
  t.log(`opened in ${Math.round(performance.now() - began)} ms`)
  const threadsBefore = await threads()
  t.is(await byteAt(image, 1000), 7)
  t.is(await openInFolder(), 200)
  t.true((await threads()) <= threadsBefore + 2, 'reading takes I/O threads, but no ordering threads')
  await image.close()
  await t.throwsAsync(openImage(join(folder, name(200)), { readOnly: true }), { code: 'ERR_BACKING_LOOP' })
  t.is(await openInFolder(), 0, 'all that was opened is closed again')
})

test('a missing or broken backing file is told of by both names', async (t) => {
  const { folder } = await makeChain(t)
  const missing = await withReference(folder, 'missing.qcow2', 'nothing.raw', 'raw')
  const error = await t.throwsAsync(openImage(missing), { code: 'ERR_NOT_FOUND' })
  t.regex(
    error?.message ?? '',
    /^Could not open '.*missing\.qcow2': Could not open backing file: Could not open 'nothing.raw'/,
  )
  const notQcow2 = await withReference(folder, 'not.qcow2', 'raw.img', 'qcow2')
  await createImage(join(folder, 'raw.img'), { size, format: 'raw' })
  await t.throwsAsync(openImage(notQcow2), {
    code: 'ERR_NOT_AN_IMAGE',
    message: /Could not open backing file/,
  })
})

test('a backing file without a format is believed to be raw, or qcow2 that refers to nothing', async (t) => {
  const { folder, overlay, base } = await makeChain(t)
  const raw = join(folder, 'raw.img')
  await createImage(raw, { size, format: 'raw' })
  const withoutFormat = async (name: string, reference: string): Promise<string> => {
    const path = join(folder, name)
    await createImage(path, { size, backingFile: reference, backingFormat: 'raw', unsafe: true })
    // The first extension of the header is the format: its type becomes one that nobody knows.
    const image = await readFile(path)
    const at = image.indexOf(Buffer.from([0xe2, 0x79, 0x2a, 0xca]))
    t.true(at > 0)
    image.writeUInt32BE(0x11223344, at)
    await writeFile(path, image)
    return path
  }
  for (const [name, reference] of [
    ['over-raw.qcow2', 'raw.img'],
    ['over-qcow2.qcow2', 'base.qcow2'],
  ] as const) {
    await (await openImage(await withoutFormat(name, reference))).close()
  }
  const overOverlay = await withoutFormat('over-overlay.qcow2', 'overlay.qcow2')
  await t.throwsAsync(openImage(overOverlay), {
    code: 'ERR_BACKING_DENIED',
    message: /does not say its format/,
  })
  const named = await openImage(overOverlay, {
    backing: ({ name }) => (name === 'overlay.qcow2' ? { path: overlay, format: 'qcow2' } : base),
  })
  t.is(await byteAt(named, 0), 1)
  await named.close()
})

test('an image with the dirty bit is repaired before it is written, and left alone by readers', async (t) => {
  const path = join(await makeFolder(t), 'dirty.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'lazy_refcounts=on', path, '1M')
  // `abort` leaves the refcounts of lazy images unwritten and the dirty bit set.
  await qemuIo(path, ['write -q -P 5 0 128k', 'flush', 'abort']).catch(() => undefined)
  const dirty = await readFile(path)
  t.is((dirty[79] ?? 0) & 1, 1, 'the image is dirty')
  const reader = await openImage(path, { readOnly: true })
  t.is(await byteAt(reader, 1000), 5)
  await reader.close()
  t.true((await readFile(path)).equals(dirty))
  const writer = await openImage(path)
  t.is(await byteAt(writer, 1000), 5)
  await writer.write(Uint8Array.of(6), 500_000)
  await writer.close()
  await qemuImg('check', '-q', path)
  t.is(((await readFile(path))[79] ?? 1) & 1, 0)
})
