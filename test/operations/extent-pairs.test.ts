import test from 'ava'
import type { Extent } from '../../lib/image/layers.js'
import { pairs } from '../../lib/operations/extent-pairs.js'

async function* extents(...lengths: number[]): AsyncGenerator<Extent, void, undefined> {
  let offset = 0
  for (const [index, length] of lengths.entries()) {
    yield { offset, length, allocated: true, zero: false, data: true, compressed: false, depth: index }
    offset += length
  }
}

test('two disks are cut wherever one of them changes, as far as both go', async (t) => {
  const found: number[][] = []
  for await (const { offset, length, a, b } of pairs(extents(10, 20, 30), extents(15, 15, 5, 100))) {
    found.push([offset, length, a.depth, b.depth])
  }
  t.deepEqual(found, [
    [0, 10, 0, 0],
    [10, 5, 1, 0],
    [15, 15, 1, 1],
    [30, 5, 2, 2],
    [35, 25, 2, 3],
  ])
})
