import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { commitImage, createImage, imageInfo, openImage, type Progress } from '../../lib/index.js'
import { mayMount, mountSmall } from '../support/mounts.js'
import { qemuCheck } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

const MiB = 1024 * 1024
const size = 8 * MiB

type Chain = { readonly folder: string; readonly path: (name: string) => string }

/** A base with 1s, an overlay with 2s in every second MiB and zeros in one. */
async function makeChain(
  t: ExecutionContext,
  baseFormat: 'qcow2' | 'raw' = 'qcow2',
  at?: string,
): Promise<Chain> {
  const folder = at ?? (await makeFolder(t, { fast: true }))
  const path = (name: string): string => join(folder, name)
  await createImage(path('base'), { size: size / 2, format: baseFormat })
  const base = await openImage(path('base'), { format: baseFormat, cache: { reservation: 0 } })
  await base.write(new Uint8Array(2 * MiB).fill(1), 0)
  await base.close()
  await createImage(path('top'), { size, backingFile: 'base', backingFormat: baseFormat })
  const top = await openImage(path('top'), { cache: { reservation: 0 } })
  for (let start = 0; start < size; start += 2 * MiB) await top.write(new Uint8Array(MiB).fill(2), start)
  await top.writeZeroes({ offset: MiB, length: MiB / 2, unmap: true })
  await top.close()
  return { folder, path }
}

async function readAll(path: string, format: 'qcow2' | 'raw' = 'qcow2'): Promise<Buffer> {
  const image = await openImage(path, { readOnly: true, format })
  try {
    return Buffer.from(await image.read({ offset: 0, length: image.size }))
  } finally {
    await image.close()
  }
}

for (const format of ['qcow2', 'raw'] as const) {
  test(`a ${format} base grows, takes everything, and the overlay is emptied`, async (t) => {
    const { path } = await makeChain(t, format)
    const content = await readAll(path('top'))
    const steps: Progress[] = []
    const outcome = await commitImage(path('top'), { onProgress: (step) => steps.push(step) })
    t.deepEqual(outcome, { base: path('base'), bytesWritten: 4 * MiB, emptied: true })
    t.deepEqual(steps.at(-1), { phase: 'commit', bytesDone: size, bytesTotal: size })
    t.true((await readAll(path('base'), format)).equals(content))
    t.true((await readAll(path('top'))).equals(content))
    t.true((await imageInfo(path('top'))).actualSize < 300_000)
  })
}

test('what is to be kept is kept', async (t) => {
  const { path } = await makeChain(t)
  const before = await readFile(path('top'))
  t.like(await commitImage(path('top'), { keep: true }), { emptied: false })
  t.true((await readFile(path('top'))).equals(before))
  t.true((await readAll(path('base'))).equals(await readAll(path('top'))))
})

test('a deeper base is found by the name that an image has for it, or by its path', async (t) => {
  const { folder, path } = await makeChain(t)
  const above = join(folder, 'above')
  await createImage(above, { backingFile: 'top', backingFormat: 'qcow2' })
  const content = await readAll(above)
  for (const base of ['base', './base', path('base')]) {
    t.like(await commitImage(above, { base }), { base: path('base'), emptied: false })
  }
  t.true((await readAll(path('base'))).equals(content))
  t.true((await readAll(above)).equals(content))
  const missing = {
    code: 'ERR_NOT_FOUND',
    message: `Did not find 'nothing' in the backing chain of '${above}'`,
  }
  await t.throwsAsync(commitImage(above, { base: 'nothing' }), missing)
  await t.throwsAsync(commitImage(above, { base: 'above' }), { code: 'ERR_NOT_FOUND' })
})

test('misuse, and images that nothing can be committed from', async (t) => {
  const { path } = await makeChain(t)
  await t.throwsAsync(commitImage(path('base')), {
    code: 'ERR_NOT_SUPPORTED',
    message: /does not have a backing file/,
  })
  await t.throwsAsync(commitImage(path('top'), { bas: 'base' } as never), { message: /did you mean "base"/ })
  await t.throwsAsync(commitImage(path('top'), { backing: 'deny' }), { code: 'ERR_BACKING_DENIED' })
  const below = await openImage(path('base'), { readOnly: true })
  await t.throwsAsync(commitImage(path('top'), { backing: () => below }), {
    code: 'ERR_NOT_SUPPORTED',
    message: /is open already/,
  })
  await below.close()
})

test('a base that a guest could make look like another image is not, unless its format is named', async (t) => {
  const folder = await makeFolder(t)
  const path = (name: string): string => join(folder, name)
  await createImage(path('base'), { size: MiB, format: 'raw' })
  await createImage(path('top'), { size: MiB, backingFile: 'base', backingFormat: 'raw' })
  const top = await openImage(path('top'))
  await top.write(Uint8Array.of(0x51, 0x46, 0x49, 0xfb), 0)
  await top.close()
  // The gate names the file, and leaves its format to a guess where the header has none.
  const header = await readFile(path('top'))
  header.writeUInt32BE(0x11223344, header.indexOf(Buffer.from([0xe2, 0x79, 0x2a, 0xca])))
  await writeFile(path('top'), header)
  await t.throwsAsync(commitImage(path('top')), { code: 'ERR_PERMISSION' })
  await commitImage(path('top'), { backing: () => ({ path: path('base'), format: 'raw' }) })
  t.is((await readFile(path('base')))[0], 0x51)
})

test('an abort at any time leaves both files sound, and the overlay as it was', async (t) => {
  const { path } = await makeChain(t)
  const content = await readAll(path('top'))
  const before = new AbortController()
  before.abort(new Error('before'))
  await t.throwsAsync(commitImage(path('top'), { signal: before.signal }), { message: 'before' })
  for (const point of [0, 1, 2, 4]) {
    const controller = new AbortController()
    let steps = 0
    const onProgress = (): void => {
      if (steps++ === point) controller.abort(new Error('enough'))
    }
    await t.throwsAsync(commitImage(path('top'), { signal: controller.signal, onProgress }), {
      message: 'enough',
    })
    for (const name of ['top', 'base']) t.is(await qemuCheck(path(name)), '')
    t.true((await readAll(path('top'))).equals(content))
  }
  await commitImage(path('top'))
  t.true((await readAll(path('base'))).equals(content))
})

const testMounted = mayMount() ? test.serial : test.serial.skip

testMounted('on a full disk both files stay sound, and the overlay shows what it showed', async (t) => {
  for (const [megabytes, format] of [
    [7, 'qcow2'],
    [7, 'raw'],
  ] as const) {
    const { folder, remount } = await mountSmall(t, 'tmpfs', megabytes)
    const { path } = await makeChain(t, format, folder)
    const content = await readAll(path('top'))
    await t.throwsAsync(commitImage(path('top')), { code: 'ERR_NO_SPACE' })
    t.true((await readAll(path('top'))).equals(content))
    t.is(await qemuCheck(path('top')), '')
    if (format === 'qcow2') t.is(await qemuCheck(path('base')), '')
    remount('size=20m')
    await commitImage(path('top'))
    t.true((await readAll(path('base'), format)).equals(content))
  }
})
