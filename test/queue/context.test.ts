import test from 'ava'
import { noSection, section } from '../../lib/base/units.js'
import { Context } from '../../lib/queue/context.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'

const node = new Uint8Array(16)

test('nodes without a barrier share a section', (t) => {
  const context = new Context(new MemoryBackend())
  t.is(context.section, noSection)
  t.is(context.write(node, 0), context.write(node, 100))
  t.is(context.section, section(1))
})

test('a barrier puts what follows behind all that came before', (t) => {
  const backend = new MemoryBackend()
  const context = new Context(backend)
  const first = context.write(node, 0)
  context.barrier()
  const second = context.write(node, 100)
  t.is(second, section(first + 1))
  t.is(context.write(node, 200), second, 'until the next barrier')
  t.is(context.section, second)
  t.is(backend.stats().barriersAsked, 1)
})

test('a barrier orders within its own context only', (t) => {
  const backend = new MemoryBackend()
  const one = new Context(backend)
  const other = new Context(backend)
  const first = one.write(node, 0)
  one.barrier()
  t.is(other.write(node, 100), first)
  t.is(one.write(node, 200), section(first + 1))
})

test('a barrier with nothing before it, or two in a row, order nothing more', (t) => {
  const context = new Context(new MemoryBackend())
  context.barrier()
  const first = context.write(node, 0)
  t.is(first, section(1))
  context.barrier()
  context.barrier()
  t.is(context.write(node, 100), section(first + 1))
})

test('a node that is folded into a later section takes the chain with it', (t) => {
  const backend = new MemoryBackend()
  const other = new Context(backend)
  other.write(node, 0)
  other.barrier()
  const later = other.write(node, 100)
  const context = new Context(backend)
  t.is(context.write(node, 100), later)
  context.barrier()
  t.true(context.write(node, 200) > later)
})

test('a chain can be put behind nodes of another', (t) => {
  const backend = new MemoryBackend()
  const predecessor = new Context(backend).write(node, 0)
  const context = new Context(backend)
  context.after(predecessor)
  t.is(context.section, predecessor, 'the chain is durable only if its predecessor is')
  t.is(context.write(node, 100), section(predecessor + 1))
  context.after(noSection)
  t.is(context.write(node, 200), section(predecessor + 1))
})

test('what follows data goes behind a sync that has yet to start', async (t) => {
  const backend = new MemoryBackend({ record: true })
  await backend.write(node, 1000)
  const context = new Context(backend)
  context.afterData()
  context.write(node, 0)
  await backend.flush()
  t.deepEqual(
    backend.log.map(({ type }) => type),
    ['NSUB', 'NEND', 'SSUB', 'SEND', 'NSUB', 'NEND', 'SSUB', 'SEND'],
  )
  t.is(backend.stats().barriersAsked, 1)
})

test('the order after data is not lost by an earlier position of the chain, nor the other way round', async (t) => {
  const backend = new MemoryBackend()
  const context = new Context(backend)
  context.write(node, 0)
  context.barrier()
  context.write(node, 100)
  context.barrier()
  await backend.write(node, 1000)
  context.afterData()
  t.is(context.write(node, 200), section(3), 'the barrier is later')
  const other = new Context(backend)
  other.afterData()
  t.is(other.write(node, 300), section(2), 'the data is later')
})
