import type { SnapshotReference } from '../queue/format-image.js'
import type { BlockBackend } from '../queue/backend.js'
import { entryBytes, l1EntriesFor, geometryOf } from './geometry.js'
import { checkEntriesWithinFile } from './open-checks.js'
import type { OpenMetadata } from './open-metadata.js'
import { diskSizeOf, findSnapshot } from './snapshot-entry.js'
import { readSnapshotL1 } from './snapshot-list.js'
import { readSnapshots } from './snapshot-table.js'
import { snapshotNotFound } from './snapshot-work.js'

/**
 * An image's metadata as if a snapshot were its disk: for reading it. A plain word is an id first, then a name, as for QEMU.
 * @param options  `salvaging`: as of openMetadata
 * @throws ERR_SNAPSHOT_NOT_FOUND
 * @throws ERR_CORRUPT  its L1 table cannot be where it is said to be
 */
export async function atSnapshot(
  backend: BlockBackend,
  found: OpenMetadata,
  reference: SnapshotReference,
  { salvaging = false }: { readonly salvaging?: boolean } = {},
): Promise<OpenMetadata> {
  const { header } = found
  const snapshot = findSnapshot(await readSnapshots(backend, header), reference, 'id')
  if (snapshot === undefined) throw snapshotNotFound(backend.path, reference)
  const geometry = geometryOf(header)
  const size = diskSizeOf(snapshot, header.size)
  const tree = await readSnapshotL1(backend, geometry, snapshot, l1EntriesFor(geometry, size))
  if (!salvaging)
    checkEntriesWithinFile('L1 table', tree.l1, tree.entries, tree.host, backend.length, backend.path)
  const place = { l1Offset: tree.host, l1Entries: tree.l1.length / entryBytes }
  return { ...found, header: { ...header, size, ...place }, l1: tree.l1 }
}
