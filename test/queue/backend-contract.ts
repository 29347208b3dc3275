import test, { type ExecutionContext } from 'ava'
import { noSection, section } from '../../lib/base/units.js'
import type { BlockBackend, SyncPolicy } from '../../lib/queue/backend.js'
import { Context } from '../../lib/queue/context.js'
import { seedOfRun, SeededRandom } from '../support/seeded-random.js'

export type ContractOptions = {
  /** What the file holds at first. */
  readonly contents?: Uint8Array
  readonly readOnly?: boolean
  readonly syncPolicy?: SyncPolicy
  readonly queueBytes?: number
  readonly queueNodes?: number
  /** Default 0: nothing is written unasked. */
  readonly idleMs?: number
}

/** Opens a file of its own for one test. */
export type BackendFactory = (t: ExecutionContext, options?: ContractOptions) => Promise<BlockBackend>

/** Every node of these tests is one such unit, whatever the backend's alignment. Bytes. */
export const unit = 4096

/** Register the tests that every backend has to pass. @param name  begins their titles */
export function testBackendContract(name: string, open: BackendFactory): void {
  testData(name, open)
  testNodes(name, open)
  testSyncs(name, open)
  testRoom(name, open)
  testEnd(name, open)
}

export function filled(value: number, length = unit): Uint8Array {
  return new Uint8Array(length).fill(value)
}

export async function read(backend: BlockBackend, offset: number, length: number): Promise<Uint8Array> {
  const bytes = filled(0xee, length)
  await backend.read(bytes, offset)
  return bytes
}

async function readQueued(backend: BlockBackend, offset: number, length: number): Promise<Uint8Array> {
  const bytes = filled(0xee, length)
  await backend.readQueued(bytes, offset)
  return bytes
}

/** As deepEqual, which takes a second for a megabyte. */
export function sameBytes(
  t: ExecutionContext,
  actual: Uint8Array,
  expected: Uint8Array,
  message = 'bytes',
): void {
  if (Buffer.compare(actual, expected) === 0) {
    t.pass()
    return
  }
  const at = expected.findIndex((byte, index) => byte !== actual[index])
  t.fail(`${message}: length ${actual.length}, not ${expected.length}; the first difference is at ${at}`)
}

function testData(name: string, open: BackendFactory): void {
  test(`${name}: a read past the end of the file gives zeros`, async (t) => {
    const backend = await open(t, { contents: filled(7, 5000) })
    const bytes = await read(backend, 4990, 100)
    sameBytes(t, bytes.subarray(0, 10), filled(7, 10))
    sameBytes(t, bytes.subarray(10), filled(0, 90))
    sameBytes(t, await read(backend, 10 * unit, 16), filled(0, 16))
    t.is(backend.length, 5000)
    await backend.close()
  })

  test(`${name}: data is read back as it was written, at any alignment`, async (t) => {
    const seed = seedOfRun()
    t.log(`seed ${seed}`)
    const random = new SeededRandom(seed)
    const size = 64 * 1024
    const model = new Uint8Array(size)
    const backend = await open(t)
    for (let round = 0; round < 200; round++) {
      const offset = random.integer(size)
      const length = 1 + random.integer(Math.min(size - offset, random.pick([10, 1000, 20000])))
      const action = random.integer(4)
      if (action === 0) {
        model.fill(0, offset, offset + length)
        await backend.writeZeroes(offset, length, { unmap: random.chance(0.5) })
      } else if (action === 1) {
        sameBytes(t, await read(backend, offset, length), model.slice(offset, offset + length))
      } else {
        const bytes = random.bytes(length)
        model.set(bytes, offset)
        await backend.write(bytes, offset)
      }
    }
    sameBytes(t, await read(backend, 0, size), model)
    await backend.close()
  })

  test(`${name}: concurrent writes beside one another all arrive`, async (t) => {
    const backend = await open(t)
    const piece = 700
    await Promise.all(
      Array.from({ length: 50 }, (_, index) => backend.write(filled(index + 1, piece), index * piece)),
    )
    for (let index = 0; index < 50; index++) {
      sameBytes(t, await read(backend, index * piece, piece), filled(index + 1, piece))
    }
    await backend.close()
  })

  test(`${name}: the length is beyond all that was ever submitted`, async (t) => {
    const backend = await open(t)
    t.is(backend.length, 0)
    const written = backend.write(filled(1, 100), 1000)
    t.is(backend.length, 1100, 'at once')
    await written
    await backend.writeZeroes(2000, 100, { unmap: true })
    t.is(backend.length, 2100)
    await backend.allocate(3000, 100)
    t.is(backend.length, 3100)
    await backend.punch(1024 ** 2, unit)
    t.is(backend.length, 3100, 'a hole makes no file longer')
    backend.enqueue(filled(1), 2 * unit, noSection)
    t.is(backend.length, 3 * unit)
    await backend.truncate(100)
    t.true(backend.length >= 3 * unit, 'never less')
    await backend.close()
  })

  test(`${name}: truncating cuts off and extends with zeros`, async (t) => {
    const backend = await open(t, { contents: filled(7, 3 * unit) })
    await backend.truncate(unit + 10)
    await backend.truncate(4 * unit)
    sameBytes(t, await read(backend, unit, 20), Uint8Array.from([...filled(7, 10), ...filled(0, 10)]))
    sameBytes(t, await read(backend, 2 * unit, 2 * unit), filled(0, 2 * unit))
    await backend.close()
  })

  test(`${name}: extents cover the file, and what they call holes reads as zeros`, async (t) => {
    const size = 1024 ** 2
    const backend = await open(t)
    await backend.truncate(size)
    await backend.write(filled(1, 65536), 65536)
    await backend.write(filled(2, 65536), 512 * 1024)
    await backend.flush()
    for (let offset = 0; offset < size;) {
      const extent = await backend.extent(offset)
      t.true(extent.length > 0 && offset + extent.length <= size)
      if (!extent.data) sameBytes(t, await read(backend, offset, extent.length), filled(0, extent.length))
      offset += extent.length
    }
    await backend.close()
  })

  test(`${name}: reserving space and punching holes do not change what else is there`, async (t) => {
    const backend = await open(t, { contents: filled(7, 16 * unit) })
    await backend.allocate(8 * unit, 16 * unit)
    await backend.punch(4 * unit, 4 * unit)
    sameBytes(t, await read(backend, 0, 4 * unit), filled(7, 4 * unit))
    sameBytes(t, await read(backend, 8 * unit, 8 * unit), filled(7, 8 * unit))
    sameBytes(t, await read(backend, 16 * unit, 8 * unit), filled(0, 8 * unit))
    await backend.close()
  })
}

function testNodes(name: string, open: BackendFactory): void {
  test(`${name}: a node is copied, seen by reads of the queue at once, and in the file after a flush`, async (t) => {
    const backend = await open(t, { contents: filled(1, 4 * unit) })
    const bytes = filled(2)
    backend.enqueue(bytes, unit, noSection)
    bytes.fill(3)
    sameBytes(t, await read(backend, unit, unit), filled(1), 'not yet written')
    const seen = await readQueued(backend, unit - 8, unit + 16)
    sameBytes(t, seen, Uint8Array.from([...filled(1, 8), ...filled(2), ...filled(1, 8)]))
    await backend.flush()
    sameBytes(t, await read(backend, unit, unit), filled(2))
    await backend.close()
  })

  test(`${name}: the newest of several versions is seen and stays`, async (t) => {
    const backend = await open(t)
    const first = backend.enqueue(filled(1, 2 * unit), 0, noSection)
    backend.enqueue(filled(2), 0, section(first + 1))
    backend.enqueue(filled(3), unit, section(first + 1))
    backend.enqueue(filled(4), unit, section(first + 1))
    sameBytes(t, await readQueued(backend, 0, 2 * unit), Uint8Array.from([...filled(2), ...filled(4)]))
    await backend.flush()
    sameBytes(t, await read(backend, 0, 2 * unit), Uint8Array.from([...filled(2), ...filled(4)]))
    t.is(backend.stats().nodesQueued, 4)
    t.is(backend.stats().queuedNodesNow, 0)
    await backend.close()
  })

  test(`${name}: nodes beyond the end of the file make it longer`, async (t) => {
    const backend = await open(t)
    backend.enqueue(filled(5), 8 * unit, noSection)
    sameBytes(t, await readQueued(backend, 8 * unit, unit), filled(5))
    await backend.flush()
    sameBytes(t, await read(backend, 7 * unit, 2 * unit), Uint8Array.from([...filled(0), ...filled(5)]))
    await backend.close()
  })

  test(`${name}: a pending section is that of the newest version, until it is written`, async (t) => {
    const backend = await open(t)
    t.is(backend.pendingSection(0, unit), noSection)
    const first = backend.enqueue(filled(1), 0, noSection)
    const second = backend.enqueue(filled(2), 0, section(first + 1))
    t.true(second > first)
    t.is(backend.pendingSection(10, 1), second)
    t.is(backend.pendingSection(unit, unit), noSection)
    await backend.flush()
    t.is(backend.pendingSection(0, unit), noSection)
    await backend.close()
  })

  test(`${name}: random nodes and flushes leave what a byte array would hold`, async (t) => {
    const seed = seedOfRun()
    t.log(`seed ${seed}`)
    const random = new SeededRandom(seed)
    const units = 32
    const model = new Uint8Array(units * unit)
    const backend = await open(t)
    const flushes: Promise<void>[] = []
    let context = new Context(backend)
    for (let round = 0; round < 400; round++) {
      const first = random.integer(units)
      const count = 1 + random.integer(Math.min(3, units - first))
      const action = random.integer(10)
      if (action === 0) context = new Context(backend)
      else if (action === 1) context.barrier()
      else if (action === 2) flushes.push(backend.flush())
      else if (action === 3) await backend.durable(context.section)
      else if (action === 4) {
        const expected = model.slice(first * unit, (first + count) * unit)
        sameBytes(t, await readQueued(backend, first * unit, count * unit), expected)
      } else {
        const bytes = random.bytes(count * unit)
        model.set(bytes, first * unit)
        context.write(bytes, first * unit)
      }
    }
    await Promise.all(flushes)
    await backend.flush()
    sameBytes(t, await read(backend, 0, units * unit), model)
    t.is(backend.stats().queuedBytesNow, 0)
    await backend.close()
  })
}

function testSyncs(name: string, open: BackendFactory): void {
  test(`${name}: nothing is written unasked, and a flush makes everything durable`, async (t) => {
    const backend = await open(t)
    const context = new Context(backend)
    context.write(filled(1), 0)
    context.barrier()
    const last = context.write(filled(2), unit)
    t.is(backend.stats().nodeBytesWritten, 0)
    t.true(backend.durableSection < last)
    await backend.flush()
    t.true(backend.durableSection >= last)
    t.is(backend.stats().nodeBytesWritten, 2 * unit)
    t.is(backend.stats().syncsIssued, 2)
    t.is(backend.stats().barriersAsked, 1)
    t.is(backend.stats().barriersIssued, 1)
    await backend.close()
  })

  test(`${name}: barriers of independent contexts cost one sync`, async (t) => {
    const backend = await open(t)
    for (let index = 0; index < 10; index++) {
      const context = new Context(backend)
      context.write(filled(1), 2 * index * unit)
      context.barrier()
      context.write(filled(2), (2 * index + 1) * unit)
    }
    await backend.flush()
    t.is(backend.stats().barriersAsked, 10)
    t.is(backend.stats().syncsIssued, 2)
    await backend.close()
  })

  test(`${name}: flushes asked together share their syncs`, async (t) => {
    const backend = await open(t)
    await Promise.all(Array.from({ length: 32 }, (_, index) => backend.write(filled(1, 512), index * 512)))
    await Promise.all(Array.from({ length: 32 }, () => backend.flush()))
    t.is(backend.stats().flushesAsked, 32)
    t.true(backend.stats().syncsIssued <= 2)
    await backend.close()
  })

  test(`${name}: what must follow data goes behind a sync that is still to come`, async (t) => {
    const backend = await open(t)
    await backend.write(filled(1), 0)
    const behind = backend.sectionAfterData()
    t.true(behind > backend.durableSection + 1, 'a section in front of which no sync has started')
    const context = new Context(backend)
    context.afterData()
    t.is(context.write(filled(2), unit), behind)
    await backend.flush()
    t.is(backend.stats().syncsIssued, 2)
    await backend.close()
  })

  test(`${name}: waiting for what is durable costs no sync`, async (t) => {
    const backend = await open(t)
    const first = backend.enqueue(filled(1), 0, noSection)
    await backend.durable(first)
    t.is(backend.stats().syncsIssued, 1)
    await backend.durable(first)
    await backend.durable(noSection)
    t.is(backend.stats().syncsIssued, 1)
    await backend.close()
  })

  test(`${name}: listeners hear of progress`, async (t) => {
    const backend = await open(t)
    const placed = backend.enqueue(filled(1), 0, noSection)
    let calls = 0
    backend.onProgress(() => calls++)
    await backend.durable(placed)
    t.true(calls > 0)
    await backend.close()
  })

  test(`${name}: nodes that wait too long are made durable unasked`, async (t) => {
    const backend = await open(t, { idleMs: 5 })
    const placed = backend.enqueue(filled(1), 0, noSection)
    const alive = setInterval(() => {}, 1000)
    await new Promise<void>((resolve) => {
      backend.onProgress(() => {
        if (backend.durableSection >= placed) resolve()
      })
    })
    clearInterval(alive)
    sameBytes(t, await read(backend, 0, unit), filled(1))
    await backend.close()
  })

  test(`${name}: policy 'never' keeps the order and makes no sync`, async (t) => {
    const backend = await open(t, { syncPolicy: 'never' })
    const context = new Context(backend)
    context.write(filled(1), 0)
    context.barrier()
    await backend.write(filled(9), 4 * unit)
    context.afterData()
    context.write(filled(2), unit)
    await backend.flush()
    t.true(backend.durableSection >= context.section)
    sameBytes(t, await read(backend, unit, unit), filled(2))
    t.is(backend.stats().syncsIssued, 0)
    await backend.close()
  })

  test(`${name}: policy 'write' syncs after every node and for every flush`, async (t) => {
    const backend = await open(t, { syncPolicy: 'write' })
    const context = new Context(backend)
    context.write(filled(1), 0)
    context.write(filled(2), 0)
    context.write(filled(3), unit)
    await backend.durable(context.section)
    t.is(backend.stats().syncsIssued, 3)
    t.is(backend.stats().nodesCoalesced, 0)
    await Promise.all([backend.flush(), backend.flush()])
    t.is(backend.stats().syncsIssued, 5)
    sameBytes(t, await read(backend, 0, unit), filled(2))
    await backend.close()
  })
}

function testRoom(name: string, open: BackendFactory): void {
  test(`${name}: room that is there is taken at once`, async (t) => {
    const backend = await open(t, { queueBytes: 4 * unit })
    t.is(backend.admit(2 * unit), undefined)
    t.is(backend.admit(2 * unit), undefined)
    backend.release(2 * unit)
    t.is(backend.admit(2 * unit), undefined)
    t.is(backend.stats().admissionWaits, 0)
    backend.release(4 * unit)
    await backend.close()
  })

  test(`${name}: without room one waits until the queue has been written`, async (t) => {
    const backend = await open(t, { queueBytes: 4 * unit })
    t.is(backend.admit(4 * unit), undefined)
    for (let index = 0; index < 4; index++) backend.enqueue(filled(1), index * unit, noSection)
    backend.release(4 * unit)
    const order: string[] = []
    const first = backend.admit(3 * unit)?.then(() => order.push('first'))
    // By now the queue may have been written, and the first one let go.
    const second = (backend.admit(unit) ?? Promise.resolve()).then(() => order.push('second'))
    t.truthy(first)
    await Promise.all([first, second])
    t.deepEqual(order, ['first', 'second'])
    t.is(backend.stats().queuedBytesNow, 0)
    t.is(backend.stats().queuedBytesPeak, 4 * unit)
    t.true([1, 2].includes(backend.stats().admissionWaits))
    backend.release(4 * unit)
    await backend.close()
  })

  test(`${name}: the number of nodes is bounded as well`, async (t) => {
    const backend = await open(t, { queueNodes: 2 })
    backend.enqueue(filled(1), 0, noSection)
    backend.enqueue(filled(1), 2 * unit, noSection)
    const waiting = backend.admit(unit)
    t.truthy(waiting)
    await waiting
    backend.release(unit)
    await backend.close()
  })
}

function testEnd(name: string, open: BackendFactory): void {
  test(`${name}: a read-only file refuses every change`, async (t) => {
    const backend = await open(t, { contents: filled(7), readOnly: true })
    t.throws(() => backend.enqueue(filled(1), 0, noSection), { code: 'ERR_READ_ONLY' })
    await t.throwsAsync(backend.write(filled(1), 0), { code: 'ERR_READ_ONLY' })
    await t.throwsAsync(backend.writeZeroes(0, 10, { unmap: true }), { code: 'ERR_READ_ONLY' })
    await t.throwsAsync(backend.punch(0, 10), { code: 'ERR_READ_ONLY' })
    await t.throwsAsync(backend.allocate(0, 10), { code: 'ERR_READ_ONLY' })
    await t.throwsAsync(backend.truncate(0), { code: 'ERR_READ_ONLY' })
    sameBytes(t, await read(backend, 0, unit), filled(7))
    await backend.close()
  })

  test(`${name}: closing waits for the requests, writes what is queued, and may be repeated`, async (t) => {
    const backend = await open(t)
    const context = new Context(backend)
    context.write(filled(1), 0)
    context.barrier()
    context.write(filled(2), unit)
    const settled: string[] = []
    const requests = [
      backend.write(filled(3), 2 * unit).then(() => settled.push('write')),
      backend.read(filled(0), 0).then(() => settled.push('read')),
      backend.flush().then(() => settled.push('flush')),
    ]
    const closing = backend.close()
    await closing
    t.deepEqual(settled.sort(), ['flush', 'read', 'write'])
    await Promise.all(requests)
    t.is(backend.stats().queuedNodesNow, 0)
    t.is(backend.stats().nodeBytesWritten, 2 * unit)
    await backend.close()
  })

  test(`${name}: a closed file refuses everything`, async (t) => {
    const backend = await open(t)
    await backend.close()
    t.throws(() => backend.enqueue(filled(1), 0, noSection), { code: 'ERR_CLOSED' })
    for (const request of [
      () => backend.read(filled(0), 0),
      () => backend.readQueued(filled(0), 0),
      () => backend.write(filled(0), 0),
      () => backend.writeZeroes(0, 1, { unmap: false }),
      () => backend.punch(0, 1),
      () => backend.allocate(0, 1),
      () => backend.truncate(0),
      () => backend.extent(0),
      () => backend.flush(),
    ]) {
      await t.throwsAsync(request(), { code: 'ERR_CLOSED' }, String(request))
    }
  })

  test(`${name}: requests of nothing succeed`, async (t) => {
    const backend = await open(t, { contents: filled(7, 10) })
    await backend.read(new Uint8Array(0), 5)
    await backend.readQueued(new Uint8Array(0), 5)
    await backend.write(new Uint8Array(0), 5)
    await backend.writeZeroes(5, 0, { unmap: false })
    await backend.punch(5, 0)
    await backend.allocate(5, 0)
    sameBytes(t, await read(backend, 0, 10), filled(7, 10))
    await backend.close()
  })
}
