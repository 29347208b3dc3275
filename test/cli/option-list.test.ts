import test from 'ava'
import { escapeValue, parseOptionList } from '../../lib/cli/option-list.js'
import { UsageError } from '../../lib/cli/usage-error.js'

const pairs = (list: string) => parseOptionList(list).map(({ key, value }) => [key, value])

for (const [list, expected] of [
  ['a=1', [['a', '1']]],
  [
    'a=1,b=2',
    [
      ['a', '1'],
      ['b', '2'],
    ],
  ],
  ['a=', [['a', '']]],
  ['a', [['a', undefined]]],
  ['a=b=c', [['a', 'b=c']]],
  [
    'file=x,,y,b=2',
    [
      ['file', 'x,y'],
      ['b', '2'],
    ],
  ],
  [
    'file=x,,,b=2',
    [
      ['file', 'x,'],
      ['b', '2'],
    ],
  ],
  ['file=x,,,,y', [['file', 'x,,y']]],
  ['file=x,,', [['file', 'x,']]],
] as const) {
  test(`the option list ${list} is taken apart`, (t) => {
    t.deepEqual(pairs(list), expected as unknown as (string | undefined)[][])
  })
}

for (const list of ['', ',', 'a=1,', ',a=1']) {
  test(`the option list '${list}' is refused`, (t) => {
    t.throws(() => parseOptionList(list), { instanceOf: UsageError, message: `Invalid option list: ${list}` })
  })
}

test('any value survives a list', (t) => {
  for (const value of ['', ',', ',,', 'a,b', ',a,', 'x=1,y=2']) {
    t.deepEqual(pairs(`first=1,key=${escapeValue(value)}x,last=2`)[1], ['key', `${value}x`])
  }
})
