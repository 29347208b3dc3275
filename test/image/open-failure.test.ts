import test from 'ava'
import { Qcow2Error } from '../../lib/base/errors.js'
import { openFailure } from '../../lib/image/open-failure.js'

test('a failure names the image that could not be opened, and keeps what it says', (t) => {
  const cause = new Qcow2Error('ERR_CORRUPT', 'L1 table is torn', {
    path: 'a',
    offset: 40,
    structure: 'header',
    errno: 5,
  })
  const error = openFailure('a', cause) as Qcow2Error
  t.is(error.message, "Could not open 'a': L1 table is torn")
  t.is(error.code, 'ERR_CORRUPT')
  t.deepEqual([error.path, error.offset, error.structure, error.errno], ['a', 40, 'header', 5])
  t.is(error.cause, cause)
})

test('it is not said twice, and a backing file is told apart', (t) => {
  const cause = new Qcow2Error('ERR_NOT_FOUND', "Could not open 'base': No such file or directory", {
    path: 'base',
  })
  t.is(openFailure('base', cause), cause)
  t.is(
    (openFailure('top', cause) as Qcow2Error).message,
    "Could not open 'top': Could not open backing file: Could not open 'base': No such file or directory",
  )
})

test('what is not about a file passes as it is', (t) => {
  for (const error of [
    new Error('other'),
    new Qcow2Error('ERR_ADDON_NOT_LOADED', 'no addon', { path: '/x' }),
  ]) {
    t.is(openFailure('a', error), error)
  }
})
