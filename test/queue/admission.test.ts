import test from 'ava'
import { Admission, type BoundedQueue } from '../../lib/queue/admission.js'

/** A queue that does nothing by itself. */
class StillQueue implements BoundedQueue {
  bytes = 0
  nodes = 0
  drains = 0
  broken: { error: Error; forGood: boolean } | undefined
  cannotDrain: Error | undefined

  queued(): { bytes: number; nodes: number } {
    return { bytes: this.bytes, nodes: this.nodes }
  }

  failure(): { error: Error; forGood: boolean } | undefined {
    return this.broken
  }

  /** What draining brings to light. */
  onDrain: () => void = () => undefined

  drain(): void {
    this.drains++
    if (this.cannotDrain !== undefined) throw this.cannotDrain
    this.onDrain()
  }
}

function setup(): { queue: StillQueue; admission: Admission } {
  const queue = new StillQueue()
  return { queue, admission: new Admission({ bytes: 100, nodes: 4 }, queue) }
}

/** Whether promises are settled, after all that can follow now has followed. */
async function settled(...promises: (Promise<void> | undefined)[]): Promise<boolean[]> {
  const states = promises.map(() => false)
  for (const [index, promise] of promises.entries()) {
    promise?.then(
      () => (states[index] = true),
      () => (states[index] = true),
    )
  }
  await new Promise((resolve) => setImmediate(resolve))
  return states
}

test('room is counted from what is queued and what was taken', async (t) => {
  const { queue, admission } = setup()
  t.is(admission.admit(60), undefined)
  queue.bytes = 40
  const waiting = admission.admit(1)
  t.deepEqual(await settled(waiting), [false])
  t.is(queue.drains, 1, 'the queue is asked to make room')
  admission.release(60)
  t.deepEqual(await settled(waiting), [true])
  t.is(admission.waits, 1)
})

test('who comes first goes first, however small what the next one wants', async (t) => {
  const { queue, admission } = setup()
  queue.bytes = 90
  const large = admission.admit(50)
  const small = admission.admit(1)
  queue.bytes = 60
  admission.progressed()
  t.deepEqual(await settled(large, small), [false, false])
  queue.bytes = 50
  admission.progressed()
  t.deepEqual(await settled(large, small), [true, false], 'the queue is full by now')
  admission.release(50)
  t.deepEqual(await settled(small), [true])
})

test('a request that is larger than all the room goes on alone', async (t) => {
  const { queue, admission } = setup()
  t.is(admission.admit(1000), undefined)
  const next = admission.admit(1000)
  t.deepEqual(await settled(next), [false])
  queue.bytes = 800
  admission.release(1000)
  t.deepEqual(await settled(next), [false], 'first all of it has to be written')
  queue.bytes = 0
  admission.progressed()
  t.deepEqual(await settled(next), [true])
})

test('the number of nodes is bounded', async (t) => {
  const { queue, admission } = setup()
  queue.bytes = 4
  queue.nodes = 4
  const waiting = admission.admit(1)
  t.deepEqual(await settled(waiting), [false])
  queue.nodes = 3
  admission.progressed()
  t.deepEqual(await settled(waiting), [true])
})

test('while somebody waits the queue is asked again for what was queued since', async (t) => {
  const { queue, admission } = setup()
  queue.bytes = 100
  const waiting = admission.admit(10)
  t.is(queue.drains, 1)
  admission.progressed()
  t.is(queue.drains, 2)
  queue.bytes = 0
  admission.progressed()
  t.is(queue.drains, 2)
  t.deepEqual(await settled(waiting), [true])
})

test('a failed queue rejects whoever waits, and whoever would have to', async (t) => {
  const { queue, admission } = setup()
  queue.bytes = 100
  const waiting = [admission.admit(10), admission.admit(20)]
  const error = new Error('poisoned')
  queue.broken = { error, forGood: true }
  admission.progressed()
  for (const one of waiting) t.is(await t.throwsAsync(one ?? Promise.resolve()), error)
  const drains = queue.drains
  t.is(await t.throwsAsync(admission.admit(10) ?? Promise.resolve()), error)
  t.is(queue.drains, drains, 'nothing more is tried')
})

test('a full disk rejects whoever waits, and is tried again for the next one', async (t) => {
  const { queue, admission } = setup()
  queue.bytes = 100
  const first = admission.admit(10)
  const error = new Error('no space')
  queue.broken = { error, forGood: false }
  admission.progressed()
  t.is(await t.throwsAsync(first ?? Promise.resolve()), error)
  const drains = queue.drains
  const second = admission.admit(10)
  t.is(queue.drains, drains + 1)
  t.deepEqual(await settled(second), [false])
  queue.broken = undefined
  queue.bytes = 0
  admission.progressed()
  t.deepEqual(await settled(second), [true])
})

test('where nothing can be written for want of a thread, those who wait are told, and leave nothing behind', async (t) => {
  const { queue, admission } = setup()
  queue.bytes = 100
  const first = admission.admit(1)
  queue.cannotDrain = new Error('no thread')
  const second = admission.admit(1)
  await t.throwsAsync(async () => first, { message: 'no thread' })
  await t.throwsAsync(async () => second, { message: 'no thread' })
  queue.cannotDrain = undefined
  queue.bytes = 0
  admission.progressed()
  t.is(admission.admit(100), undefined, 'no room was taken')
})

test('nobody is left waiting for a queue that turns out to be empty, or broken, when it is asked to drain', async (t) => {
  const { queue, admission } = setup()
  queue.bytes = 100
  queue.onDrain = () => (queue.bytes = 0)
  // Nothing else will ever happen in this queue: it has told all that it had to tell.
  t.deepEqual(await settled(admission.admit(60)), [true])
  queue.bytes = 40
  queue.onDrain = () => undefined
  const waiting = admission.admit(60)
  queue.onDrain = () => (queue.bytes = 0)
  admission.release(10)
  t.deepEqual(await settled(waiting), [false], 'the first one still has its room')
  admission.release(50)
  t.deepEqual(await settled(waiting), [true])

  queue.bytes = 100
  queue.onDrain = () => (queue.broken = { error: new Error('broken'), forGood: true })
  await t.throwsAsync(async () => admission.admit(60), { message: 'broken' })
})
