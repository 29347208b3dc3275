import test from 'ava'
import { countTree, l2TablesOf, type Tree } from '../../lib/qcow2/tree-counts.js'
import { type Disk, diskByQemu, fill, newDisk } from '../support/qcow2-disk.js'

function activeTree({ parts }: Disk): Tree {
  return { l1: parts.l1.bytes, entries: parts.l1.entries, host: parts.l1.host }
}

test('a tree refers to its clusters as often as their counts say, where nothing else does', async (t) => {
  const disk = await diskByQemu(t, {
    create: ['-o', 'cluster_size=4096', 'disk.qcow2', '16M'],
    io: [
      'write -q -P 1 0 64k',
      'write -q -z 1M 16k',
      ...Array.from(
        { length: 9 },
        (_, index) => `write -q -c -P ${index + 1} ${8 * 2 ** 20 + index * 4096} 4096`,
      ),
    ],
  })
  const steps: number[][] = []
  const { counts, copiedTables } = await countTree(disk.parts, activeTree(disk), (...step) =>
    steps.push(step),
  )
  const referred = [...counts.counted(0, 10_000)]
  t.true(referred.length >= 18)
  for (const cluster of referred) {
    t.deepEqual(await disk.parts.allocator.counts(cluster, 1), [counts.get(cluster)], `cluster ${cluster}`)
  }
  t.true(
    referred.some((cluster) => counts.get(cluster) > 1),
    'compressed clusters share one',
  )
  const tables = [...l2TablesOf(activeTree(disk), disk.parts.geometry)].map(({ host }) => host)
  t.is(tables.length, 2)
  t.deepEqual(copiedTables, tables.slice(0, 1), 'compressed clusters are never COPIED')
  t.deepEqual(steps, [
    [0, 8192],
    [8192, 8192],
  ])
})

test('it ends where a step says so', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 512 })
  await disk.image.write(fill(512, 1), 0)
  const stop = new Error('enough')
  const tree = activeTree(disk)
  await t.throwsAsync(
    countTree(disk.parts, tree, () => {
      throw stop
    }),
    { is: stop },
  )
})

test('entries that no image can have are refused', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 512 })
  await disk.image.write(fill(512, 1), 0)
  await disk.image.flush()
  const tree = { ...activeTree(disk), l1: disk.parts.l1.bytes.slice() }
  const view = new DataView(tree.l1.buffer)
  const refused = async (entry: bigint, message: RegExp): Promise<void> => {
    view.setBigUint64(0, entry)
    await t.throwsAsync(
      countTree(disk.parts, tree, () => undefined),
      { code: 'ERR_CORRUPT', message },
    )
  }
  await refused(0x80000000_00000001n, /reserved bits/)
  await refused(0x80000000_10000000n, /behind the end of the file/)
  await refused(0x80000000_00000300n, /reserved bits|not cluster aligned/)
})
