import test from 'ava'
import { type RangeLock, RangeLocks } from '../../lib/qcow2/range-locks.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'

/** Whether a promise is settled, after everything that is due now has run. */
async function isGranted(lock: RangeLock | Promise<RangeLock>): Promise<boolean> {
  let granted = false
  void Promise.resolve(lock).then(() => {
    granted = true
  })
  await new Promise((resolve) => setImmediate(resolve))
  return granted
}

test('a free range is locked at once, without waiting', (t) => {
  const locks = new RangeLocks()
  t.false(locks.acquire(0, 9) instanceof Promise)
  t.false(locks.acquire(10, 10) instanceof Promise, 'adjacent')
})

test('an overlapping range waits for the release, however little overlaps', async (t) => {
  for (const [first, last] of [
    [9, 20],
    [0, 5],
    [5, 5],
    [0, 100],
  ] as const) {
    const locks = new RangeLocks()
    const held = await locks.acquire(5, 9)
    const waiting = locks.acquire(first, last)
    t.false(await isGranted(waiting), `${first}-${last}`)
    locks.release(held)
    t.true(await isGranted(waiting), `${first}-${last}`)
  }
})

test('whoever came first gets a range first', async (t) => {
  const locks = new RangeLocks()
  const held = await locks.acquire(0, 0)
  const order: number[] = []
  const waiters = [1, 2, 3].map(async (who) => {
    const lock = await locks.acquire(0, who)
    order.push(who)
    locks.release(lock)
  })
  locks.release(held)
  await Promise.all(waiters)
  t.deepEqual(order, [1, 2, 3])
})

test('a large request is not starved by small ones that come after it', async (t) => {
  const locks = new RangeLocks()
  const held = await locks.acquire(0, 0)
  const large = locks.acquire(0, 9)
  const small = locks.acquire(5, 5)
  t.true(small instanceof Promise, 'range 5 is free, but somebody waits for it')
  t.false(await isGranted(small))
  locks.release(held)
  t.true(await isGranted(large))
  t.false(await isGranted(small))
  locks.release(await large)
  t.true(await isGranted(small))
})

test('who waits for something else is passed', async (t) => {
  const locks = new RangeLocks()
  await locks.acquire(0, 0)
  t.true(locks.acquire(0, 3) instanceof Promise)
  t.false(locks.acquire(4, 4) instanceof Promise)
})

test('one release lets everybody in who fits', async (t) => {
  const locks = new RangeLocks()
  const held = await locks.acquire(0, 9)
  const waiters = [locks.acquire(0, 2), locks.acquire(3, 5), locks.acquire(2, 3), locks.acquire(9, 12)]
  locks.release(held)
  t.deepEqual(await Promise.all(waiters.map(isGranted)), [true, true, false, true])
})

test('random requests: no two that overlap hold a lock, none passes an older one that overlaps, and all get their turn', async (t) => {
  const seed = seedOfRun()
  const random = new SeededRandom(seed)
  const below = (limit: number): number => random.integer(limit)
  t.log(`QCOW2_SEED=${seed}`)
  for (let round = 0; round < 50; round++) {
    const locks = new RangeLocks()
    const held = new Map<number, readonly [number, number]>()
    /** Asked and not granted, by order of asking. */
    const waiting = new Map<number, readonly [number, number]>()
    const overlap = (a: readonly [number, number], b: readonly [number, number]): boolean =>
      a[0] <= b[1] && b[0] <= a[1]
    let granted = 0
    const request = async (who: number): Promise<void> => {
      for (let pause = below(8); pause > 0; pause--) await Promise.resolve()
      const first = below(16)
      const range = [first, first + below(6)] as const
      waiting.set(who, range)
      const lock = await locks.acquire(range[0], range[1])
      for (const other of held.values()) t.false(overlap(range, other), `seed ${seed}: two holders`)
      for (const [older, other] of waiting) {
        if (older === who) break
        t.false(overlap(range, other), `seed ${seed}: ${who} passed ${older}`)
      }
      waiting.delete(who)
      held.set(who, range)
      granted++
      for (let pause = below(8); pause > 0; pause--) await Promise.resolve()
      held.delete(who)
      locks.release(lock)
    }
    await Promise.all(Array.from({ length: 40 }, (_, who) => request(who)))
    t.is(granted, 40, `seed ${seed}`)
  }
})
