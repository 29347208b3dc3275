import { Qcow2Error, notSupported } from '../base/errors.js'
import { alignUp, divideRoundingUp, isAligned } from '../base/integers.js'
import type { BlockBackend } from '../queue/backend.js'
import { type DirectoryEntry, nameOf, readDirectory } from './bitmap-directory.js'
import { entryBytes, type Geometry, geometryOf } from './geometry.js'
import type { Header } from './header.js'
import { escapeName } from './header-extensions.js'
import { type MetadataKind, metadataEntry } from './metadata-map.js'
import { bitmapFlags, limits } from './spec.js'

/** What a table says of a page, a cluster's worth of bits: one of these, or the host offset of the cluster that holds it. */
export const zeroPage = 0
export const onePage = 1

/** A bitmap as it stands in the file: its entry, and its table as page by page. */
export type StoredBitmap = DirectoryEntry & { readonly pages: Float64Array }

/** The directory as it stands in the file; none: 0 bytes. */
export type StoredDirectory = { readonly host: number; readonly bytes: Uint8Array }

export type StoredBitmaps = { readonly bitmaps: readonly StoredBitmap[]; readonly directory: StoredDirectory }

export const noBitmaps: StoredBitmaps = {
  bitmaps: [],
  directory: { host: 0, bytes: new Uint8Array(0) },
}

/** Bits that a bitmap of a disk has. */
export function bitsFor(size: number, granularityBits: number): number {
  return divideRoundingUp(size, 2 ** granularityBits)
}

/** Entries of the table of a bitmap. */
export function tableEntriesFor(clusterSize: number, size: number, granularityBits: number): number {
  return divideRoundingUp(bitsFor(size, granularityBits), clusterSize * 8)
}

/**
 * Read directory and tables, not the bits. All limits are checked before memory is taken: the tables together have at most 32 MiB.
 * @throws ERR_CORRUPT, ERR_NOT_SUPPORTED
 */
export async function readBitmaps(backend: BlockBackend, header: Header): Promise<StoredBitmaps> {
  const { entries, host, bytes } = await readDirectory(backend, header)
  if (entries.length === 0) return noBitmaps
  let total = 0
  for (const entry of entries) {
    checkTablePlace(backend, header, entry)
    total += entry.tableEntries * entryBytes
  }
  if (total > limits.bitmapTablesBytes) {
    const what = `The bitmaps' tables have ${total} bytes, at most ${limits.bitmapTablesBytes} are supported`
    throw notSupported(what, { path: backend.path, structure: 'bitmap table' })
  }
  const geometry = geometryOf(header)
  const bitmaps: StoredBitmap[] = []
  for (const entry of entries) bitmaps.push({ ...entry, pages: await readTable(backend, geometry, entry) })
  return { bitmaps, directory: { host, bytes } }
}

function checkTablePlace(backend: BlockBackend, header: Header, entry: DirectoryEntry): void {
  const { tableOffset, tableEntries, granularityBits } = entry
  if (tableOffset + tableEntries * entryBytes > backend.length) {
    throw invalidTable(backend, entry, tableOffset, 'its table is not within the file')
  }
  // One in use is never read, and may have got its table before the disk got another size.
  if ((entry.flags & bitmapFlags.inUse) !== 0) return
  const needed = tableEntriesFor(2 ** header.clusterBits, header.size, granularityBits)
  if (tableEntries === needed) return
  const what = `its table has ${tableEntries} entries where a disk of ${header.size} bytes needs ${needed}`
  throw invalidTable(backend, entry, tableOffset, what)
}

async function readTable(
  backend: BlockBackend,
  { clusterSize }: Geometry,
  entry: DirectoryEntry,
): Promise<Float64Array> {
  const bytes = new Uint8Array(entry.tableEntries * entryBytes)
  await backend.read(bytes, entry.tableOffset)
  const view = new DataView(bytes.buffer)
  const pages = new Float64Array(entry.tableEntries)
  for (let index = 0; index < pages.length; index++) {
    const high = view.getUint32(index * entryBytes)
    const low = view.getUint32(index * entryBytes + 4)
    const page = high * 2 ** 32 + low
    const isPage = page === zeroPage || page === onePage || isAligned(page, clusterSize)
    if (!isPage || high >= 2 ** 21 || page >= backend.length) {
      const at = entry.tableOffset + index * entryBytes
      throw invalidTable(backend, entry, at, `entry ${index} of its table is not valid`)
    }
    pages[index] = page
  }
  return pages
}

function invalidTable(
  backend: BlockBackend,
  entry: DirectoryEntry,
  offset: number,
  what: string,
): Qcow2Error {
  return new Qcow2Error(
    'ERR_CORRUPT',
    `Could not read bitmap '${escapeName(nameOf(entry))}' from image: ${what}`,
    { path: backend.path, offset, structure: 'bitmap table' },
  )
}

/** A table as it is stored. */
export function encodeTable(pages: Float64Array): Uint8Array {
  const bytes = new Uint8Array(pages.length * entryBytes)
  const view = new DataView(bytes.buffer)
  for (const [index, page] of pages.entries()) {
    view.setUint32(index * entryBytes, Math.floor(page / 2 ** 32))
    view.setUint32(index * entryBytes + 4, page % 2 ** 32)
  }
  return bytes
}

/** The clusters that hold bitmaps, in the form that MetadataMap takes. */
export function findBitmapClusters(
  { clusterSize }: Geometry,
  { bitmaps, directory }: StoredBitmaps,
): Float64Array {
  const clusters: number[] = []
  const add = (kind: MetadataKind, host: number, bytes: number): void => {
    const end = alignUp(host + bytes, clusterSize) / clusterSize
    for (let cluster = host / clusterSize; cluster < end; cluster++)
      clusters.push(metadataEntry(kind, cluster))
  }
  add('bitmap directory', directory.host, directory.bytes.length)
  for (const { tableOffset, pages } of bitmaps) {
    add('bitmap table', tableOffset, pages.length * entryBytes)
    for (const page of pages) if (page > onePage) add('bitmap data', page, clusterSize)
  }
  return Float64Array.from(clusters)
}
