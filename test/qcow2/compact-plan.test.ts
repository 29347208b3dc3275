import test from 'ava'
import { ReferenceCounts } from '../../lib/qcow2/check-counts.js'
import { ClusterMap } from '../../lib/qcow2/compact-map.js'
import { planFill, planWindows } from '../../lib/qcow2/compact-plan.js'

/**
 * A file as text: `.` is free, a small letter a cluster by itself, a run of one capital letter clusters that belong together, `#` one that is never moved.
 */
function mapOf(file: string): ClusterMap {
  const map = new ClusterMap(new ReferenceCounts(2 ** 20), new ReferenceCounts(2 ** 20))
  for (const [cluster, letter] of Array.from(file).entries()) {
    if (letter === '.') continue
    map.counts.set(cluster, 1)
    if (letter === '#') map.fix({ first: cluster, clusters: 1 })
    else if (letter >= 'A' && letter <= 'Z' && file[cluster + 1] === letter)
      map.join({ first: cluster, clusters: 2 })
  }
  return map
}

/** @returns moves as `FIRSTxCLUSTERS>TO` */
const told = (moves: readonly { first: number; clusters: number; to: number }[]): string =>
  moves.map(({ first, clusters, to }) => `${first}x${clusters}>${to}`).join(' ')

const fills: readonly (readonly [
  what: string,
  file: string,
  end: number,
  moves: string,
  unplaced: string,
])[] = [
  ['a file without holes is left alone', '#abc', 4, '', ''],
  ['what stands behind the end goes to the lowest free clusters, in order', '#.b.d.fg', 5, '6x1>1 7x1>3', ''],
  ['what belongs together goes to the smallest room that it fits into', '#...b..cDD', 8, '8x2>5', ''],
  ['large ones have the first choice', '#..b.cdEEf', 7, '7x2>1 9x1>4', ''],
  ['what has no room in one piece is told', '#.b.cdEE', 6, '', '6x2'],
  ['what reaches over the end moves as a whole', '#..bCCc', 5, '4x2>1', ''],
  ['a cluster that is never moved stays', '#.b#', 2, '2x1>1', ''],
]

for (const [what, file, end, moves, unplaced] of fills) {
  test(`${what}: ${file}`, (t) => {
    const plan = planFill(mapOf(file), end, 1000)
    t.is(told(plan.moves), moves)
    t.is(plan.unplaced.map(({ first, clusters }) => `${first}x${clusters}`).join(' '), unplaced)
  })
}

test('no more is moved than the references that there is memory for, and one unit at least', (t) => {
  const map = mapOf('#..ccc')
  map.counts.set(3, 5)
  t.is(told(planFill(map, 3, 6).moves), '3x1>1 4x1>2')
  t.is(told(planFill(map, 3, 1).moves), '3x1>1')
})

test('single clusters make room for what belongs together', (t) => {
  const file = '#.b.d.fGG'
  const map = mapOf(file)
  const { unplaced } = planFill(map, 7, 1000)
  const { moves, away, placements } = planWindows(map, 7, unplaced, 1000)
  // Cluster 6 goes elsewhere, and 5 and 6 are free then.
  t.is(told(moves), '6x1>1')
  t.deepEqual(away, [])
  t.is(told(placements), '7x2>5')
})

test('what belongs together leaves, and comes back packed, where there is nothing else', (t) => {
  const map = mapOf('#.BB.DDEE')
  const { unplaced } = planFill(map, 7, 1000)
  const { moves, away, placements } = planWindows(map, 7, unplaced, 1000)
  t.deepEqual(moves, [])
  t.deepEqual(away, [
    { first: 2, clusters: 2 },
    { first: 5, clusters: 2 },
  ])
  t.is(told(placements), '2x2>1 5x2>3 7x2>5')
})

test('no more stands behind everything meanwhile than is allowed', (t) => {
  const map = mapOf('#.BB.DDEE')
  const { unplaced } = planFill(map, 7, 1000)
  t.deepEqual(planWindows(map, 7, unplaced, 3).placements, [])
})

test('what reaches over the end comes back so that it ends there', (t) => {
  const map = mapOf('#a.cDDD')
  const { unplaced } = planFill(map, 6, 1000)
  t.is(unplaced.length, 1)
  const { moves, away, placements } = planWindows(map, 6, unplaced, 1000)
  t.is(told(moves), '3x1>2')
  t.deepEqual(away, [{ first: 4, clusters: 3 }])
  t.is(told(placements), '4x3>3')
})
