import test from 'ava'
import { Pending } from '../../lib/base/pending.js'

test('whoever waits goes on when all that has begun has ended', async (t) => {
  const pending = new Pending()
  await pending.ended()
  pending.begin()
  pending.begin()
  let ended = 0
  const waiting = [pending.ended(), pending.ended()].map((wait) => wait.then(() => ended++))
  const { end } = pending
  end()
  await new Promise((resolve) => setImmediate(resolve))
  t.is(ended, 0)
  end()
  await Promise.all(waiting)
  t.is(ended, 2)
  pending.begin()
  const again = pending.ended()
  end()
  await again
})
