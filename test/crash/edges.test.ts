import test from 'ava'
import { exploreEdge } from './edge-scenarios.js'
import { allEdges, edges, elsewhere } from './edges.js'
import { mutants } from './mutants.js'

test('every edge of the format has its scenarios, or a test of its own', (t) => {
  t.deepEqual([...Object.keys(edges), ...Object.keys(elsewhere)].sort(), [...allEdges].sort())
})

for (const [edge, scenarios] of Object.entries(edges)) {
  for (const scenario of scenarios) {
    test.serial(`${edge}: all crash states of ${scenario.workload}`, async (t) => {
      t.timeout(5 * 60_000)
      const { states, points, problem } = await exploreEdge(scenario, mutants)
      t.is(problem, undefined)
      t.log(
        `${states} states at ${points} crashes; without its rule found out: ${scenario.mutants.join(', ')}`,
      )
    })
  }
}
