import test from 'ava'
import { Expected, formatLine, type GuestLine, parseLines } from './guest-log.js'

const submitted = (id: number, value: number): GuestLine => ({
  what: 'submitted',
  id,
  lba: 7,
  sectors: 2,
  value,
})
const ended = (id: number): GuestLine => ({ what: 'ended', id })

const shown = (lines: GuestLine[], syncsWrites = false): number[] => {
  const expected = new Expected(lines, syncsWrites, () => 99)
  return [99, 0, 1, 2, 3].filter((value) => expected.mayShow(8, value))
}

test('lines are read back, and one that was cut off by the end is none', (t) => {
  const lines = [submitted(1, 5), ended(1), { what: 'flushing', id: 2 }, { what: 'flushed', id: 2 }] as const
  t.deepEqual(parseLines(lines.map(formatLine).join('')), [...lines])
  t.deepEqual(parseLines('e 1\nd 4'), [ended(1)])
})

test('a change that no flush covers may be there or not', (t) => {
  t.deepEqual(shown([submitted(1, 1), ended(1)]), [99, 1])
  const before = [submitted(1, 1), { what: 'flushing', id: 2 }, ended(1), { what: 'flushed', id: 2 }] as const
  t.deepEqual(shown([...before]), [99, 1], 'it had not ended when the flush began')
  t.deepEqual(
    shown([submitted(1, 1), ended(1), { what: 'flushing', id: 2 }]),
    [99, 1],
    'the flush never ended',
  )
})

test('what a flush covers is there, or what came after it', (t) => {
  const flush: GuestLine[] = [
    { what: 'flushing', id: 9 },
    { what: 'flushed', id: 9 },
  ]
  const lines = [
    submitted(1, 1),
    ended(1),
    submitted(2, 0),
    ended(2),
    ...flush,
    submitted(3, 3),
    submitted(4, 0),
  ]
  t.deepEqual(shown(lines), [0, 3])
  t.deepEqual(shown([submitted(1, 1), ended(1), submitted(2, 2), ...flush]), [1, 2])
})

test('where every write is synced, what has ended is there', (t) => {
  t.deepEqual(shown([submitted(1, 1), ended(1), submitted(2, 2)], true), [1, 2])
})
