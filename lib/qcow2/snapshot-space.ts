import type { SnapshotSpace } from '../queue/format-image.js'
import { clusterOf, entryBytes } from './geometry.js'
import type { Parts } from './parts.js'
import { describeSnapshot } from './snapshot-entry.js'
import { readSnapshotL1, type SnapshotList } from './snapshot-list.js'
import { countTree, type Step } from './tree-counts.js'

/** Clusters whose counts are asked for at once. */
const batchClusters = 4096

/**
 * What each snapshot refers to, and what of it nothing else does. While no request runs, and with nothing left to be freed: counts are exactly the
 * references then. Memory as `countTree`, for one snapshot at a time.
 * @throws ERR_CORRUPT, ERR_IO, ERR_NOT_SUPPORTED; what `step` throws
 */
export async function snapshotSpace(parts: Parts, list: SnapshotList, step: Step): Promise<SnapshotSpace[]> {
  const { geometry, backend } = parts
  const spaces: SnapshotSpace[] = []
  for (const stored of await list.load()) {
    const tree = await readSnapshotL1(backend, geometry, stored)
    const { counts } = await countTree(parts, tree, step)
    // Its L1 table is always its own.
    const own = Math.ceil((tree.entries * entryBytes) / geometry.clusterSize)
    const clusters = { referenced: own, exclusive: own }
    let batch: number[] = []
    const weigh = async (): Promise<void> => {
      const [first] = batch
      const last = batch.at(-1)
      if (first === undefined || last === undefined) return
      const known = await parts.allocator.counts(first, last - first + 1)
      clusters.referenced += batch.length
      for (const cluster of batch) {
        if (known[cluster - first] === counts.get(cluster)) clusters.exclusive++
      }
      batch = []
    }
    for (const cluster of counts.counted(0, clusterOf(geometry, backend.length) + 1)) {
      const [first = cluster] = batch
      if (cluster - first >= batchClusters) await weigh()
      batch.push(cluster)
    }
    await weigh()
    const { id, name } = describeSnapshot(stored)
    spaces.push({
      id,
      name,
      referencedBytes: clusters.referenced * geometry.clusterSize,
      exclusiveBytes: clusters.exclusive * geometry.clusterSize,
    })
  }
  return spaces
}
