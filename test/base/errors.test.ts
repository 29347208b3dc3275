import vm from 'node:vm'
import test from 'ava'
import { corrupt, invalid, outOfRange, Qcow2Error } from '../../lib/base/errors.js'

test('an error has a code, says where it happened, and keeps its cause', (t) => {
  const cause = new Error('EIO')
  const error = new Qcow2Error('ERR_IO', 'it broke', {
    path: 'disk',
    offset: 512,
    structure: 'header',
    errno: 5,
    cause,
  })
  t.like(error, {
    code: 'ERR_IO',
    message: 'it broke',
    path: 'disk',
    offset: 512,
    structure: 'header',
    errno: 5,
  })
  t.is(error.cause, cause)
  t.is(error.name, 'Qcow2Error')
  t.true(error instanceof Error)
  t.regex(String(error.stack), /^Qcow2Error: it broke\n/)
})

test('instanceof tells errors of another copy of the package, and nothing else', (t) => {
  const brand = Symbol.for('qcow2.error')
  const foreign: unknown = vm.runInNewContext('Object.assign(new Error("x"), { [brand]: true })', { brand })
  t.true(foreign instanceof Qcow2Error)
  for (const other of [new Error('x'), null, undefined, 'ERR_IO', { code: 'ERR_IO' }])
    t.false(other instanceof Qcow2Error)
})

test('damage is told with the structure and the place', (t) => {
  const error = corrupt('L2 entry', 327680, 'host offset is not cluster aligned')
  t.like(error, { code: 'ERR_CORRUPT', structure: 'L2 entry', offset: 327680 })
  t.is(error.message, 'Image is corrupt: L2 entry at offset 327680: host offset is not cluster aligned')
})

test('misuse is a TypeError or a RangeError with a code', (t) => {
  t.true(invalid('no') instanceof TypeError)
  t.like(invalid('no'), { code: 'ERR_INVALID_ARGUMENT', message: 'no' })
  t.like(invalid('no', 'ERR_INVALID_OPTION'), { code: 'ERR_INVALID_OPTION' })
  t.true(outOfRange('far') instanceof RangeError)
  t.like(outOfRange('far'), { code: 'ERR_OUT_OF_RANGE', message: 'far' })
})
