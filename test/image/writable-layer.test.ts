import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { defaultCache } from '../../lib/image/cache-modes.js'
import { DiskImage } from '../../lib/image/disk-image.js'
import { openWritable } from '../../lib/image/writable-layer.js'
import { createImage, openImage } from '../../lib/index.js'
import { lockedBytes } from '../support/lock-bytes.js'
import { run } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

const size = 1024 * 1024
const settings = { cache: defaultCache, locking: true, signal: undefined }

async function makeChain(
  t: ExecutionContext,
  format: 'qcow2' | 'raw' = 'qcow2',
): Promise<{ base: string; top: string; other: string }> {
  const folder = await makeFolder(t)
  const base = join(folder, 'base')
  await createImage(base, { size, format })
  for (const name of ['top', 'other']) {
    await createImage(join(folder, name), { backingFile: 'base', backingFormat: format })
  }
  return { base, top: join(folder, 'top'), other: join(folder, 'other') }
}

const reader = [100, 201, 203]
const writers = { qcow2: [100, 101, 103, 201, 203], raw: [100, 101, 103, 201, 203] } as const

for (const format of ['qcow2', 'raw'] as const) {
  test(`a ${format} backing file goes from read-only to writable and its locks with it`, async (t) => {
    const { base, top } = await makeChain(t, format)
    const image = await openImage(top)
    t.deepEqual(await lockedBytes(base), reader)
    const writable = await openWritable(DiskImage.layersOf(image), 1, settings)
    t.deepEqual(await lockedBytes(base), writers[format])
    const { stderr } = await run('qemu-io', ['-f', format, '-c', 'length', base])
    t.regex(stderr, /Failed to get "write" lock/)
    await writable.write(Uint8Array.of(7), 5)
    await writable.close()
    await image.close()
    t.deepEqual(await lockedBytes(base), [])
    const again = await openImage(base, { readOnly: true, format })
    t.is((await again.read({ offset: 5, length: 1 }))[0], 7)
    await again.close()
  })
}

test("another overlay's user keeps it read-only, and nothing of ours is left behind", async (t) => {
  const { base, top, other } = await makeChain(t)
  const image = await openImage(top)
  const theirs = await openImage(other)
  await t.throwsAsync(openWritable(DiskImage.layersOf(image), 1, settings), {
    code: 'ERR_IMAGE_LOCKED',
    message: /Failed to get "write" lock/,
  })
  t.deepEqual(
    await lockedBytes(base),
    [...reader, ...reader].sort((a, b) => a - b),
  )
  await theirs.close()
  await (await openWritable(DiskImage.layersOf(image), 1, settings)).close()
  await image.close()
})

test('another file under the same name is not taken for it', async (t) => {
  const { base, top } = await makeChain(t)
  const image = await openImage(top)
  await rename(base, `${base}.moved`)
  await createImage(base, { size })
  await t.throwsAsync(openWritable(DiskImage.layersOf(image), 1, settings), { code: 'ERR_IMAGE_LOCKED' })
  t.deepEqual(await lockedBytes(`${base}.moved`), reader)
  t.deepEqual(await lockedBytes(base), [])
  await image.close()
})
