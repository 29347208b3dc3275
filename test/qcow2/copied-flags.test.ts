import test from 'ava'
import { clearCopied, clearL1Copied, setCopied } from '../../lib/qcow2/copied-flags.js'
import { l2TablesOf } from '../../lib/qcow2/tree-counts.js'
import { checkContents, checkedClean, type Disk, fill, newDisk } from '../support/qcow2-disk.js'

async function usedDisk(options: { queueBytes?: number } = {}): Promise<Disk> {
  const disk = await newDisk(
    { size: 2 ** 20, clusterSize: 512 },
    { l2CacheBytes: 0, refcountCacheBytes: 0, memory: options },
  )
  await disk.image.write(fill(200 * 512, 1), 0)
  await disk.image.writeZeroes(512, 512, { unmap: false })
  await disk.image.flush()
  return disk
}

function tablesOf({ parts }: Disk): number[] {
  const tree = { l1: parts.l1.bytes, entries: parts.l1.entries, host: parts.l1.host }
  return [...l2TablesOf(tree, parts.geometry)].map(({ host }) => host)
}

/** How many entries of each level are not COPIED although their counts are 1. */
async function lacking(disk: Disk): Promise<[l1: number, l2: number]> {
  await disk.image.flush()
  const { findings } = await checkContents(disk.memory.contents)
  const flags = findings.filter(({ kind }) => kind === 'copied-flag').map(({ text }) => text)
  return [
    flags.filter((text) => text.includes('L2 cluster')).length,
    flags.filter((text) => text.includes('data cluster')).length,
  ]
}

for (const how of ['ownAlone', 'unshare'] as const) {
  test(`flags are cleared, and set again where the count is 1 (${how})`, async (t) => {
    // Room for few slices at a time.
    const disk = await usedDisk({ queueBytes: 2048 })
    t.deepEqual(await lacking(disk), [0, 0])
    await clearL1Copied(disk.parts, 3)
    t.deepEqual(await lacking(disk), [3, 0])
    const seen: number[] = []
    await clearCopied(disk.parts, tablesOf(disk), (done) => seen.push(done))
    t.deepEqual(await lacking(disk), [3, 200])
    t.deepEqual(seen, [0, 512, 1024, 1536, 2048])
    const queued = disk.image.stats().nodesQueued
    await clearCopied(disk.parts, tablesOf(disk), () => undefined)
    t.is(disk.image.stats().nodesQueued, queued, 'what is clear is not written')
    await setCopied(disk.parts, how, { mayWait: true })
    t.deepEqual(await lacking(disk), [0, 0])
    await checkedClean(t, disk)
  })
}

test('what a snapshot shares does not become COPIED', async (t) => {
  const disk = await usedDisk()
  await disk.image.snapshots.creating('one', {})()
  const queued = disk.image.stats().nodesQueued
  await setCopied(disk.parts, 'ownAlone', { mayWait: true })
  t.is(disk.image.stats().nodesQueued, queued)
  await checkedClean(t, disk)
})
