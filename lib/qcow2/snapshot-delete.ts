import { hostOffset } from '../base/units.js'
import { setCopied } from './copied-flags.js'
import { CountChange } from './count-change.js'
import { entryBytes } from './geometry.js'
import type { SnapshotReference } from '../queue/format-image.js'
import { findSnapshot } from './snapshot-entry.js'
import { readSnapshotL1, writeTable } from './snapshot-list.js'
import { snapshotNotFound, type SnapshotWork } from './snapshot-work.js'
import { countTree } from './tree-counts.js'

/**
 * Delete a snapshot (E12): the header is switched to a table without it; when that is durable, the counts of all it referred to go down, and
 * COPIED is set in the active tables where one reference is left. A crash in between leaks, or leaves clusters that are copied without need.
 * @throws ERR_SNAPSHOT_NOT_FOUND
 */
export async function deleteSnapshot(work: SnapshotWork, reference: SnapshotReference): Promise<void> {
  const { parts, list, steps } = work
  const { backend, geometry, frees } = parts
  const stored = await list.load()
  const target = findSnapshot(stored, reference, 'name')
  if (target === undefined) throw snapshotNotFound(backend.path, reference)
  const tree = await readSnapshotL1(backend, geometry, target)
  const change = new CountChange(parts, undefined, await countTree(parts, tree, steps('references')))
  await change.check()

  const left = stored.filter((snapshot) => snapshot !== target)
  const table = await writeTable(parts, Buffer.concat(left.map(({ bytes }) => bytes)))
  let isSwitched = false
  try {
    await parts.ordering.switchHeader(
      () => parts.header.change({ snapshots: { offset: table.host, count: left.length } }),
      (removal) => {
        isSwitched = true
        if (table.bytes > 0) parts.metadata.add('snapshot table', table.host, table.bytes)
        const old = list.replace(table, left)
        const wasTable = { removal, punch: true, wasTable: true }
        frees.add(hostOffset(old.host), old.bytes, wasTable)
        if (tree.entries > 0) frees.add(hostOffset(tree.host), tree.entries * entryBytes, wasTable)
        work.switched(removal, undefined, async () => {
          await change.lower(removal)
          await setCopied(parts, 'ownAlone', { mayWait: true })
        })
      },
    )
  } catch (error) {
    if (!isSwitched && table.allocation !== undefined) await parts.allocator.cancel(table.allocation)
    throw error
  }
}
