import test from 'ava'
import {
  booleanOption,
  checkOptions,
  checkPath,
  enumOption,
  functionOption,
  integerOption,
  powerOfTwoOption,
  required,
  signalOption,
  stringOption,
} from '../../lib/base/options.js'

const schema = {
  readOnly: booleanOption,
  format: enumOption(['qcow2', 'raw']),
  size: integerOption({ min: 0, max: 1000 }),
  clusterSize: powerOfTwoOption({ min: 512, max: 4096 }),
  backingFile: stringOption,
  onEvent: functionOption(),
  signal: signalOption,
}

const check = (given: unknown) => checkOptions('open', given, schema)

test('options that exist come back as given, absent and undefined ones do not', (t) => {
  const { signal } = new AbortController()
  t.deepEqual(
    check({ readOnly: true, format: 'raw', size: 5, clusterSize: 1024, signal, backingFile: undefined }),
    {
      readOnly: true,
      format: 'raw',
      size: 5,
      clusterSize: 1024,
      signal,
    },
  )
  t.deepEqual(check(undefined), {})
})

test('a misspelt option is refused with the name that was meant', (t) => {
  for (const [misspelt, meant] of [
    ['readonly', 'readOnly'],
    ['clusterSise', 'clusterSize'],
    ['backngfile', 'backingFile'],
  ] as const) {
    t.throws(() => check({ [misspelt]: true }), {
      instanceOf: TypeError,
      code: 'ERR_INVALID_OPTION',
      message: `open: unknown option "${misspelt}"; did you mean "${meant}"?`,
    })
  }
})

test('an option that resembles none is refused without a guess', (t) => {
  t.throws(() => check({ colour: 'red' }), {
    code: 'ERR_INVALID_OPTION',
    message: 'open: unknown option "colour"',
  })
})

test('names that every object has are no options', (t) => {
  t.throws(() => check({ constructor: 1 }), { code: 'ERR_INVALID_OPTION' })
  t.throws(() => check({ toString: 1 }), { code: 'ERR_INVALID_OPTION' })
  t.throws(() => check(JSON.parse('{"__proto__": 1}')), { code: 'ERR_INVALID_OPTION' })
})

test('options that are no object are refused', (t) => {
  for (const given of ['raw', 7, null, true, ['raw']]) {
    t.throws(() => check(given), { instanceOf: TypeError, code: 'ERR_INVALID_OPTION' })
  }
})

test('values of the wrong kind are refused by name', (t) => {
  const wrong: [object, RegExp][] = [
    [{ readOnly: 1 }, /"readOnly" must be true or false, not 1/],
    [{ format: 'qcow' }, /"format" must be one of 'qcow2', 'raw', not "qcow"; did you mean "qcow2"\?/],
    [{ format: 3 }, /"format" must be one of/],
    [{ size: '5' }, /"size" must be a number, not "5"/],
    [{ backingFile: '' }, /"backingFile" must not be empty/],
    [{ backingFile: 'a\0b' }, /NUL/],
    [{ backingFile: {} }, /"backingFile" must be a string, not a value of type object/],
    [{ onEvent: 'f' }, /"onEvent" must be a function/],
    [{ signal: {} }, /"signal" must be an AbortSignal/],
  ]
  for (const [given, message] of wrong) {
    t.throws(() => check(given), { instanceOf: TypeError, code: 'ERR_INVALID_OPTION', message })
  }
})

test('numbers out of range are RangeErrors', (t) => {
  for (const given of [
    { size: -1 },
    { size: 1001 },
    { size: 1.5 },
    { size: Number.NaN },
    { size: 2 ** 60 },
  ]) {
    t.throws(() => check(given), { instanceOf: RangeError, code: 'ERR_OUT_OF_RANGE' })
  }
  for (const clusterSize of [256, 8192, 1000]) {
    t.throws(() => check({ clusterSize }), { instanceOf: RangeError, code: 'ERR_OUT_OF_RANGE' })
  }
})

test('a required option that is missing is named', (t) => {
  t.is(required('create', 'size', 0), 0)
  t.throws(() => required('create', 'size', undefined), { message: 'create: option "size" is required' })
})

test('a path must be a string that a file can have as its name', (t) => {
  t.is(checkPath('open', 'a.qcow2'), 'a.qcow2')
  for (const path of [undefined, '', 'a\0', 7, new URL('file:///a')]) {
    t.throws(() => checkPath('open', path), { instanceOf: TypeError, code: 'ERR_INVALID_OPTION' })
  }
})
