import { Qcow2Error } from '../base/errors.js'
import { alignUp, isAligned } from '../base/integers.js'
import type { BlockBackend } from '../queue/backend.js'
import type { Header } from './header.js'
import { escapeName, textUpToNul } from './header-extensions.js'
import { decodeSnapshot, type StoredSnapshot } from './snapshot-entry.js'
import { limits, snapshotEntry } from './spec.js'

/** Where a snapshot's L1 table is, and what to call it. */
export type SnapshotTables = {
  /** Where the snapshot's entry begins in the file. */
  readonly entryOffset: number
  /** Bytes; not exact from 2^53 on, where no table can be. */
  readonly l1Offset: number
  /** As stored. */
  readonly l1OffsetStored: bigint
  readonly l1Entries: number
  readonly extraBytes: number
  /** Escaped: for messages. */
  readonly id: string
  readonly name: string
}

export type SnapshotTable = {
  readonly snapshots: readonly SnapshotTables[]
  /** Of the table in the file, padding included. */
  readonly bytes: number
}

/** What says where the table is. */
export type SnapshotTablePlace = Pick<Header, 'snapshotsOffset' | 'snapshotCount' | 'clusterBits'>

/** Id and name have 16-bit lengths. */
const longestEntry = snapshotEntry.sizeBytes + limits.snapshotExtraBytes + 2 * 0xffff
/** Entries are read through a window of this many bytes. */
const windowBytes = 2 * longestEntry

/**
 * Walk the snapshot table for what refers to clusters. What is past the end of the file reads as zeros: see
 * `bytes` for whether the table is all there. qcow2 spec, "Snapshots".
 * @throws ERR_CORRUPT  beyond the limits
 */
export async function readSnapshotTable(
  backend: BlockBackend,
  place: SnapshotTablePlace,
): Promise<SnapshotTable> {
  const snapshots: SnapshotTables[] = []
  const bytes = await eachSnapshotEntry(backend, place, (window, from, at) => {
    const entry = snapshotEntry.decode(window, from, at)
    const idAt = from + snapshotEntry.sizeBytes + entry.extraBytes
    const nameAt = idAt + entry.idBytes
    snapshots.push({
      entryOffset: at,
      l1Offset: Number(entry.l1Offset),
      l1OffsetStored: entry.l1Offset,
      l1Entries: entry.l1Entries,
      extraBytes: entry.extraBytes,
      id: textOf(window.subarray(idAt, nameAt)),
      name: textOf(window.subarray(nameAt, nameAt + entry.nameBytes)),
    })
  })
  return { snapshots, bytes }
}

/**
 * All that the snapshot table says, whole entries included: as much memory as the table takes, at most 64 MiB.
 * @throws ERR_CORRUPT  beyond the limits
 */
export async function readSnapshots(
  backend: BlockBackend,
  place: SnapshotTablePlace,
): Promise<StoredSnapshot[]> {
  const snapshots: StoredSnapshot[] = []
  await eachSnapshotEntry(backend, place, (window, from, at) => {
    snapshots.push(decodeSnapshot(window, from, at))
  })
  return snapshots
}

/**
 * Go through the table, entry by entry; those before one that cannot be have been visited when this fails.
 * @param visit  `window` holds the entry from `from` on, whole; in the file it begins at `at`
 * @returns bytes of the table, padding included
 * @throws ERR_CORRUPT  beyond the limits; what `visit` throws
 */
export async function eachSnapshotEntry(
  backend: BlockBackend,
  place: SnapshotTablePlace,
  visit: (window: Uint8Array, from: number, at: number) => void,
): Promise<number> {
  const { snapshotsOffset, snapshotCount, clusterBits } = place
  const where = { path: backend.path, offset: snapshotsOffset, structure: 'snapshot table' }
  if (snapshotCount > limits.snapshots) {
    throw new Qcow2Error('ERR_CORRUPT', `Snapshot table too large: ${snapshotCount} entries`, where)
  }
  if (!isAligned(snapshotsOffset, 2 ** clusterBits)) {
    throw new Qcow2Error('ERR_CORRUPT', 'Snapshot table offset invalid', where)
  }
  let window = new Uint8Array(0)
  let windowAt = 0
  let at = snapshotsOffset
  for (let index = 0; index < snapshotCount; index++) {
    const fail = (what: string): Qcow2Error =>
      new Qcow2Error('ERR_CORRUPT', `${what} in snapshot table entry ${index} (at offset ${at})`, {
        path: backend.path,
        offset: at,
        structure: 'snapshot table entry',
      })
    if (at + longestEntry > windowAt + window.length) {
      window = new Uint8Array(windowBytes)
      windowAt = at
      await backend.readQueued(window, at)
    }
    const from = at - windowAt
    const entry = snapshotEntry.decode(window, from, at)
    if (entry.extraBytes > limits.snapshotExtraBytes) throw fail('Too much extra metadata')
    visit(window, from, at)
    at += alignUp(snapshotEntry.sizeBytes + entry.extraBytes + entry.idBytes + entry.nameBytes, 8)
    if (at - snapshotsOffset > limits.snapshotTableBytes) {
      throw fail(`Snapshot table larger than ${limits.snapshotTableBytes} bytes`)
    }
  }
  return at - snapshotsOffset
}

function textOf(bytes: Uint8Array): string {
  return escapeName(textUpToNul(bytes))
}
