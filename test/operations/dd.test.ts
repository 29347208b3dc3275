import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { ddImage, imageInfo } from '../../lib/index.js'
import { qemuCheck, qemuRead } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

const size = 3 * 1024 * 1024

/** A raw disk none of whose bytes is its neighbours'. */
async function makeSource(folder: string): Promise<Buffer> {
  const bytes = Buffer.alloc(size)
  for (let at = 0; at + 4 <= size; at += 4) bytes.writeUInt32LE(at ^ 0x5bd1e995, at)
  await writeFile(join(folder, 'source.raw'), bytes)
  return bytes
}

test('the blocks that are asked for, and no others, in either format', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const source = await makeSource(folder)
  for (const format of ['raw', 'qcow2'] as const) {
    for (const { blockSize, skip, count } of [
      { blockSize: 512, skip: 0, count: 1e9 },
      { blockSize: 1000, skip: 7, count: 2100 },
      { blockSize: 2 ** 20, skip: 1, count: 2 },
    ]) {
      const target = join(folder, 'target')
      const options = { format, sourceFormat: 'raw', blockSize, skip, count, overwrite: true } as const
      const result = await ddImage(join(folder, 'source.raw'), target, options)
      const wanted = source.subarray(skip * blockSize, Math.min(size, count * blockSize))
      const found = await qemuRead(target, format)
      t.is(found.length, result.size)
      t.true(found.subarray(0, wanted.length).equals(wanted))
      t.true(found.subarray(wanted.length).every((byte) => byte === 0))
      if (format === 'qcow2') t.is(await qemuCheck(target), '')
    }
  }
})

test('behind the end there is nothing, and that is told', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  await makeSource(folder)
  const [source, target] = [join(folder, 'source.raw'), join(folder, 'target')]
  const skipped = await ddImage(source, target, { blockSize: size, skip: 2 })
  t.deepEqual(skipped, { size: 0, skippedPastEnd: true })
  t.is((await imageInfo(target, { format: 'raw' })).virtualSize, 0)
  t.like(await ddImage(source, target, { blockSize: size, skip: 1, overwrite: true }), {
    skippedPastEnd: false,
  })
})

test('a target that is there stays, and one that is given up leaves nothing', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  await makeSource(folder)
  const [source, target] = [join(folder, 'source.raw'), join(folder, 'target')]
  await writeFile(target, 'mine')
  await t.throwsAsync(ddImage(source, target, {}), { code: 'ERR_EXISTS' })
  const controller = new AbortController()
  const abort = new Error('enough')
  const onProgress = ({ bytesDone }: { bytesDone: number }): void => {
    if (bytesDone > 0) controller.abort(abort)
  }
  const options = { overwrite: true, signal: controller.signal, onProgress }
  t.is(await t.throwsAsync(ddImage(source, target, options)), abort)
  t.is(await readFile(target, 'utf8'), 'mine')
  t.deepEqual((await readdir(folder)).sort(), ['source.raw', 'target'])
})
