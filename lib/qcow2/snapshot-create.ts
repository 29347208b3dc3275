import { notSupported } from '../base/errors.js'
import { hostOffset } from '../base/units.js'
import type { Snapshot } from '../queue/format-image.js'
import { clearCopied, clearL1Copied, setCopied } from './copied-flags.js'
import { CountChange } from './count-change.js'
import { entryBytes, l1EntriesFor } from './geometry.js'
import {
  decodeSnapshot,
  describeSnapshot,
  encodeSnapshot,
  hasRoomFor,
  nextSnapshotId,
  type StoredSnapshot,
} from './snapshot-entry.js'
import { type NewTable, writeTable } from './snapshot-list.js'
import type { SnapshotWork } from './snapshot-work.js'
import { countTree, type Tree } from './tree-counts.js'

/**
 * Freeze the disk as it is under a name (E11). Counts of all it refers to go up, COPIED is cleared in its tables, its L1 table is copied, and a
 * snapshot table with one entry more is written; when all that is durable, the header is switched to it. A crash before that leaves leaks,
 * and clusters that are copied without need.
 *
 * What lies behind the disk's end in the active L1 table is the VM state of a snapshot that was applied: it is not part of the disk, and stays.
 * @throws ERR_NOT_SUPPORTED  too many snapshots, or references: nothing was changed
 */
export async function createSnapshot(work: SnapshotWork<Snapshot>, name: string, date: Date): Promise<void> {
  const { parts, list, size, steps } = work
  const { geometry, l1, backend } = parts
  const tree: Tree = { l1: l1.bytes, entries: l1EntriesFor(geometry, size), host: l1.host }
  const stored = await list.load()
  const entry = { id: nextSnapshotId(stored), name, date, diskSize: size, l1Entries: tree.entries }
  refuseTooMany(work, stored, encodeSnapshot({ ...entry, l1Offset: 0 }).length)
  const counted = await countTree(parts, tree, steps('references'))
  const change = new CountChange(parts, counted, undefined)
  await change.check()

  const written: NewTable[] = []
  let isSwitched = false
  try {
    const frozen = await writeTable(parts, frozenL1(tree))
    written.push(frozen)
    const bytes = encodeSnapshot({ ...entry, l1Offset: frozen.host })
    const table = await writeTable(parts, Buffer.concat([...stored.map((one) => one.bytes), bytes]))
    written.push(table)
    await change.raise(steps('refcounts'))
    await clearCopied(parts, counted.copiedTables, steps('flags'))
    await clearL1Copied(parts, tree.entries)
    const created = decodeSnapshot(bytes, 0, table.host + table.bytes - bytes.length)
    await parts.ordering.switchHeader(
      () => parts.header.change({ snapshots: { offset: table.host, count: stored.length + 1 } }),
      (removal) => {
        isSwitched = true
        parts.l2.wild.frozen(frozen.host)
        if (frozen.bytes > 0) parts.metadata.add('inactive L1 table', frozen.host, frozen.bytes)
        parts.metadata.add('snapshot table', table.host, table.bytes)
        const old = list.replace(table, [...stored, created])
        if (old.bytes > 0)
          parts.frees.add(hostOffset(old.host), old.bytes, { removal, punch: false, wasTable: true })
        work.switched(removal, describeSnapshot(created), () => Promise.resolve())
      },
    )
  } catch (error) {
    if (!isSwitched && backend.poisoned === undefined) await undo(work, change, written)
    throw error
  }
}

/** The snapshot has not come about. Does what it can: what it cannot is a leak, or copied without need. */
async function undo(
  { parts }: SnapshotWork<Snapshot>,
  change: CountChange,
  written: readonly NewTable[],
): Promise<void> {
  for (const { allocation } of written) if (allocation !== undefined) await parts.allocator.cancel(allocation)
  await change.undo()
  await setCopied(parts, 'unshare', { mayWait: false }).catch(() => undefined)
}

/** The entries of the L1 table as the snapshot has them: not COPIED. */
function frozenL1(tree: Tree): Uint8Array {
  const bytes = tree.l1.slice(0, tree.entries * entryBytes)
  // COPIED is the highest bit of each big-endian entry.
  for (let at = 0; at < bytes.length; at += entryBytes) bytes[at] = (bytes[at] as number) & 0x7f
  return bytes
}

function refuseTooMany(
  { parts }: SnapshotWork<Snapshot>,
  stored: readonly StoredSnapshot[],
  more: number,
): void {
  let bytes = more
  for (const snapshot of stored) bytes += snapshot.bytes.length
  if (hasRoomFor(stored.length + 1, bytes)) return
  throw notSupported('The snapshot table has reached its largest size', {
    path: parts.backend.path,
    structure: 'snapshot table',
  })
}
