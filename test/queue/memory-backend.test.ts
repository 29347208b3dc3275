import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import test from 'ava'
import { AssertionError } from '../../lib/base/assert.js'
import { noSection, section } from '../../lib/base/units.js'
import type { BlockBackend } from '../../lib/queue/backend.js'
import { Context } from '../../lib/queue/context.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import type { DeviceEvent, DeviceOperation } from '../../lib/queue/memory-device.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { seedOfRun } from '../support/seeded-random.js'
import { type BackendFactory, sameBytes, testBackendContract } from './backend-contract.js'
import { testDurableWrites } from './durable-writes.js'

const unit = 4096
const EIO = 5
const ENOSPC = 28

function factory(more: { seed?: number; direct?: boolean; alignment?: number }): BackendFactory {
  return (t, { contents, ...options } = {}) => {
    if (more.seed !== undefined) t.log(`seed ${more.seed}`)
    const sparse = SparseBytes.from(contents ?? new Uint8Array(0))
    return Promise.resolve(new MemoryBackend({ ...options, ...more, contents: sparse }))
  }
}

testBackendContract('in memory', factory({}))
testDurableWrites('in memory', factory({}))
testBackendContract('in memory, in random order', factory({ seed: seedOfRun() }))
testBackendContract(
  'in memory, aligned, in random order',
  factory({ seed: seedOfRun() + 1, direct: true, alignment: unit }),
)

function filled(value: number): Uint8Array {
  return new Uint8Array(unit).fill(value)
}

/** Concurrent work whose log shows in which order things ended. */
async function workload(backend: MemoryBackend): Promise<void> {
  const requests: Promise<void>[] = []
  for (let index = 0; index < 8; index++) {
    const context = new Context(backend)
    context.write(filled(index), index * unit)
    context.barrier()
    context.write(filled(index), (20 + index) * unit)
    requests.push(backend.write(filled(index), (40 + index) * unit), backend.flush())
  }
  await Promise.all(requests)
  await backend.close()
}

test('the same seed gives the same log, another one another order', async (t) => {
  const logs: string[] = []
  for (const seed of [1, 1, 2]) {
    const backend = new MemoryBackend({ seed, record: true })
    await workload(backend)
    logs.push(backend.log.map((event) => `${event.type} ${event.id}`).join('\n'))
  }
  t.is(logs[0], logs[1])
  t.not(logs[0], logs[2])
})

test('the log shows that nodes of a later section follow the sync of the earlier ones', async (t) => {
  for (let seed = 0; seed < 20; seed++) {
    const backend = new MemoryBackend({ seed, record: true })
    await workload(backend)
    assertOrder(t, backend.log)
  }
})

/** Every node is submitted after a good sync that started when all nodes of lower sections had ended. */
function assertOrder(
  t: { assert: (value: unknown, message?: string) => unknown },
  log: readonly DeviceEvent[],
): void {
  const running = new Map<number, number>()
  const ended = new Set<number>()
  const durable = new Set<number>()
  const covered = new Map<number, number[]>()
  const nodes = new Map<number, number>()
  for (const event of log) {
    if (event.type === 'NSUB') {
      if (event.section === undefined) continue
      for (const [id, earlier] of nodes) {
        t.assert(earlier >= event.section || durable.has(id), `node ${event.id} waits for node ${id}`)
      }
      nodes.set(event.id, event.section)
      running.set(event.id, event.section)
    } else if (event.type === 'NEND') {
      if (running.delete(event.id)) ended.add(event.id)
    } else if (event.type === 'SSUB') {
      covered.set(event.id, [...ended])
    } else if (event.type === 'SEND') {
      for (const id of covered.get(event.id) ?? []) durable.add(id)
    }
  }
}

test('the log holds the bytes as they were submitted', async (t) => {
  const backend = new MemoryBackend({ record: true })
  backend.note({ type: 'GSUB', id: 1, kind: 'write', offset: 0, length: unit, generation: 1 })
  await backend.write(filled(1), 0)
  backend.note({ type: 'GEND', id: 1, error: 0 })
  backend.enqueue(filled(2), unit, noSection)
  await backend.writeZeroes(2 * unit, unit, { unmap: true })
  await backend.close()
  t.deepEqual(
    backend.log.map((event) => event.type),
    ['GSUB', 'NSUB', 'NEND', 'GEND', 'NSUB', 'NEND', 'NSUB', 'NEND', 'SSUB', 'SEND'],
  )
  const writes = backend.log.filter((event) => event.type === 'NSUB')
  t.deepEqual(
    writes.map(({ kind, offset, length, section, bytes }) => [kind, offset, length, section, bytes[0]]),
    [
      ['write', 0, unit, undefined, 1],
      ['zero', 2 * unit, unit, undefined, undefined],
      ['write', unit, unit, 1, 2],
    ],
  )
})

test('a failed data write fails alone', async (t) => {
  const fault = ({ kind, section, index }: DeviceOperation): number | undefined =>
    kind === 'write' && section === undefined && index === 0 ? EIO : undefined
  const backend = new MemoryBackend({ fault })
  const error = await t.throwsAsync(backend.write(filled(1), 0), { code: 'ERR_IO' })
  t.like(error, { errno: EIO, offset: 0, path: 'memory' })
  await backend.write(filled(2), 0)
  await backend.flush()
  t.is(backend.poisoned, undefined)
  sameBytes(t, backend.snapshot(), filled(2))
})

test('a full disk fails the flush, and the next one writes what was left', async (t) => {
  let full = true
  const backend = new MemoryBackend({
    fault: ({ kind, section }) => (full && kind === 'write' && section !== undefined ? ENOSPC : undefined),
  })
  backend.enqueue(filled(1), 0, noSection)
  await t.throwsAsync(backend.flush(), { code: 'ERR_NO_SPACE' })
  t.is(backend.poisoned, undefined)
  t.is(backend.stats().queuedNodesNow, 1)
  full = false
  await backend.flush()
  sameBytes(t, backend.snapshot(), filled(1))
  await backend.close()
})

test('whoever waits for room on a full disk is told so, and tries again in vain or not', async (t) => {
  let full = true
  let writes = 0
  const backend = new MemoryBackend({
    queueBytes: unit,
    fault: ({ kind }) => {
      if (kind !== 'write') return undefined
      writes++
      return full ? ENOSPC : undefined
    },
  })
  backend.enqueue(filled(1), 0, noSection)
  await t.throwsAsync(backend.admit(unit) ?? Promise.resolve(), { code: 'ERR_NO_SPACE' })
  await t.throwsAsync(backend.admit(unit) ?? Promise.resolve(), { code: 'ERR_NO_SPACE' })
  t.is(writes, 2, 'one attempt for each who asked')
  full = false
  await backend.admit(unit)
  backend.release(unit)
  t.is(backend.stats().queuedNodesNow, 0)
  await backend.close()
})

for (const failing of ['write', 'sync'] as const) {
  test(`a failed ${failing} of the queue is told to everybody from then on`, async (t) => {
    const backend = new MemoryBackend({
      queueBytes: unit,
      fault: ({ kind, section }) =>
        kind === failing && (kind === 'sync' || section !== undefined) ? EIO : undefined,
    })
    await backend.write(filled(9), 8 * unit)
    let told = 0
    backend.onProgress(() => {
      if (backend.poisoned !== undefined) told++
    })
    const context = new Context(backend)
    context.write(filled(1), 0)
    context.barrier()
    context.write(filled(2), unit)
    const waiting = backend.admit(unit) ?? Promise.resolve()
    const flushes = [backend.flush(), backend.flush(), backend.durable(context.section), waiting]
    for (const result of await Promise.allSettled(flushes)) {
      t.is(result.status, 'rejected')
      if (result.status === 'rejected') t.like(result.reason, { code: 'ERR_POISONED', errno: EIO })
    }
    t.true(told > 0)
    await t.throwsAsync(backend.flush(), { code: 'ERR_POISONED' })
    await t.throwsAsync(backend.durable(context.section), { code: 'ERR_POISONED' })
    await t.throwsAsync(backend.write(filled(3), 0), { code: 'ERR_POISONED' })
    await t.throwsAsync(backend.admit(8 * unit) ?? Promise.resolve(), { code: 'ERR_POISONED' })
    t.throws(() => backend.enqueue(filled(3), 0, noSection), { code: 'ERR_POISONED' })
    const seen = new Uint8Array(2 * unit)
    await backend.readQueued(seen, 0)
    sameBytes(t, seen, Uint8Array.from([...filled(1), ...filled(2)]), 'reads go on')
    t.is(backend.contents.length, 9 * unit, 'what follows the failure is never written')
    await t.throwsAsync(backend.close(), { code: 'ERR_POISONED' })
    await t.throwsAsync(backend.read(seen, 0), { code: 'ERR_CLOSED' })
  })
}

test('a node that is not made of whole units is a mistake of ours', (t) => {
  const backend = new MemoryBackend({ direct: true, alignment: 512 })
  t.throws(() => backend.enqueue(new Uint8Array(100), 0, noSection), { instanceOf: AssertionError })
  t.throws(() => backend.enqueue(new Uint8Array(512), 100, noSection), { instanceOf: AssertionError })
  t.is(backend.enqueue(new Uint8Array(512), 1024, noSection), section(1))
})

test('an image of many terabytes takes the room of what is written to it', async (t) => {
  const terabyte = 1024 ** 4
  const backend = new MemoryBackend()
  await backend.truncate(64 * terabyte)
  await backend.write(filled(1), 63 * terabyte + 5)
  await backend.writeZeroes(0, 62 * terabyte, { unmap: true })
  t.deepEqual(await backend.extent(0), { length: 63 * terabyte, data: false })
  t.deepEqual(await backend.extent(63 * terabyte), { length: 2 * unit, data: true })
  await backend.punch(63 * terabyte, terabyte)
  t.deepEqual(await backend.extent(0), { length: 64 * terabyte, data: false })
  await backend.close()
})

test('what a backend held is there for the next one', async (t) => {
  const first = new MemoryBackend()
  first.enqueue(filled(1), 0, noSection)
  await first.close()
  const second = new MemoryBackend({ contents: first.contents, readOnly: true })
  const bytes = new Uint8Array(unit)
  await second.read(bytes, 0)
  sameBytes(t, bytes, filled(1))
  t.is(second.length, unit)
  await second.close()
})

test('nobody else holds a lock on what is in memory', (t) => {
  const backend: BlockBackend = new MemoryBackend()
  t.is(backend.lock([1], [2]), undefined)
  backend.unlock([1])
})

test('an open image in memory keeps no process alive, not even with nodes that wait', async (t) => {
  const module = new URL('../../lib/queue/memory-backend.js', import.meta.url).href
  const program = `
    const { MemoryBackend } = await import(${JSON.stringify(module)})
    const backend = new MemoryBackend({ seed: 1, idleMs: 1000 * 60 * 60 })
    await backend.write(new Uint8Array(16), 0)
    backend.enqueue(new Uint8Array(16), 100, 0)
    console.log(backend.stats().queuedNodesNow)
  `
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program])
  t.is(stdout, '1\n')
})
