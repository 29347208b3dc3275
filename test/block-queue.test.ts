import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import {
  type CacheMode,
  openBlockQueue,
  type OpenBlockQueueOptions,
  type QueuedFile,
} from '../lib/block-queue.js'
import { makeFolder } from './support/temp-folder.js'

const unit = 4096
const modes: CacheMode[] = ['writeback', 'none', 'writethrough', 'directsync', 'unsafe', 'unsafe-direct']

function filled(value: number, length = unit): Uint8Array {
  return new Uint8Array(length).fill(value)
}

async function create(t: ExecutionContext, options: OpenBlockQueueOptions = {}): Promise<QueuedFile> {
  return openBlockQueue(join(await makeFolder(t), 'file'), { create: true, ...options })
}

for (const cache of modes) {
  test(`${cache}: ordered and unordered writes are read back, and are in the file after a flush`, async (t) => {
    const queue = await create(t, { cache })
    await queue.write(filled(1, 3 * unit), 0)
    const context = queue.context()
    await context.write(filled(2), unit)
    context.barrier()
    await context.write(filled(3), 2 * unit)
    const bytes = await queue.read({ offset: 0, length: 3 * unit })
    t.deepEqual([bytes[0], bytes[unit], bytes[2 * unit]], [1, 2, 3])
    await queue.flush()
    await queue.close()
    t.is(Buffer.compare(await readFile(queue.path), bytes), 0)
  })
}

test('syncs are made as the cache mode says', async (t) => {
  const counts: Record<string, number> = {}
  for (const cache of modes) {
    await using queue = await create(t, { cache })
    const context = queue.context()
    await context.write(filled(1), 0)
    context.barrier()
    await context.write(filled(2), unit)
    await queue.write(filled(3), 2 * unit)
    await queue.flush()
    counts[cache] = queue.stats().syncsIssued
  }
  // Two sections; or a sync for each of two nodes, for the write, and for the flush; or none.
  t.deepEqual(counts, {
    writeback: 2,
    none: 2,
    writethrough: 4,
    directsync: 4,
    unsafe: 0,
    'unsafe-direct': 0,
  })
})

test('misuse is refused with a message that teaches', async (t) => {
  const path = join(await makeFolder(t), 'file')
  await writeFile(path, 'x')
  const open = openBlockQueue as (path: unknown, options?: unknown) => Promise<QueuedFile>
  await t.throwsAsync(open(path, { readonly: true }), { code: 'ERR_INVALID_OPTION', message: /readOnly/ })
  await t.throwsAsync(open(path, { cache: 'writback' }), { code: 'ERR_INVALID_OPTION', message: /writeback/ })
  await t.throwsAsync(open(path, { readOnly: true, create: true }), { code: 'ERR_INVALID_OPTION' })
  await t.throwsAsync(open(7), { code: 'ERR_INVALID_OPTION' })
  await using queue = await open(path)
  const write = queue.write.bind(queue) as (bytes: unknown, offset: unknown) => Promise<void>
  await t.throwsAsync(write('text', 0), { code: 'ERR_INVALID_ARGUMENT' })
  await t.throwsAsync(write(new Uint16Array(2), 0), { code: 'ERR_INVALID_ARGUMENT' })
  for (const offset of [-1, 0.5, Number.NaN, 2 ** 53, '0', undefined, Number.MAX_SAFE_INTEGER]) {
    await t.throwsAsync(write(filled(1, 1), offset), { code: 'ERR_OUT_OF_RANGE' }, String(offset))
  }
  await t.throwsAsync(queue.read({ offset: 0, length: -1 }), { code: 'ERR_OUT_OF_RANGE' })
  await t.throwsAsync(queue.read(null as unknown as { offset: number; length: number }), {
    code: 'ERR_INVALID_ARGUMENT',
  })
})

test('a file that is opened read-only is read, and nothing else', async (t) => {
  const path = join(await makeFolder(t), 'file')
  await writeFile(path, filled(7))
  await using queue = await openBlockQueue(path, { readOnly: true })
  t.deepEqual([...(await queue.read({ offset: unit - 1, length: 2 }))], [7, 0])
  await t.throwsAsync(queue.write(filled(1), 0), { code: 'ERR_READ_ONLY' })
  await t.throwsAsync(queue.context().write(filled(1), 0), { code: 'ERR_READ_ONLY' })
  await queue.flush()
})
