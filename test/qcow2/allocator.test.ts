import test from 'ava'
import { fill, newParts } from '../support/qcow2-disk.js'

/** The counts of the first clusters as the allocator sees them. */
const many = { size: 65536, clusterSize: 512, refcountBits: 64 } as const

test('the lowest free cluster is given out first', async (t) => {
  const { parts } = await newParts({ size: 65536, clusterSize: 512 })
  // Header, refcount table, refcount block and L1 take clusters 0 to 3.
  const first = await parts.allocator.allocate(1)
  t.is(first.host, (4 * 512) as never)
  t.is(first.clusters, 1)
  const second = await parts.allocator.allocate(3)
  t.is(second.host, (5 * 512) as never)
  t.is(second.clusters, 3)
})

test('what is allocated counts 1 at once, and its mapping has to come behind the count', async (t) => {
  const { parts, backend } = await newParts({ size: 65536, clusterSize: 512 })
  const { host, clusters, after } = await parts.allocator.allocate(4)
  t.deepEqual(await parts.allocator.counts(host / 512, clusters), [1, 1, 1, 1])
  const queued = backend.log.filter(({ kind }) => kind === 'enqueue')
  t.true(queued.length > 0)
  for (const { section } of queued) t.true(after >= (section ?? 0))
})

test('allocations at the same time never overlap, through new refcount blocks and a grown refcount table', async (t) => {
  for (const refcountBits of [64, 16, 1]) {
    const { parts } = await newParts({ ...many, refcountBits }, { refcountCacheBytes: 0 })
    const taken = new Set<number>()
    // 64-bit counts: 64 clusters a block, 64 blocks a cluster of refcount table. 5000 clusters outgrow it.
    const wanted = refcountBits === 64 ? 5000 : refcountBits === 16 ? 2000 : 9000
    let got = 0
    const worker = async (most: number): Promise<void> => {
      while (got < wanted) {
        const { host, clusters } = await parts.allocator.allocate(most)
        got += clusters
        for (let step = 0; step < clusters; step++) {
          const cluster = host / 512 + step
          t.false(taken.has(cluster), `cluster ${cluster} twice`)
          t.is(parts.metadata.kindOf(cluster), undefined, `cluster ${cluster} is metadata`)
          taken.add(cluster)
        }
      }
    }
    await Promise.all([1, 3, 7, 1, 20, 100].map(worker))
    await parts.backend.flush()
    for (const cluster of taken) t.deepEqual(await parts.allocator.counts(cluster, 1), [1])
  }
})

test('a file without a byte behind its clusters reads as zeros there: such a cluster is fresh, a used one is not', async (t) => {
  const { parts } = await newParts({ size: 65536, clusterSize: 512 })
  const first = await parts.allocator.allocate(1)
  t.true(first.fresh)
  await parts.backend.write(fill(10, 1), first.host)
  await parts.allocator.cancel(first)
  const again = await parts.allocator.allocate(1)
  t.is(again.host, first.host)
  t.false(again.fresh)
})

test('an allocation that is cancelled is free again, and given out before higher clusters', async (t) => {
  const { parts } = await newParts({ size: 65536, clusterSize: 512 })
  const first = await parts.allocator.allocate(2)
  const second = await parts.allocator.allocate(2)
  await parts.allocator.cancel(first)
  t.is((await parts.allocator.allocate(2)).host, first.host)
  t.true((await parts.allocator.allocate(1)).host > second.host)
})

test('without waiting nothing is given out when the counts are not in memory', async (t) => {
  const { parts } = await newParts({ size: 65536, clusterSize: 512 })
  t.is(parts.allocator.tryAllocate(1), undefined)
  await parts.allocator.allocate(1)
  t.not(parts.allocator.tryAllocate(1), undefined)
})

test('a table in one piece gets adjacent clusters, behind whatever is in the way', async (t) => {
  const { parts } = await newParts({ size: 65536, clusterSize: 512 })
  const before = await parts.allocator.allocate(1)
  const gap = await parts.allocator.allocate(3)
  await parts.allocator.allocate(1)
  await parts.allocator.cancel(gap)
  const table = await parts.allocator.allocateAdjacent(10)
  t.is(table.clusters, 10)
  t.true(table.host > gap.host + 3 * 512)
  t.deepEqual(await parts.allocator.counts(table.host / 512, 10), fillNumbers(10, 1))
  // The gap is still there for others.
  t.is((await parts.allocator.allocate(3)).host, gap.host)
  t.true(before.host < gap.host)
})

test('a table in one piece may take more clusters than one refcount block counts', async (t) => {
  for (const refcountBits of [64, 32, 16]) {
    const { parts } = await newParts({ ...many, refcountBits })
    const perBlock = 4096 / refcountBits
    const table = await parts.allocator.allocateAdjacent(3 * perBlock)
    t.is(table.clusters, 3 * perBlock)
    t.deepEqual(await parts.allocator.counts(table.host / 512, 3 * perBlock), fillNumbers(3 * perBlock, 1))
    for (let cluster = table.host / 512; cluster < table.host / 512 + 3 * perBlock; cluster++) {
      t.is(parts.metadata.kindOf(cluster), undefined)
    }
  }
})

const fillNumbers = (length: number, value: number): number[] => new Array<number>(length).fill(value)

test('a free cluster that a table of a damaged image stands in is not given out', async (t) => {
  const { parts } = await newParts({ size: 65536, clusterSize: 512 })
  parts.metadata.add('L2 table', 4 * 512, 512)
  await t.throwsAsync(parts.allocator.allocate(1), {
    code: 'ERR_CORRUPT',
    message: /a new cluster overlaps it/,
  })
  t.deepEqual(await parts.allocator.counts(4, 1), [0], 'nothing was changed')
})

test('a count of a cluster that no block counts cannot be changed', async (t) => {
  const { parts } = await newParts(many)
  await t.throwsAsync(
    parts.allocator.changeCounts(
      10000,
      1,
      (count) => count - 1,
      (slice) => parts.ordering.addReferences(slice),
    ),
    { code: 'ERR_CORRUPT', message: /no refcount block/ },
  )
  t.deepEqual(await parts.allocator.counts(10000, 2), [0, 0])
})
