import test from 'ava'
import type { Extent } from '../../lib/image/layers.js'
import { kindOf, kinds, MapCells } from '../../lib/operations/map-cells.js'

const unallocated = { allocated: false, zero: true, data: false, compressed: false, depth: 0 }
const data = { allocated: true, zero: false, data: true, compressed: false, depth: 0 }

const run = (offset: number, length: number, state: Omit<Extent, 'offset' | 'length'>): Extent => ({
  offset,
  length,
  ...state,
})

test('what nobody says is unallocated, and layers deeper than are told apart count as the last', (t) => {
  const kind = (state: Omit<Extent, 'offset' | 'length'>): unknown => kinds[kindOf(state)]
  t.deepEqual(kind(unallocated), { state: 'unallocated', depth: 0 })
  t.deepEqual(kind({ ...unallocated, depth: 3 }), { state: 'unallocated', depth: 0 })
  t.deepEqual(kind(data), { state: 'data', depth: 0 })
  t.deepEqual(kind({ ...data, compressed: true, depth: 1 }), { state: 'compressed', depth: 1 })
  t.deepEqual(kind({ ...data, zero: true, depth: 4 }), { state: 'zero', depth: 4 })
  t.deepEqual(kind({ ...data, depth: 90 }), { state: 'data', depth: 4 })
})

test('cells are as small as their number allows, and whole sectors', (t) => {
  t.like(new MapCells(0, 512 * 10, 10), { cellBytes: 512, cellCount: 10 })
  t.like(new MapCells(0, 512 * 10 + 1, 10), { cellBytes: 1024, cellCount: 6 })
  t.like(new MapCells(0, 0, 10), { cellCount: 0 })
  const largest = new MapCells(0, Number.MAX_SAFE_INTEGER, 2560)
  t.true(largest.cellCount <= 2560 && largest.cellCount > 1280)
})

test('cells of one kind are one run, and a cell with several has their shares', (t) => {
  const cells = new MapCells(1024, 8 * 512, 8)
  cells.add(run(0, 2048, data))
  cells.add(run(2048, 1024 + 100, unallocated))
  cells.add(run(3172, 412, { ...data, depth: 1 }))
  cells.add(run(3584, 10_000, unallocated))
  const [none, zero] = [kindOf(unallocated), kindOf(data)]
  const one = kindOf({ ...data, depth: 1 })
  t.deepEqual(
    [...cells.cellRuns()],
    [
      { offset: 1024, length: 1024, first: 0, count: 2, shares: [{ kind: zero, bytes: 1024 }] },
      { offset: 2048, length: 1024, first: 2, count: 2, shares: [{ kind: none, bytes: 1024 }] },
      {
        offset: 3072,
        length: 512,
        first: 4,
        count: 1,
        shares: [
          { kind: one, bytes: 412 },
          { kind: none, bytes: 100 },
        ],
      },
      { offset: 3584, length: 1536, first: 5, count: 3, shares: [{ kind: none, bytes: 1536 }] },
    ],
  )
  t.deepEqual(cells.totals(), [
    { kind: zero, bytes: 1024 },
    { kind: one, bytes: 412 },
    { kind: none, bytes: 2660 },
  ])
})

test('a run may begin before the stretch and end behind it, and the last cell may be shorter', (t) => {
  const cells = new MapCells(100, 1000, 2)
  cells.add(run(0, 5000, data))
  t.deepEqual(
    [...cells.cellRuns()],
    [{ offset: 100, length: 1000, first: 0, count: 2, shares: [{ kind: 0, bytes: 1000 }] }],
  )
})
