import test from 'ava'
import { admissionBytes } from '../../lib/qcow2/parts.js'
import { checkedClean, fill, newDisk } from '../support/qcow2-disk.js'

test('a request takes room for a handful of nodes, whatever the cluster size', async (t) => {
  for (const [clusterSize, room] of [
    [512, 8 * 512],
    [4096, 8 * 4096],
    [65536, 8 * 4096],
  ] as const) {
    const disk = await newDisk({ size: 65536, clusterSize })
    t.is(admissionBytes(disk.parts), room)
    await checkedClean(t, disk)
  }
})

test('the most expensive write of one slice queues no more than the room it has taken', async (t) => {
  // A new L2 table, a new refcount block, counts on both sides of it, and the mapping.
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 512, refcountBits: 64 })
  await disk.image.write(fill(56 * 512, 1), 0)
  await disk.image.flush()
  const before = disk.image.stats()
  await disk.image.write(fill(32768, 2), 32768)
  const after = disk.image.stats()
  const nodes = after.nodesQueued - before.nodesQueued - (after.nodesCoalesced - before.nodesCoalesced)
  t.true(nodes * 512 <= admissionBytes(disk.parts), `${nodes} nodes`)
  await checkedClean(t, disk)
})
