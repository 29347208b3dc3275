import { Qcow2Error } from '../base/errors.js'
import { alignUp } from '../base/integers.js'
import type { Header } from '../qcow2/header.js'
import { findExtension } from '../qcow2/header-extensions.js'
import { describeSnapshot } from '../qcow2/snapshot-entry.js'
import { readSnapshots } from '../qcow2/snapshot-table.js'
import { autoclear, bitmapEntry, bitmapsExtension, extensionTypes, limits } from '../qcow2/spec.js'
import type { BlockBackend } from '../queue/backend.js'
import type { Snapshot } from '../queue/format-image.js'

export async function listSnapshots(backend: BlockBackend, header: Header): Promise<Snapshot[]> {
  return (await readSnapshots(backend, header)).map(describeSnapshot)
}

/** An entry of the bitmap directory. qcow2 spec, "Bitmaps". */
export type BitmapInfo = {
  readonly name: string
  /** Guest bytes for one bit. */
  readonly granularity: number
  /** 'in-use': was not saved by its last writer; 'auto': is kept up to date while the image is written. */
  readonly flags: readonly ('in-use' | 'auto')[]
}

/** The bitmaps that the image vouches for; none if the autoclear bit says that they are stale. */
export async function listBitmaps(backend: BlockBackend, header: Header): Promise<BitmapInfo[]> {
  const extension = findExtension(header.extensions, extensionTypes.bitmaps)
  if (extension === undefined || (header.autoclearFeatures & autoclear.bitmaps) === 0n) return []
  const { count, directoryBytes, directoryOffset } = bitmapsExtension.decode(
    extension.data,
    0,
    extension.offset + 8,
  )
  if (directoryBytes > limits.bitmapDirectoryBytes) throw broken(backend, directoryOffset, 'it is too large')
  if (directoryOffset + directoryBytes > backend.length) {
    throw broken(backend, directoryOffset, 'the file is truncated, it ends within the directory')
  }
  const directory = Buffer.alloc(directoryBytes)
  await backend.read(directory, directoryOffset)
  const bitmaps: BitmapInfo[] = []
  for (let at = 0; bitmaps.length < count;) {
    if (at + bitmapEntry.sizeBytes > directory.length)
      throw broken(backend, directoryOffset + at, 'it ends within an entry')
    const entry = bitmapEntry.decode(directory, at, directoryOffset + at)
    const nameAt = at + bitmapEntry.sizeBytes + entry.extraBytes
    at = alignUp(nameAt + entry.nameBytes, 8)
    if (at > directory.length) throw broken(backend, directoryOffset + at, 'it ends within an entry')
    const flags: ('in-use' | 'auto')[] = []
    if ((entry.flags & 1) !== 0) flags.push('in-use')
    if ((entry.flags & 2) !== 0) flags.push('auto')
    bitmaps.push({
      name: directory.toString('utf8', nameAt, nameAt + entry.nameBytes),
      granularity: 2 ** entry.granularityBits,
      flags,
    })
  }
  return bitmaps
}

function broken(backend: BlockBackend, offset: number, what: string): Qcow2Error {
  return new Qcow2Error('ERR_CORRUPT', `Bitmap directory at offset ${offset}: ${what}`, {
    path: backend.path,
    offset,
    structure: 'bitmap directory',
  })
}
