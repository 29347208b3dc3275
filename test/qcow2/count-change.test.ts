import test from 'ava'
import { CountChange } from '../../lib/qcow2/count-change.js'
import { countTree, type TreeCounts } from '../../lib/qcow2/tree-counts.js'
import { checkedClean, type Disk, fill, newDisk } from '../support/qcow2-disk.js'

const nothing = (): void => undefined

async function diskWith(refcountBits: number): Promise<{ disk: Disk; counted: TreeCounts }> {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 512, refcountBits })
  await disk.image.write(fill(200 * 512, 1), 0)
  await disk.image.flush()
  const { l1 } = disk.parts
  const tree = { l1: l1.bytes, entries: l1.entries, host: l1.host }
  return { disk, counted: await countTree(disk.parts, tree, nothing) }
}

async function countsOf({ parts }: Disk): Promise<number[]> {
  return await parts.allocator.counts(0, Math.ceil(parts.backend.length / 512))
}

for (const refcountBits of [1, 2, 4, 8, 16, 32, 64]) {
  test(`what comes is raised and taken back, as far as counts of ${refcountBits} bits reach`, async (t) => {
    const { disk, counted } = await diskWith(refcountBits)
    const before = await countsOf(disk)
    const change = new CountChange(disk.parts, counted, undefined)
    if (refcountBits === 1) {
      await t.throwsAsync(change.check(), { code: 'ERR_NOT_SUPPORTED', message: /1 bits cannot count 2/ })
      await checkedClean(t, disk)
      return
    }
    await change.check()
    await change.raise(nothing)
    const raised = await countsOf(disk)
    t.deepEqual(
      raised,
      before.map((count, cluster) => count + counted.counts.get(cluster)),
    )
    await change.undo()
    t.deepEqual(await countsOf(disk), before)
    await change.undo()
    t.deepEqual(await countsOf(disk), before, 'once is enough')
    await checkedClean(t, disk)
  })
}

test('given up on the way, only what was raised is taken back', async (t) => {
  const { disk, counted } = await diskWith(64)
  const before = await countsOf(disk)
  const change = new CountChange(disk.parts, counted, undefined)
  let steps = 0
  const error = new Error('enough')
  await t.throwsAsync(
    change.raise(() => {
      if (++steps === 2) throw error
    }),
    { is: error },
  )
  t.notDeepEqual(await countsOf(disk), before)
  await change.undo()
  t.deepEqual(await countsOf(disk), before)
  await checkedClean(t, disk)
})

test('what both trees refer to alike is left alone, even at the highest count', async (t) => {
  const { disk, counted } = await diskWith(1)
  const written = disk.image.stats().nodesQueued
  // Both are said to be there: counts of 2, which one bit cannot say. So it is the check that speaks.
  const change = new CountChange(disk.parts, counted, counted)
  await t.throwsAsync(change.check(), { code: 'ERR_CORRUPT' })
  await change.raise(nothing)
  await change.lower(disk.backend.durableSection)
  t.is(disk.image.stats().nodesQueued, written)
  await checkedClean(t, disk)
})

test('a cluster that is referred to more often than it is counted is damage, and refused', async (t) => {
  const { disk, counted } = await diskWith(16)
  const [first = 0] = counted.counts.counted(0, 10_000)
  counted.counts.set(first, 5)
  await t.throwsAsync(new CountChange(disk.parts, counted, undefined).check(), {
    code: 'ERR_CORRUPT',
    message: /refcount 1/,
  })
})
