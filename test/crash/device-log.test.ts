import test from 'ava'
import type { DeviceEvent } from '../../lib/queue/memory-device.js'
import { readLog } from './device-log.js'

function submit(id: number, offset = id * 512): DeviceEvent {
  const bytes = new Uint8Array(512).fill(id + 1)
  return { type: 'NSUB', id, kind: 'write', offset, length: 512, section: undefined, bytes }
}
const end = (id: number, error = 0): DeviceEvent => ({ type: 'NEND', id, error })
const sync = (id: number): DeviceEvent => ({ type: 'SSUB', id })
const synced = (id: number, error = 0): DeviceEvent => ({ type: 'SEND', id, error })
const never = Number.POSITIVE_INFINITY

function durableTimes(events: DeviceEvent[]): number[] {
  return readLog(events).writes.map(({ durable }) => durable)
}

test('a write is durable when a sync that began after its end is over', (t) => {
  t.deepEqual(durableTimes([submit(0), end(0), sync(9), synced(9)]), [3])
})

test('a sync does not cover what ended after it began', (t) => {
  t.deepEqual(durableTimes([submit(0), sync(9), end(0), synced(9)]), [never])
  t.deepEqual(durableTimes([submit(0), sync(8), end(0), synced(8), sync(9), synced(9)]), [5])
})

test('a write that failed is never durable', (t) => {
  t.deepEqual(durableTimes([submit(0), end(0, 5), sync(9), synced(9)]), [never])
})

test('after a failed sync what it could have covered is never durable, what comes later may be', (t) => {
  const events = [
    submit(0),
    end(0),
    sync(7),
    submit(1),
    end(1),
    synced(7, 5),
    submit(2),
    end(2),
    sync(9),
    synced(9),
  ]
  t.deepEqual(durableTimes(events), [never, never, 9])
})

test('two writes of the same sector under way at once are refused', (t) => {
  t.throws(() => readLog([submit(0, 0), submit(1, 0)]), { message: /is under way/ })
  t.notThrows(() => readLog([submit(0, 0), end(0), submit(1, 0)]))
})
