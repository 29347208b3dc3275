import test from 'ava'
import { noSection, section } from '../../lib/base/units.js'
import { type Fault, MemoryDevice } from '../../lib/queue/memory-device.js'
import { SimulatedWorker, type SimulatedWorkerOptions } from '../../lib/queue/simulated-worker.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'

const bytes = new Uint8Array(16).fill(1)

function setup(
  options: Partial<SimulatedWorkerOptions> = {},
  fault?: Fault,
): { worker: SimulatedWorker; device: MemoryDevice; progress: () => number } {
  const device = new MemoryDevice({ contents: new SparseBytes(), seed: undefined, record: true, fault })
  let calls = 0
  const worker = new SimulatedWorker({
    path: 'test',
    syncPolicy: 'flush',
    alignment: 1,
    idleMs: 0,
    device,
    progressed: () => calls++,
    ...options,
  })
  return { worker, device, progress: () => calls }
}

function kinds(device: MemoryDevice): string {
  return device.log.map(({ type }) => type).join(' ')
}

test('the nodes of a section are under way together, those of the next follow a sync', async (t) => {
  const { worker, device, progress } = setup()
  worker.enqueue(bytes, 0, noSection)
  worker.enqueue(bytes, 100, noSection)
  worker.enqueue(bytes, 200, section(2))
  await worker.flush()
  t.is(kinds(device), 'NSUB NSUB NEND NEND SSUB SEND NSUB NEND SSUB SEND')
  t.is(progress(), 4, 'told of every step')
  t.is(worker.state.durableSection, 2)
})

test('neighbours count as merged', async (t) => {
  const { worker } = setup()
  for (const offset of [0, 16, 32, 100, 200, 216]) worker.enqueue(bytes, offset, noSection)
  await worker.flush()
  t.is(worker.nodesMerged, 5)
})

test('a drain makes no last sync', async (t) => {
  const { worker, device } = setup()
  worker.enqueue(bytes, 0, noSection)
  worker.drain()
  while (worker.state.queuedNodes > 0) await new Promise((resolve) => setImmediate(resolve))
  t.is(kinds(device), 'NSUB NEND')
  t.is(worker.state.durableSection, 0)
})

test('without a queue a node is written at once', async (t) => {
  const { worker, device } = setup({ syncPolicy: 'write' })
  const placed = worker.enqueue(bytes, 0, noSection)
  await worker.durable(placed)
  t.is(kinds(device), 'NSUB NEND SSUB SEND')
})

test('old nodes are not written any more once it was stopped', async (t) => {
  const { worker, device } = setup({ idleMs: 1 })
  worker.enqueue(bytes, 0, noSection)
  worker.stop()
  await new Promise((resolve) => setTimeout(resolve, 20))
  t.is(kinds(device), '')
})

test('one failed node of a section fails the section, when all of it has ended', async (t) => {
  const { worker, device } = setup({}, ({ offset, kind }) =>
    kind === 'write' && offset === 0 ? 28 : undefined,
  )
  worker.enqueue(bytes, 0, noSection)
  worker.enqueue(bytes, 100, noSection)
  await t.throwsAsync(worker.flush(), { code: 'ERR_NO_SPACE', message: /ENOSPC/ })
  t.is(kinds(device), 'NSUB NSUB NEND NEND')
  t.is(worker.state.queuedNodes, 2)
  t.false(worker.failure?.forGood)
  t.is(worker.poisoned, undefined)
})
