import test from 'ava'
import { Qcow2Error } from '../../lib/base/errors.js'
import { systemErrorText } from '../../lib/cli/system-error-text.js'

test('errors have the numbers and words of the stock tool', (t) => {
  t.is(systemErrorText(new Qcow2Error('ERR_NO_SPACE', 'x')), '-28 (No space left on device)')
  t.is(systemErrorText(new Qcow2Error('ERR_IO', 'x')), '-5 (Input/output error)')
  const refused = (structure?: string): string =>
    systemErrorText(new Qcow2Error('ERR_NOT_SUPPORTED', 'x', structure === undefined ? {} : { structure }))
  t.is(refused('refcount block'), '-22 (Invalid argument)')
  t.is(refused('snapshot table'), '-27 (File too large)')
  t.is(refused(), '-95 (Operation not supported)')
  t.is(systemErrorText(new Error('as it is')), 'as it is')
})
