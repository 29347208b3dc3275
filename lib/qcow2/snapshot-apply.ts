import { notSupported } from '../base/errors.js'
import { alignUp } from '../base/integers.js'
import { hostOffset } from '../base/units.js'
import { clearCopied } from './copied-flags.js'
import { CountChange } from './count-change.js'
import { findMetadata } from './find-metadata.js'
import { entryBytes, l1EntriesFor } from './geometry.js'
import { L1Table } from './l1-table.js'
import { MetadataMap } from './metadata-map.js'
import type { SnapshotReference } from '../queue/format-image.js'
import { diskSizeOf, findSnapshot } from './snapshot-entry.js'
import { type NewTable, readSnapshotL1, writeTable } from './snapshot-list.js'
import { snapshotNotFound, type SnapshotWork } from './snapshot-work.js'
import { countTree, type Tree } from './tree-counts.js'

/**
 * Make the disk what it was when a snapshot was made (E13). A fresh L1 table, in which nothing is COPIED, is written beside the active one; when
 * it and the counts that go up are durable, the header is switched to it, with the disk's size; then the counts of what only the old disk
 * referred to go down. The old state stays whole until the switch, and no crash shows a mix of both.
 *
 * The VM state stays with the snapshot: the L1 table maps the disk alone. Nothing becomes COPIED, as the snapshot shares all of it.
 * @throws ERR_SNAPSHOT_NOT_FOUND
 * @throws ERR_NOT_SUPPORTED  version 2, and another size of the disk
 */
export async function applySnapshot(work: SnapshotWork, reference: SnapshotReference): Promise<void> {
  const { parts, list, steps } = work
  const { backend, geometry, l1, frees } = parts
  const stored = await list.load()
  const target = findSnapshot(stored, reference, 'id')
  if (target === undefined) throw snapshotNotFound(backend.path, reference)
  const size = diskSizeOf(target, work.size)
  if (size !== work.size && parts.version === 2) {
    const what = `The disk had ${size} bytes in the snapshot, and a version 2 image with snapshots cannot be resized`
    throw notSupported(what, { path: backend.path })
  }
  const tree = await readSnapshotL1(backend, geometry, target, l1EntriesFor(geometry, size))
  const active: Tree = { l1: l1.bytes, entries: l1.entries, host: l1.host }
  const comes = await countTree(parts, tree, steps('references'))
  const change = new CountChange(parts, comes, await countTree(parts, active, steps('references')))
  await change.check()

  let fresh: NewTable | undefined
  let isSwitched = false
  try {
    const entries = Math.max(l1.entries, tree.entries)
    const bytes = uncopied(tree, entries)
    fresh = await writeTable(parts, bytes.subarray(0, entries * entryBytes))
    await change.raise(steps('refcounts'))
    // Flags in a snapshot's tables mean nothing, until they are the active ones: what wrote them may not have cleared them.
    await clearCopied(parts, comes.copiedTables, steps('flags'))
    const { host } = fresh
    const whole = padded(bytes, geometry.clusterSize)
    const planned = new L1Table(geometry, hostOffset(host), entries, whole)
    // Made beforehand: two structures in one place are found while the old disk is still the disk.
    const tables = findMetadata(geometry, list.inFile, planned, parts.table, parts.encryptionArea)
    MetadataMap.check(geometry, tables)
    const old = { host: l1.host, bytes: l1.entries * entryBytes }
    await parts.ordering.switchHeader(
      () => {
        l1.replace(hostOffset(host), entries, whole)
        return parts.header.change({ l1: { offset: host, entries }, ...(size === work.size ? {} : { size }) })
      },
      (removal) => {
        isSwitched = true
        work.resized(size)
        parts.l2Cache.clear()
        parts.l2.wild.applied(tree.host)
        parts.metadata.replace(tables)
        if (old.bytes > 0) frees.add(old.host, old.bytes, { removal, punch: true, wasTable: true })
        work.switched(removal, undefined, () => change.lower(removal))
      },
    )
  } catch (error) {
    if (!isSwitched && backend.poisoned === undefined) {
      if (fresh?.allocation !== undefined) await parts.allocator.cancel(fresh.allocation)
      await change.undo()
    }
    throw error
  }
}

/** The entries of a tree's L1 table without COPIED, and room for more. */
function uncopied(tree: Tree, entries: number): Uint8Array {
  const bytes = new Uint8Array(entries * entryBytes)
  bytes.set(tree.l1.subarray(0, tree.entries * entryBytes))
  for (let at = 0; at < bytes.length; at += entryBytes) bytes[at] = (bytes[at] as number) & 0x7f
  return bytes
}

function padded(bytes: Uint8Array, unit: number): Uint8Array {
  const whole = new Uint8Array(alignUp(bytes.length, unit))
  whole.set(bytes)
  return whole
}
