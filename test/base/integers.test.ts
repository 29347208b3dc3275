import test from 'ava'
import { alignDown, alignUp, divideRoundingUp, isAligned, isCount } from '../../lib/base/integers.js'

/** Beyond 2^32 and 2^31, where the bitwise operators would go wrong. */
const large = 5 * 2 ** 40 + 512

test('rounding to a unit is exact far beyond 32 bits', (t) => {
  t.is(alignDown(large, 4096), 5 * 2 ** 40)
  t.is(alignUp(large, 4096), 5 * 2 ** 40 + 4096)
  t.is(alignDown(2 ** 53 - 1, 512), 2 ** 53 - 512)
  t.is(divideRoundingUp(large, 4096), 5 * 2 ** 28 + 1)
})

test('what is aligned stays where it is', (t) => {
  for (const value of [0, 512, 2 ** 32, 2 ** 52]) {
    t.is(alignDown(value, 512), value)
    t.is(alignUp(value, 512), value)
    t.true(isAligned(value, 512))
    t.false(isAligned(value + 1, 512))
  }
})

test('a unit need not be a power of two', (t) => {
  t.is(alignUp(10, 3), 12)
  t.is(alignDown(10, 3), 9)
})

test('counts are whole numbers from 0 that a number holds exactly', (t) => {
  for (const value of [0, 1, 2 ** 53 - 1]) t.true(isCount(value))
  for (const value of [-1, 0.5, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY, '1', 1n, null, undefined]) {
    t.false(isCount(value), String(value))
  }
})
