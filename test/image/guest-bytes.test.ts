import test from 'ava'
import { checkBytes, newBytes } from '../../lib/image/guest-bytes.js'

test('memory that others can change or that can move is refused', (t) => {
  t.notThrows(() => checkBytes(new Uint8Array(3)))
  t.notThrows(() => checkBytes(Buffer.alloc(3)))
  for (const wrong of [
    [1],
    'text',
    new DataView(new ArrayBuffer(1)),
    new Uint8Array(new SharedArrayBuffer(1)),
  ]) {
    t.throws(() => checkBytes(wrong as Uint8Array), { code: 'ERR_INVALID_ARGUMENT' })
  }
})

test('what no memory can hold is told as a length out of range', (t) => {
  t.is(newBytes(5).length, 5)
  t.throws(() => newBytes(2 ** 53 - 1), { code: 'ERR_OUT_OF_RANGE' })
})
