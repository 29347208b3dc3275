import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { openBlockQueue, type OpenBlockQueueOptions, type QueuedFile } from '../../lib/block-queue.js'
import { makeFolder } from '../support/temp-folder.js'

const unit = 4096

function filled(value: number, length = unit): Uint8Array {
  return new Uint8Array(length).fill(value)
}

async function create(t: ExecutionContext, options: OpenBlockQueueOptions = {}): Promise<QueuedFile> {
  return openBlockQueue(join(await makeFolder(t), 'file'), { create: true, ...options })
}

test('the bytes given to a context are copied at once, those of a read belong to the caller', async (t) => {
  await using queue = await create(t, { cache: { queueBytes: 64 * 1024, idleMs: 0 } })
  const context = queue.context()
  const bytes = filled(1, 16 * unit)
  await context.write(bytes, 0)
  bytes.fill(2)
  // No room for this one: it waits, and its bytes must not be looked at later.
  const waits = context.write(bytes, 16 * unit)
  bytes.fill(3)
  await waits
  const seen = await queue.read({ offset: 15 * unit, length: 2 * unit })
  t.deepEqual([seen[0], seen[unit]], [1, 2])
  t.is(queue.stats().admissionWaits, 1)
})

test('what a context does keeps its order also when it has to wait for room', async (t) => {
  await using queue = await create(t, { cache: { queueBytes: 64 * 1024, idleMs: 0 } })
  const context = queue.context()
  const calls: Promise<void>[] = []
  for (let version = 1; version <= 20; version++) {
    calls.push(context.write(filled(version, 8 * unit), 0))
    context.barrier()
  }
  await Promise.all(calls)
  const seen = await queue.read({ offset: 0, length: 1 })
  t.is(seen[0], 20)
  await queue.flush()
  t.true(queue.stats().queuedBytesPeak <= 64 * 1024)
  // Of the twenty versions none was folded into another: a barrier stood between any two.
  t.is(queue.stats().nodesCoalesced, 0)
  t.is(queue.stats().barriersAsked, 20)
})

test('a write that meets a queued one is refused, and accepted after a flush', async (t) => {
  await using queue = await create(t)
  await queue.context().write(filled(1), unit)
  await t.throwsAsync(queue.write(filled(2, 2), 2 * unit - 1), {
    code: 'ERR_INVALID_ARGUMENT',
    message: /flush/,
  })
  await queue.write(filled(2, 2), 2 * unit)
  await queue.flush()
  await queue.write(filled(2, 2), 2 * unit - 1)
  const bytes = await queue.read({ offset: 2 * unit - 2, length: 3 })
  t.deepEqual([...bytes], [1, 2, 2])
})

test('with O_DIRECT a write that shares a unit with a queued one is refused, and nodes are whole units', async (t) => {
  await using queue = await create(t, { cache: 'none' })
  t.true(queue.alignment >= 512)
  await queue.context().write(filled(1), 0)
  await t.throwsAsync(queue.write(filled(2, 1), unit - 1), { code: 'ERR_INVALID_ARGUMENT' })
  await t.throwsAsync(queue.context().write(filled(1, 100), 0), {
    code: 'ERR_INVALID_ARGUMENT',
    message: /multiples/,
  })
  await t.throwsAsync(queue.context().write(filled(1), 100), {
    code: 'ERR_INVALID_ARGUMENT',
    message: /multiples/,
  })
})

test('a closed queue refuses everything, and may be closed again', async (t) => {
  const queue = await create(t)
  const context = queue.context()
  await queue.close()
  await queue.close()
  await t.throwsAsync(context.write(filled(1), 0), { code: 'ERR_CLOSED' })
  await t.throwsAsync(queue.write(filled(1), 0), { code: 'ERR_CLOSED' })
  await t.throwsAsync(queue.read({ offset: 0, length: 1 }), { code: 'ERR_CLOSED' })
  await t.throwsAsync(queue.flush(), { code: 'ERR_CLOSED' })
  t.is(queue.stats().dataWrites, 0)
})

test('contexts that know nothing of one another share their syncs', async (t) => {
  await using queue = await create(t, { cache: { idleMs: 0 } })
  for (let index = 0; index < 10; index++) {
    const context = queue.context()
    await context.write(filled(1), 2 * index * unit)
    context.barrier()
    await context.write(filled(2), (2 * index + 1) * unit)
  }
  await queue.flush()
  const { barriersAsked, barriersIssued, syncsIssued, nodesQueued } = queue.stats()
  t.deepEqual(
    { barriersAsked, barriersIssued, syncsIssued, nodesQueued },
    { barriersAsked: 10, barriersIssued: 1, syncsIssued: 2, nodesQueued: 20 },
  )
})

test('reading into memory of the caller fills all of it', async (t) => {
  await using queue = await create(t)
  await queue.write(filled(5, 10), 0)
  await queue.context().write(filled(6, 2), 4)
  const bytes = filled(9, 12)
  await queue.readInto(bytes, 0)
  t.deepEqual([...bytes], [5, 5, 5, 5, 6, 6, 5, 5, 5, 5, 0, 0])
})

for (const sync of ['flush', 'write'] as const) {
  test(`closing lets writes end that have begun, and those that wait for room, sync on ${sync}`, async (t) => {
    const queue = await create(t, { cache: { sync, queueBytes: 64 * 1024 } })
    const context = queue.context()
    const writes: Promise<void>[] = []
    for (let index = 0; index < 40; index++) {
      writes.push(context.write(filled(index + 1, 2 * unit), index * 2 * unit))
      context.barrier()
    }
    writes.push(queue.write(filled(99, 10), 2 ** 20))
    const closed = queue.close()
    await t.throwsAsync(queue.write(filled(1), 0), { code: 'ERR_CLOSED' })
    await t.throwsAsync(context.write(filled(1), 0), { code: 'ERR_CLOSED' })
    await Promise.all(writes)
    await closed
    const file = await readFile(queue.path)
    t.deepEqual([file[0], file[39 * 2 * unit], file[2 ** 20], file.length], [1, 40, 99, 2 ** 20 + 10])
  })
}

test('more than one array can hold is refused with a code', async (t) => {
  await using queue = await create(t)
  await t.throwsAsync(queue.read({ offset: 0, length: 2 ** 50 }), {
    instanceOf: RangeError,
    code: 'ERR_OUT_OF_RANGE',
  })
})
