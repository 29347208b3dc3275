import test from 'ava'
import { NumberMap } from '../../lib/base/number-map.js'
import { SeededRandom } from '../support/seeded-random.js'

test('it holds what a Map holds, whatever comes and goes', (t) => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = new SeededRandom(seed)
    const model = new Map<number, number>()
    const map = new NumberMap<number>()
    const unit = random.pick([1, 512, 65536, 2 ** 32, 2 ** 40])
    const keys = random.pick([10, 40, 300])
    for (let step = 0; step < 4000; step++) {
      const key = random.integer(keys) * unit
      if (random.integer(3) === 0) {
        model.delete(key)
        map.delete(key)
      } else if (random.integer(2) === 0) {
        model.set(key, step)
        map.set(key, step)
      }
      t.is(map.get(key), model.get(key))
      t.is(map.size, model.size)
    }
    for (let index = 0; index < keys; index++) t.is(map.get(index * unit), model.get(index * unit))
    const ascending = (left: number, right: number): number => left - right
    t.deepEqual(map.values().sort(ascending), [...model.values()].sort(ascending))
    map.clear()
    t.is(map.size, 0)
    t.deepEqual(map.values(), [])
  }
})

test('the largest number is a key like any other', (t) => {
  const map = new NumberMap<string>()
  map.set(Number.MAX_SAFE_INTEGER, 'last')
  map.set(0, 'first')
  t.is(map.get(Number.MAX_SAFE_INTEGER), 'last')
  t.is(map.get(0), 'first')
  t.is(map.get(2 ** 32 - 1), undefined)
})
