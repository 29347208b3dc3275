import test from 'ava'
import { addon } from '../../lib/native/addon.js'
import type { NativeRequestQueue } from '../../lib/native/types.js'

const { RequestQueue, constants } = addon()
const bytes = new Uint8Array(16).fill(1)

function queue(): NativeRequestQueue {
  return new RequestQueue(constants.policies.flush, 0, 1)
}

test('the pure queue is driven from JavaScript', (t) => {
  const one = queue()
  t.is(one.enqueue(bytes, 0, 0, 0), 1)
  t.is(one.enqueue(bytes, 32, 2, 0), 2)
  t.is(one.sectionAfterData(), 2)
  t.true(one.overlaps(15, 1))
  t.false(one.overlaps(16, 1))
  t.is(one.pendingSection(32, 100), 2)
  const seen = new Uint8Array(4)
  one.overlay(seen, 14)
  t.deepEqual([...seen], [1, 1, 0, 0])

  t.deepEqual(one.flush(7), [])
  const first = one.next(0)
  t.is(first.kind, 'write')
  t.deepEqual(
    first.nodes.map(({ offset, section, bytes: { length } }) => [offset, section, length]),
    [[0, 1, 16]],
  )
  t.deepEqual(one.next(0), { kind: 'idle', nodes: [] }, 'one action at a time')
  t.deepEqual(one.written(0), [])
  t.is(one.next(0).kind, 'sync')
  t.deepEqual(one.synced(0), [])
  t.is(one.durableSection(), 1)
  t.is(one.next(0).nodes[0]?.offset, 32)
  one.written(0)
  one.next(0)
  t.deepEqual(one.synced(0), [{ id: 7, error: 0 }])
  t.like(one.state(), { durableSection: 2, queuedNodes: 0, syncsIssued: 2, barriersIssued: 1, stalled: 0 })
})

test('the bytes that are handed out are a copy', (t) => {
  const one = queue()
  one.enqueue(bytes, 0, 0, 0)
  one.flush(1)
  one.next(0).nodes[0]?.bytes.fill(9)
  const seen = new Uint8Array(1)
  one.overlay(seen, 0)
  t.deepEqual([...seen], [1])
})

test('the age of nodes is measured by the time that is given', (t) => {
  const one = new RequestQueue(constants.policies.flush, 100, 1)
  t.is(one.deadlineMs(), undefined)
  one.enqueue(bytes, 0, 0, 5000)
  t.is(one.deadlineMs(), 5100)
  t.is(one.next(5099).kind, 'idle')
  t.is(one.next(5100).kind, 'write')
})

test('an outcome is told of what was handed out only', (t) => {
  const one = queue()
  t.throws(() => one.written(0), { instanceOf: TypeError })
  t.throws(() => one.synced(0), { instanceOf: TypeError })
  one.enqueue(bytes, 0, 0, 0)
  one.flush(1)
  one.next(0)
  t.throws(() => one.synced(0), { instanceOf: TypeError })
  t.deepEqual(one.written(5), [{ id: 1, error: 5 }])
  t.throws(() => one.written(0), { instanceOf: TypeError })
  t.deepEqual(one.flush(2), [{ id: 2, error: 5 }])
})

test('what would break the queue is refused, and nothing changes', (t) => {
  const one = queue()
  const bad: unknown[] = [
    undefined,
    null,
    'x',
    -1,
    0.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    2 ** 53,
    {},
    5n,
  ]
  const refused = (call: () => unknown, what: string): void => {
    t.throws(call, { instanceOf: TypeError }, what)
  }
  for (const value of bad) {
    const wrong = value as number
    const what = String(value)
    refused(() => one.enqueue(bytes, wrong, 0, 0), `offset ${what}`)
    refused(() => one.enqueue(bytes, 0, wrong, 0), `earliest ${what}`)
    refused(() => one.enqueue(bytes, 0, 0, wrong), `now ${what}`)
    refused(() => one.flush(wrong), `id ${what}`)
    refused(() => one.awaitDurable(wrong, 0), `id ${what}`)
    refused(() => one.awaitDurable(0, wrong), `section ${what}`)
    refused(() => one.next(wrong), `now ${what}`)
    refused(() => one.written(wrong), `outcome ${what}`)
    refused(() => one.overlay(bytes, wrong), `offset ${what}`)
    refused(() => one.overlaps(wrong, 0), `offset ${what}`)
    refused(() => one.pendingSection(0, wrong), `length ${what}`)
    refused(() => new RequestQueue(wrong, 0, 1), `policy ${what}`)
    refused(() => new RequestQueue(0, wrong, 1), `idleMs ${what}`)
    refused(() => new RequestQueue(0, 0, wrong), `alignment ${what}`)
  }
  for (const value of [
    undefined,
    null,
    'x',
    new Uint8Array(0),
    new Uint16Array(4),
    new ArrayBuffer(4),
    [1],
  ]) {
    refused(() => one.enqueue(value as Uint8Array, 0, 0, 0), 'bytes')
    refused(() => one.overlay(value as Uint8Array, 0), 'bytes')
  }
  const detached = new Uint8Array(8)
  structuredClone(detached.buffer, { transfer: [detached.buffer] })
  refused(() => one.enqueue(detached, 0, 0, 0), 'transferred')
  refused(() => one.enqueue(bytes, 0, 3, 0), 'a section that nobody was ever told of')
  refused(() => new RequestQueue(3, 0, 1), 'no such policy')
  refused(() => new RequestQueue(0, 0, 3), 'no power of two')
  refused(() => new RequestQueue(0, 0, 2 ** 40), 'larger than any page')
  refused(() => one.written(5000), 'no errno')
  t.like(one.state(), { queuedNodes: 0, highestSection: 0, flushesAsked: 0 })
})

test('its methods refuse to be called on anything else', (t) => {
  const { drain, state } = RequestQueue.prototype as unknown as Record<string, () => unknown>
  for (const other of [{}, undefined, Object.create(RequestQueue.prototype as object) as unknown]) {
    t.throws(() => drain?.call(other), { instanceOf: TypeError })
    t.throws(() => state?.call(other), { instanceOf: TypeError })
  }
  const call = RequestQueue as unknown as (...values: number[]) => unknown
  t.throws(() => call(0, 0, 1), { instanceOf: TypeError })
})

test('a queue that is given up tells everybody who waits, and hands out nothing more', (t) => {
  const one = queue()
  one.enqueue(bytes, 0, 0, 0)
  t.deepEqual(one.flush(1), [])
  t.throws(() => one.giveUp(0), { instanceOf: TypeError })
  t.deepEqual(one.giveUp(12), [{ id: 1, error: 12 }])
  t.is(one.next(0).kind, 'idle')
  t.deepEqual(one.flush(2), [{ id: 2, error: 12 }])
  t.like(one.state(), { poisoned: 12, queuedNodes: 1 })
})
