import { alignUp } from '../base/integers.js'
import type { BlockBackend } from '../queue/backend.js'
import { noBitmaps, readBitmaps, type StoredBitmaps } from './bitmap-table.js'
import { entryBytes, geometryOf } from './geometry.js'
import { type Header, headerEnd, parseClusterBits, parseHeader } from './header.js'
import {
  checkEntriesWithinFile,
  checkSnapshotL1s,
  checkSnapshotTableWithinFile,
  checkTablePlaces,
  checkTablesWithinFile,
  headerRegions,
} from './open-checks.js'
import { readSnapshotTable, type SnapshotTable } from './snapshot-table.js'

/** The part of an image's metadata that stays in memory while it is open. */
export type OpenMetadata = {
  readonly header: Header
  /** The whole first cluster, to the byte; of a read-only image as much of it as the header takes. */
  readonly firstCluster: Uint8Array
  /** Big-endian entries as in the file, rounded up to whole slices. */
  readonly l1: Uint8Array
  /** Big-endian entries as in the file, whole clusters. Empty of a read-only image, which needs no counts. */
  readonly refcountTable: Uint8Array
  /** Empty while repairing or salvaging, which read them themselves. */
  readonly snapshotTable: SnapshotTable
  /** Of an image that is to be written; otherwise they are read when they are asked for. */
  readonly bitmaps: StoredBitmaps
}

const noSnapshots: SnapshotTable = { snapshots: [], bytes: 0 }

/** Enough for nearly every header, and a unit of what bypasses the page cache. */
const startBytes = 4096

/** Enough for the fields that say how large a cluster is. */
const probeBytes = 512

/** An image's header, and the bytes that it was read from. */
export type FoundHeader = {
  readonly header: Header
  /** The beginning of the first cluster, to the byte: all that the header has, if not all of the cluster. */
  readonly start: Uint8Array
}

/**
 * Read and check the header. Reads 4 KiB, and only where the header goes on behind them the first cluster: 2 MiB at most.
 * @throws as parseHeader
 */
export async function readHeader(backend: BlockBackend): Promise<FoundHeader> {
  const { path, length } = backend
  const start = new Uint8Array(Math.min(startBytes, length))
  await backend.read(start, 0)
  const clusterSize = 2 ** parseClusterBits(start, path)
  const available = Math.min(clusterSize, length)
  if (start.length < available && headerEnd(start) > start.length) {
    const { header, firstCluster } = await readFirstCluster(backend)
    return { header, start: firstCluster }
  }
  const bytes = start.subarray(0, available)
  return { header: parseHeader(bytes, path, available), start: bytes }
}

/**
 * Read and check the first cluster of an image, all of it: to change it. Reads at most one cluster: 2 MiB.
 * @throws as parseHeader
 */
export async function readFirstCluster(
  backend: BlockBackend,
): Promise<{ readonly header: Header; readonly firstCluster: Uint8Array }> {
  const probe = new Uint8Array(Math.min(probeBytes, backend.length))
  await backend.read(probe, 0)
  const clusterSize = 2 ** parseClusterBits(probe, backend.path)
  const firstCluster = new Uint8Array(clusterSize)
  await backend.read(firstCluster, 0)
  return { header: parseHeader(firstCluster.subarray(0, backend.length), backend.path), firstCluster }
}

/**
 * Read and check what an open image needs: header, L1, refcount table. All limits are checked before memory is taken.
 *
 * @param options  `readOnly`: damage that only writing would make worse is let pass;
 *                 `repairing`: so is damage that check and repair deal with;
 *                 `salvaging`: of a file that was cut short the L1 table is enough, if nothing is written
 * @throws as parseHeader; ERR_CORRUPT: marked so and to be written, tables that cannot be where they are said to be
 * @see qcow2.md 3.1
 */
export async function openMetadata(
  backend: BlockBackend,
  options: { readonly readOnly: boolean; readonly repairing: boolean; readonly salvaging?: boolean },
): Promise<OpenMetadata> {
  const { path, length } = backend
  const salvaging = options.salvaging === true && options.readOnly
  const { header, firstCluster } = options.readOnly
    ? await readHeader(backend).then(({ header, start }) => ({ header, firstCluster: start }))
    : await readFirstCluster(backend)
  checkTablePlaces(header, { ...options, path })
  if (!options.repairing) checkTablesWithinFile(header, length, path, { salvaging })

  const { sliceSize, clusterSize } = geometryOf(header)
  const l1 = new Uint8Array(alignUp(header.l1Entries * entryBytes, sliceSize))
  const refcountTable = new Uint8Array(options.readOnly ? 0 : header.refcountTableClusters * clusterSize)
  await Promise.all([
    l1.length === 0 ? undefined : backend.read(l1, header.l1Offset),
    refcountTable.length === 0 ? undefined : backend.read(refcountTable, header.refcountTableOffset),
  ])
  if (options.repairing || salvaging)
    return { header, firstCluster, l1, refcountTable, snapshotTable: noSnapshots, bitmaps: noBitmaps }

  checkEntriesWithinFile('L1 table', l1, header.l1Entries, header.l1Offset, length, path)
  const snapshotTable = await readSnapshotTable(backend, header)
  checkSnapshotTableWithinFile(header, snapshotTable.bytes, length, path)
  if (!options.readOnly) {
    checkSnapshotL1s(header, snapshotTable, headerRegions(header, snapshotTable.bytes), length, path)
    const entries = refcountTable.length / entryBytes
    const at = header.refcountTableOffset
    checkEntriesWithinFile('refcount table', refcountTable, entries, at, length, path)
  }
  const bitmaps = options.readOnly ? noBitmaps : await readBitmaps(backend, header)
  return { header, firstCluster, l1, refcountTable, snapshotTable, bitmaps }
}
