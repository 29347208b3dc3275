import { Qcow2Error } from '../base/errors.js'
import { alignUp } from '../base/integers.js'
import type { BlockBackend } from '../queue/backend.js'
import type { Header } from './header.js'
import { limits, snapshotEntry } from './spec.js'

/** Where a snapshot's L1 table is. */
export type SnapshotTables = {
  /** Where the snapshot's entry begins in the file. */
  readonly entryOffset: number
  readonly l1Offset: number
  readonly l1Entries: number
}

export type SnapshotTable = {
  readonly snapshots: readonly SnapshotTables[]
  /** Of the table in the file, padding included. */
  readonly bytes: number
}

/** Entries are read through a window of this many bytes: the longest entry's three variable parts exceed no more. */
const windowBytes = 256 * 1024

/**
 * Walk the snapshot table for what refers to clusters. qcow2 spec, "Snapshots".
 * @throws ERR_CORRUPT  beyond the limits, or the file ends within
 */
export async function readSnapshotTable(backend: BlockBackend, header: Header): Promise<SnapshotTable> {
  const snapshots: SnapshotTables[] = []
  let window = new Uint8Array(0)
  let windowAt = 0
  let at = header.snapshotsOffset
  for (let index = 0; index < header.snapshotCount; index++) {
    const fail = (what: string): Qcow2Error =>
      new Qcow2Error('ERR_CORRUPT', `Snapshot table: ${what} (entry ${index} at offset ${at})`, {
        path: backend.path,
        offset: at,
        structure: 'snapshot table entry',
      })
    if (at + snapshotEntry.sizeBytes > backend.length)
      throw fail('the file is truncated, it ends within the table')
    if (at + snapshotEntry.sizeBytes > windowAt + window.length) {
      window = new Uint8Array(Math.min(windowBytes, backend.length - at))
      windowAt = at
      await backend.read(window, at)
    }
    const entry = snapshotEntry.decode(window, at - windowAt, at)
    if (entry.extraBytes > limits.snapshotExtraBytes) {
      throw fail(
        `too much extra metadata, ${entry.extraBytes} bytes where ${limits.snapshotExtraBytes} may be`,
      )
    }
    snapshots.push({ entryOffset: at, l1Offset: entry.l1Offset, l1Entries: entry.l1Entries })
    at += alignUp(snapshotEntry.sizeBytes + entry.extraBytes + entry.idBytes + entry.nameBytes, 8)
    if (at - header.snapshotsOffset > limits.snapshotTableBytes) {
      throw fail(`larger than ${limits.snapshotTableBytes} bytes`)
    }
    if (at > alignUp(backend.length, 8)) throw fail('the file is truncated, it ends within the table')
  }
  return { snapshots, bytes: at - header.snapshotsOffset }
}
