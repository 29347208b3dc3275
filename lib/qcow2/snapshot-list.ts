import { Qcow2Error } from '../base/errors.js'
import { alignUp, isAligned } from '../base/integers.js'
import type { BlockBackend } from '../queue/backend.js'
import type { SnapshotsInFile } from './find-metadata.js'
import { entryBytes, type Geometry } from './geometry.js'
import type { Header } from './header.js'
import { escapeName } from './header-extensions.js'
import type { Parts } from './parts.js'
import type { Allocation } from './refcount-parts.js'
import type { StoredSnapshot } from './snapshot-entry.js'
import { readSnapshots, type SnapshotTable } from './snapshot-table.js'
import { limits } from './spec.js'
import type { Tree } from './tree-counts.js'

/** What is kept of a snapshot in memory. */
type ListedSnapshot = { readonly l1Offset: number; readonly l1Entries: number; readonly extraBytes: number }

/** An entry of version 3 says how large the VM state and the disk are. */
const leastExtraOfVersion3 = 16

/** The snapshot table of an open image: where it stands now, and what it says. */
export class SnapshotList {
  readonly #backend: BlockBackend
  readonly #clusterBits: number
  #offset: number
  #bytes: number
  #snapshots: readonly ListedSnapshot[]

  constructor(backend: BlockBackend, header: Header, table: SnapshotTable) {
    this.#backend = backend
    this.#clusterBits = header.clusterBits
    this.#offset = header.snapshotsOffset
    this.#bytes = table.bytes
    this.#snapshots = table.snapshots
  }

  get count(): number {
    return this.#snapshots.length
  }

  /** Whether every snapshot says how large its disk was: only then may the disk's size change. */
  get tellsSizes(): boolean {
    return this.#snapshots.every(({ extraBytes }) => extraBytes >= leastExtraOfVersion3)
  }

  get inFile(): SnapshotsInFile {
    return { offset: this.#offset, bytes: this.#bytes, tables: this.#snapshots }
  }

  /** All that is stored of them, from the file. @throws ERR_CORRUPT, ERR_IO */
  load(): Promise<StoredSnapshot[]> {
    const place = {
      snapshotsOffset: this.#offset,
      snapshotCount: this.count,
      clusterBits: this.#clusterBits,
    }
    return readSnapshots(this.#backend, place)
  }

  /** The header names another table. @returns where the old one stood */
  replace(table: NewTable, snapshots: readonly ListedSnapshot[]): { host: number; bytes: number } {
    const old = { host: this.#offset, bytes: this.#bytes }
    this.#offset = table.host
    this.#bytes = table.bytes
    this.#snapshots = snapshots.map(({ l1Offset, l1Entries, extraBytes }) => ({
      l1Offset,
      l1Entries,
      extraBytes,
    }))
    return old
  }
}

/** A table that was written to clusters of its own, and that nothing refers to yet. */
export type NewTable = {
  /** 0: there are no entries, and no table. */
  readonly host: number
  /** Without what its last cluster has beyond. */
  readonly bytes: number
  readonly allocation: Allocation | undefined
}

/** Write a table (L1 or of snapshots) in one piece, as data. While no request runs. @throws ERR_NO_SPACE, ERR_IO */
export async function writeTable(parts: Parts, bytes: Uint8Array): Promise<NewTable> {
  const { geometry, allocator, backend } = parts
  if (bytes.length === 0) return { host: 0, bytes: 0, allocation: undefined }
  const whole = new Uint8Array(alignUp(bytes.length, geometry.clusterSize))
  whole.set(bytes)
  const allocation = await allocator.allocateAdjacent(whole.length / geometry.clusterSize)
  try {
    await backend.write(whole, allocation.host)
  } catch (error) {
    await allocator.cancel(allocation)
    throw error
  }
  return { host: allocation.host, bytes: bytes.length, allocation }
}

/**
 * Read a snapshot's L1 table: at most 32 MiB.
 * @param entries  that are wanted, from the first on
 * @throws ERR_CORRUPT  it cannot be where its entry says, or is too short
 */
export async function readSnapshotL1(
  backend: BlockBackend,
  geometry: Geometry,
  snapshot: StoredSnapshot,
  entries = snapshot.l1Entries,
): Promise<Tree> {
  const { l1Offset, l1Entries, entryOffset } = snapshot
  const end = l1Offset + l1Entries * entryBytes
  const isThere =
    l1Entries <= limits.l1Entries &&
    (l1Entries === 0 || (isAligned(l1Offset, geometry.clusterSize) && end <= backend.length))
  if (!isThere || entries > l1Entries) {
    throw new Qcow2Error(
      'ERR_CORRUPT',
      `The L1 table of snapshot '${escapeName(snapshot.name)}' cannot be ${l1Entries} entries at offset ${l1Offset}`,
      { path: backend.path, offset: entryOffset, structure: 'snapshot table entry' },
    )
  }
  const l1 = new Uint8Array(alignUp(entries * entryBytes, geometry.sliceSize))
  if (entries > 0) await backend.readQueued(l1.subarray(0, entries * entryBytes), l1Offset)
  return { l1, entries, host: l1Offset }
}
