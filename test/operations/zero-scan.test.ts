import test from 'ava'
import { isZero, zeroRuns } from '../../lib/operations/zero-scan.js'

test('one byte anywhere makes bytes non-zero', (t) => {
  for (const length of [0, 1, 511, 4096, 65535, 65536, 65537, 200_000]) {
    const bytes = new Uint8Array(length)
    t.true(isZero(bytes), `${length} zeros`)
    for (const at of [0, Math.floor(length / 2), 65535, 65536, length - 2, length - 1]) {
      if (at < 0 || at >= length) continue
      bytes[at] = 1
      t.false(isZero(bytes), `byte ${at} of ${length}`)
      bytes[at] = 0
    }
  }
})

test('a part of larger memory is judged by itself', (t) => {
  const memory = new Uint8Array(3000).fill(1).fill(0, 1000, 2000)
  t.true(isZero(memory.subarray(1000, 2000)))
  t.false(isZero(memory.subarray(999, 2000)))
  t.false(isZero(memory.subarray(1000, 2001)))
  t.true(isZero(memory, 1000, 2000))
  t.false(isZero(memory, 999, 2000))
  t.false(isZero(memory, 1000, 2001))
  t.true(isZero(memory, 1000, 1000))
  const long = new Uint8Array(200_000)
  long[100] = 1
  long[150_000] = 1
  t.true(isZero(long, 101, 150_000))
  t.false(isZero(long, 101, 150_002))
})

test('runs begin at multiples of the unit, and a unit with data is data', (t) => {
  const bytes = new Uint8Array(4096 * 4 + 100)
  bytes[5000] = 1
  bytes[12287] = 1
  t.deepEqual(zeroRuns(bytes, 4096), [
    { start: 0, end: 4096, zero: true },
    { start: 4096, end: 12288, zero: false },
    { start: 12288, end: 16484, zero: true },
  ])
  t.deepEqual(zeroRuns(new Uint8Array(0), 4096), [])
  t.deepEqual(zeroRuns(Uint8Array.of(0, 1), 4096), [{ start: 0, end: 2, zero: false }])
})
