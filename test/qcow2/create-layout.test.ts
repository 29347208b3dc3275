import test from 'ava'
import { layOut } from '../../lib/qcow2/create-layout.js'
import { makeGeometry } from '../../lib/qcow2/geometry.js'

const mib = 2 ** 20

test('header, refcount table, refcount block, L1: the file ends with the last L1 entry', (t) => {
  t.deepEqual(layOut(makeGeometry(16, 4), 64 * mib), {
    l1: { cluster: 3, entries: 1 },
    refcountTable: { cluster: 1, clusters: 1 },
    blocks: new Map([[0, 2]]),
    used: [
      [0, 1],
      [1, 1],
      [2, 1],
      [3, 1],
    ],
    outgrownTable: undefined,
    encryption: undefined,
    fileBytes: 196616,
  })
})

test('an empty disk has no L1', (t) => {
  const layout = layOut(makeGeometry(16, 4), 0)
  t.deepEqual(layout.l1, { cluster: 0, entries: 0 })
  t.is(layout.fileBytes, 196608)
})

test('a block that counts the L1 stands behind it, and counts itself where it can', (t) => {
  // 512-byte clusters, 16 bits: a block counts 256 clusters; 518 MiB have an L1 of 259 clusters
  const layout = layOut(makeGeometry(9, 4), 518 * mib)
  t.deepEqual(
    [...layout.blocks],
    [
      [0, 2],
      [1, 262],
    ],
  )
  t.is(layout.fileBytes, 263 * 512)
})

test('every cluster in use is counted by exactly one block, and used once', (t) => {
  for (const [clusterBits, refcountOrder, size] of [
    [9, 4, 2 ** 37],
    [9, 6, 2 ** 36],
    [9, 0, 2 ** 37],
    [10, 5, 2 ** 39],
    [12, 6, 2 ** 40],
    [21, 4, 2 ** 46],
  ] as const) {
    const geometry = makeGeometry(clusterBits, refcountOrder)
    const layout = layOut(geometry, size)
    const used = new Set<number>()
    for (const [first, count] of layout.used) {
      for (let cluster = first; cluster < first + count; cluster++) {
        t.false(used.has(cluster))
        used.add(cluster)
        t.true(layout.blocks.has(Math.floor(cluster / geometry.refcountsPerBlock)))
      }
    }
    for (const cluster of layout.blocks.values()) t.true(used.has(cluster))
    const { cluster, clusters } = layout.refcountTable
    t.true(used.has(cluster) && used.has(cluster + clusters - 1))
    t.true(Math.max(...layout.blocks.keys()) < (clusters * geometry.clusterSize) / 8)
    t.is(layout.outgrownTable !== undefined, clusters > 1)
  }
})
