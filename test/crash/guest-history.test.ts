import test from 'ava'
import { GuestHistory } from './guest-history.js'
import { backingValue } from './payload.js'

const old = 5

function history(): GuestHistory {
  return new GuestHistory(Int32Array.of(old, old), 0, [2, 3])
}

const times = (submitted: number, ended: number) => ({ submitted, ended, failed: false })

function mayShow(guest: GuestHistory, time: number, lba = 0, resize = 0): number[] {
  const candidates = guest.at(time).values.get(lba) ?? []
  return [...new Set(candidates.filter((one) => one.lastResize >= resize).map(({ value }) => value))].sort(
    (a, b) => a - b,
  )
}

test('a write that no flush covers is there or not', (t) => {
  const guest = history()
  guest.write(0, 1, 10, times(0, 1))
  t.deepEqual(mayShow(guest, 5), [old, 10])
})

test('after a flush the last write that had ended before it is there', (t) => {
  const guest = history()
  guest.write(0, 1, 10, times(0, 1))
  guest.write(0, 1, 11, times(2, 3))
  guest.flush(times(4, 6))
  t.deepEqual(mayShow(guest, 5), [old, 10, 11])
  t.deepEqual(mayShow(guest, 6), [11])
})

test('a flush does not cover what had not ended when it began', (t) => {
  const guest = history()
  guest.write(0, 1, 10, times(0, 4))
  guest.flush(times(3, 6))
  t.deepEqual(mayShow(guest, 6), [old, 10])
})

test('writes under way together may win in either order', (t) => {
  const guest = history()
  guest.write(0, 1, 10, times(0, 3))
  guest.zero(0, 1, times(1, 2))
  guest.flush(times(4, 5))
  t.deepEqual(mayShow(guest, 5), [0, 10])
})

test('a discard may be lost, also when a flush covers it', (t) => {
  const guest = history()
  guest.write(0, 1, 10, times(0, 1))
  guest.discard(0, 1, times(2, 3))
  guest.flush(times(4, 5))
  t.deepEqual(mayShow(guest, 5), [0, 10])
})

test('a write that failed may show for ever and replaces nothing', (t) => {
  const guest = history()
  guest.write(0, 1, 10, { submitted: 0, ended: 1, failed: true })
  guest.flush(times(2, 3))
  t.deepEqual(mayShow(guest, 3), [old, 10])
})

test('a disk that could not be cut off keeps its bytes when it is cut off less', (t) => {
  const guest = new GuestHistory(new Int32Array(4).fill(old), 0, [])
  guest.resize(1, { submitted: 0, ended: 1, failed: true })
  guest.resize(3, times(2, 3), true, 4)
  t.deepEqual(mayShow(guest, 9, 1, 2), [0, old])
})

test('a disk that has grown again shows zeros where it was cut off, one that has not may show anything', (t) => {
  const guest = new GuestHistory(Int32Array.of(old, old), 2, [])
  guest.resize(1, times(0, 1))
  guest.resize(3, times(2, 3))
  t.deepEqual(mayShow(guest, 9, 1, 2), [0])
  t.deepEqual(mayShow(guest, 9, 1, 0), [0, old, backingValue])
  t.deepEqual(
    guest.at(9).sizes.map(({ sectors }) => sectors),
    [2, 1, 3],
  )
  guest.flush(times(4, 5))
  t.deepEqual(
    guest.at(9).sizes.map(({ sectors }) => sectors),
    [3],
  )
})

test('a read may not see what a completed write has replaced', (t) => {
  const guest = history()
  guest.write(0, 1, 10, times(0, 1))
  guest.write(0, 1, 11, times(5, 9))
  t.false(guest.mayRead(0, old, 2, 4))
  t.true(guest.mayRead(0, 10, 2, 4))
  t.false(guest.mayRead(0, 11, 2, 4))
  t.true(guest.mayRead(0, 11, 6, 7))
})
