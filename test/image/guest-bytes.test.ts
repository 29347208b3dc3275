import test from 'ava'
import { checkBytes, newBytes } from '../../lib/image/guest-bytes.js'
import { addon } from '../../lib/native/addon.js'

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
  for (const direct of [false, true]) {
    t.is(newBytes(5, direct).length, 5)
    t.throws(() => newBytes(2 ** 53 - 1, direct), { code: 'ERR_OUT_OF_RANGE' })
  }
})

test('what is read past the page cache goes to memory that needs no copy', (t) => {
  t.is(addon().misalignment(newBytes(2 ** 20, true), 4096), 0)
  t.is(newBytes(2 ** 20, false).buffer.byteLength, 2 ** 20, 'nothing is added without need')
})
