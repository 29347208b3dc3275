import test from 'ava'
import { MemoryLocks } from '../../lib/queue/memory-locks.js'

test('what one holder has, another one is told of, and itself is not', (t) => {
  const locks = new MemoryLocks()
  const [a, b] = [locks.join(), locks.join()]
  t.is(a.lock([100, 201], [200]), undefined)
  t.is(a.lock([101], [100, 201]), undefined)
  t.is(b.lock([100], [203, 201, 100]), 201)
  t.is(a.lock([], [100]), undefined, 'who is refused holds nothing')
  t.is(b.lock([100], [200]), undefined, 'locks of one byte are shared')
})

test('what is let go of is free, and so is what somebody held who has left', (t) => {
  const locks = new MemoryLocks()
  const [a, b] = [locks.join(), locks.join()]
  a.lock([100, 201], [])
  a.unlock([201])
  t.is(b.lock([], [100, 201]), 100)
  t.is(b.lock([], [201]), undefined)
  a.leave()
  t.is(b.lock([], [100, 201]), undefined)
})
