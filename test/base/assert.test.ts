import test from 'ava'
import { assert, AssertionError } from '../../lib/base/assert.js'

test('what holds passes, and what does not is a mistake of the library', (t) => {
  t.notThrows(() => assert(true, 'one is one'))
  t.throws(() => assert(false, 'one is two'), {
    instanceOf: AssertionError,
    message: 'broken invariant, please report this: one is two',
  })
})
