import test from 'ava'
import { exactNumber, parseSize, sizeArgument, sizeParameter } from '../../lib/cli/sizes.js'
import { UsageError } from '../../lib/cli/usage-error.js'

for (const [text, bytes] of [
  ['0', 0n],
  ['511', 511n],
  ['08', 8n],
  ['1b', 1n],
  ['1k', 1024n],
  ['1K', 1024n],
  ['1.5G', 1610612736n],
  ['0.1k', 102n],
  ['1.', 1n],
  ['1.0', 1n],
  ['1.k', 1024n],
  [' +2M', 2097152n],
  ['0x10', 16n],
  ['0x1e', 30n],
  ['0x1k', 1024n],
  ['2P', 2251799813685248n],
  ['7E', 8070450532247928832n],
  ['18446744073709551615', 18446744073709551615n],
] as const) {
  test(`${text} is ${bytes} bytes`, (t) => {
    t.deepEqual(parseSize(text), { type: 'size', bytes })
  })
}

for (const text of [
  '',
  'frob',
  '1.5',
  '.5M',
  '1e3',
  '1kb',
  '1 M',
  '1M ',
  '-1',
  '1,5',
  '0x',
  '0x1.8k',
  '1.5.2',
  'inf',
  'nan',
  '++1',
]) {
  test(`'${text}' is no size`, (t) => {
    t.deepEqual(parseSize(text), { type: 'malformed' })
  })
}

test('2^64 bytes and more are too large for any size', (t) => {
  t.deepEqual(parseSize('18446744073709551616'), { type: 'too large' })
  t.deepEqual(parseSize('16E'), { type: 'too large' })
})

test('a size argument is refused in the words of qemu-img', (t) => {
  t.is(sizeArgument('image size', '1M'), 1048576)
  t.deepEqual(t.throws(() => sizeArgument('image size', 'frob'), { instanceOf: UsageError })?.messages, [
    'Invalid image size specified. You may use k, M, G, T, P or E suffixes for',
    'kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.',
  ])
  t.throws(() => sizeArgument('image size', '8E'), {
    message: 'Invalid image size specified. Must be between 0 and 9223372036854775807.',
  })
  t.throws(() => sizeParameter('size', '16E'), {
    message: "Value '16E' is out of range for parameter 'size'",
  })
})

test('bytes that a number cannot hold exactly are refused, not rounded', (t) => {
  t.is(exactNumber('image size', 2n ** 53n - 1n), Number.MAX_SAFE_INTEGER)
  t.throws(() => exactNumber('image size', 2n ** 53n), { instanceOf: UsageError })
})
