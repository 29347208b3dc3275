import test from 'ava'
import { SeededRandom } from '../support/seeded-random.js'
import { coveringRows, type Row } from './coverage.js'

const choices = { a: [1, 2, 3], b: ['x', 'y'], c: [1, 2, 3, 4], d: ['x', 'y'] } as const
const mayBe = ({ a, b }: Row): boolean => !(a === 1 && b === 'y')

test('every pair that may be is in a row, and none that may not', (t) => {
  const rows = coveringRows(choices, mayBe, 2, new SeededRandom(1))
  for (const one of ['a', 'b', 'c', 'd'] as const) {
    for (const other of ['a', 'b', 'c', 'd'] as const) {
      if (one >= other) continue
      for (const value of choices[one]) {
        for (const otherValue of choices[other]) {
          const isThere = rows.some((row) => row[one] === value && row[other] === otherValue)
          t.is(
            isThere,
            mayBe({ [one]: value, [other]: otherValue }),
            `${one} ${value}, ${other} ${otherValue}`,
          )
        }
      }
    }
  }
  t.true(rows.length <= 16, `${rows.length} rows, where 12 is the least`)
})

test('of all four there is one row each', (t) => {
  t.is(coveringRows(choices, mayBe, 4, new SeededRandom(1)).length, (3 * 2 - 1) * 4 * 2)
})

test('what nothing may be added to is an error', (t) => {
  t.throws(() => coveringRows(choices, ({ d }) => d === undefined, 1, new SeededRandom(1)), {
    message: /nothing may stand for d/,
  })
})
