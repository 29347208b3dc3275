import test from 'ava'
import { layout } from '../../lib/base/layout.js'

const everyKind = layout('thing', [
  ['byte', 'u8'],
  ['short', 'u16'],
  ['word', 'u32'],
  ['long', 'u64'],
  ['mask', 'mask64'],
  ['raw', 3],
])

const values = {
  byte: 0xab,
  short: 0x1234,
  word: 0xdeadbeef,
  long: 0x1f_ffff_ffff_ffff,
  mask: 0x8000_0000_0000_0001n,
  raw: Uint8Array.of(1, 2, 3),
}
const bytes = Buffer.from('ab1234deadbeef001fffffffffffff8000000000000001010203', 'hex')

test('sizes and offsets follow from the list of fields', (t) => {
  t.is(everyKind.sizeBytes, 26)
  t.deepEqual(everyKind.offsets, { byte: 0, short: 1, word: 3, long: 7, mask: 15, raw: 23 })
  t.deepEqual(everyKind.widths, { byte: 1, short: 2, word: 4, long: 8, mask: 8, raw: 3 })
})

test('fields are big-endian, and written as they are read', (t) => {
  t.deepEqual(Buffer.from(everyKind.encode(values)), bytes)
  t.deepEqual(everyKind.decode(bytes, 0, 0), values)
})

test('a structure is decoded wherever it begins, also in a view of a larger buffer', (t) => {
  const large = new Uint8Array(100).fill(0xff)
  large.set(bytes, 37)
  t.deepEqual(everyKind.decode(large, 37, 0), values)
  t.deepEqual(everyKind.decode(large.subarray(30), 7, 0), values)
})

test('patching changes the named fields and nothing else', (t) => {
  const patched = Uint8Array.from(bytes)
  everyKind.patch(patched, 0, { short: 0x5678, long: 1 })
  t.is(Buffer.from(patched).toString('hex'), 'ab5678deadbeef00000000000000018000000000000001010203')
})

test('a number beyond 2^53 is refused with the structure, the field and the place in the file', (t) => {
  const beyond = Uint8Array.from(bytes)
  beyond[8] = 0x20
  t.throws(() => everyKind.decode(beyond, 0, 4096), {
    message: 'Image is corrupt: thing at offset 4103: long is not below 2^53',
    code: 'ERR_CORRUPT',
  })
})

test('decoding bytes that are not there is our mistake', (t) => {
  t.throws(() => everyKind.decode(bytes, 1, 0), { name: 'AssertionError' })
})

for (const [what, wrong] of [
  ['a number too large for its field', { byte: 256 }],
  ['a negative number', { word: -1 }],
  ['a fraction', { short: 1.5 }],
  ['a number that is not exact', { long: 2 ** 53 }],
  ['raw bytes of another length', { raw: Uint8Array.of(1) }],
] as const) {
  test(`${what} is never stored`, (t) => {
    const before = Uint8Array.from(bytes)
    t.throws(() => everyKind.patch(before, 0, wrong), { name: 'AssertionError' })
    t.deepEqual(Buffer.from(before), bytes)
  })
}
