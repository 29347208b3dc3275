import test from 'ava'
import { foreignValue, garbageValue, readPayload, stampedBytes, valueAt, zeroValue } from './payload.js'

function valueOf(bytes: Uint8Array, lba: number): number {
  const payload = readPayload(bytes, 0)
  return valueAt(lba, payload.lba, payload.generation)
}

test('a sector tells its place and its generation', (t) => {
  t.is(valueOf(stampedBytes(7, 1, 3), 7), 3)
  t.is(valueOf(stampedBytes(8, 1, 3), 7), foreignValue)
  t.is(valueOf(new Uint8Array(512), 7), zeroValue)
})

test("half of one sector and half of another is nobody's", (t) => {
  const torn = stampedBytes(7, 1, 3)
  torn.set(stampedBytes(7, 1, 4).subarray(256), 256)
  t.is(valueOf(torn, 7), garbageValue)
  const shifted = new Uint8Array(512)
  shifted.set(stampedBytes(7, 1, 3).subarray(4))
  t.is(valueOf(shifted, 7), garbageValue)
})
