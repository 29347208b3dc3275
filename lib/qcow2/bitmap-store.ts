import { alignDown } from '../base/integers.js'
import { hostOffset, type Section } from '../base/units.js'
import { clearFrom } from './bitmap-bits.js'
import { type DirectoryEntry, encodeDirectory } from './bitmap-directory.js'
import { type Bitmap, isForeign, isRunning, newBits } from './bitmap-state.js'
import {
  bitsFor,
  encodeTable,
  findBitmapClusters,
  onePage,
  type StoredBitmap,
  type StoredDirectory,
} from './bitmap-table.js'
import { entryBytes } from './geometry.js'
import { planBitmaps } from './header-bitmaps.js'
import type { Parts } from './parts.js'
import type { Allocation } from './refcount-parts.js'
import { type NewTable, writeTable } from './snapshot-list.js'
import { bitmapFlags } from './spec.js'

/** The bitmaps of an image and their directory: as they are in memory, what is stored of them included. */
export type BitmapSet = { readonly list: readonly Bitmap[]; readonly directory: StoredDirectory }

/** Pages are written, and their clusters allocated, so many bytes at a time. */
const batchBytes = 1024 * 1024

/**
 * Put other bitmaps in the place of those that the file holds (E20). Bits, tables and a directory are written to clusters of their own; when they and
 * their counts are durable, the header is switched to the directory; then what it replaced is freed. A crash shows the old bitmaps or the new
 * ones. Pages that have not changed stay where they are. The caller has the image for itself.
 *
 * @param options.inUse  guests are changing the disk: those that follow keep their changes in memory, and what is stored of them says that
 *                       it is out of date. Otherwise all is stored
 * @param switched       called in the step that switches the header: from here on the new ones count, whatever fails then
 */
export async function storeBitmaps(
  parts: Parts,
  old: BitmapSet,
  list: readonly Bitmap[],
  options: { readonly inUse: boolean; readonly size: number },
  switched: (stored: BitmapSet) => void,
): Promise<void> {
  const { ordering, header, backend } = parts
  const allocations: Allocation[] = []
  let isSwitched = false
  try {
    const stored: Bitmap[] = []
    const entries: (DirectoryEntry & StoredBitmap)[] = []
    for (const bitmap of list) {
      const isStale = options.inUse && isRunning(bitmap)
      const written = isStale
        ? await withTable(parts, bitmap, allocations)
        : await storeOne(parts, bitmap, options.size, allocations)
      stored.push(written)
      entries.push(entryOf(written, isStale))
    }
    const bytes = encodeDirectory(entries)
    const { host } = await writeOwned(parts, bytes, allocations)
    const directory = { host, bytes }
    const pointer =
      entries.length === 0
        ? undefined
        : {
            count: entries.length,
            directoryBytes: directory.bytes.length,
            directoryOffset: directory.host,
          }
    const steps = planBitmaps(header.copy(), pointer, backend.path)
    for (const [index, cluster] of steps.entries()) {
      const isLast = index === steps.length - 1
      await ordering.rewriteHeader(
        () => header.rewrite(cluster),
        (removal) => {
          if (!isLast) return
          isSwitched = true
          takeOver(parts, old, { bitmaps: entries, directory }, removal)
          switched({ list: stored, directory })
        },
      )
    }
  } catch (error) {
    if (!isSwitched && backend.poisoned === undefined) {
      for (const allocation of allocations) await parts.allocator.cancel(allocation)
    }
    throw error
  }
}

function entryOf(bitmap: Bitmap, isStale: boolean): DirectoryEntry & StoredBitmap {
  const { nameBytes, extra, granularityBits, stored } = bitmap
  const inUse = isStale || bitmap.isInconsistent
  const host = stored?.host ?? 0
  const pages = stored?.pages ?? new Float64Array(0)
  return {
    nameBytes,
    extra,
    granularityBits,
    tableOffset: host,
    tableEntries: pages.length,
    pages,
    flags:
      (inUse ? bitmapFlags.inUse : 0) |
      (bitmap.enabled ? bitmapFlags.auto : 0) |
      (bitmap.isExtraCompatible ? bitmapFlags.extraCompatible : 0),
  }
}

/** The clusters of the new state are metadata from now on; those that only the old one had are freed behind its removal. */
function takeOver(
  { metadata, frees, geometry }: Parts,
  old: BitmapSet,
  now: { readonly bitmaps: readonly StoredBitmap[]; readonly directory: StoredDirectory },
  removal: Section,
): void {
  const kept = new Set<number>()
  metadata.addFound(findBitmapClusters(geometry, now))
  for (const { tableOffset, pages } of now.bitmaps) {
    kept.add(tableOffset)
    for (const page of pages) if (page > onePage) kept.add(page)
  }
  const free = (host: number, length: number): void => {
    if (length > 0 && !kept.has(host))
      frees.add(hostOffset(host), length, { removal, punch: false, wasTable: true })
  }
  free(old.directory.host, old.directory.bytes.length)
  for (const { stored } of old.list) {
    if (stored === undefined) continue
    free(stored.host, stored.pages.length * entryBytes)
    for (const page of stored.pages) if (page > onePage) free(page, geometry.clusterSize)
  }
}

/** A running bitmap has a table in the file, whatever it says: an entry must name one. */
async function withTable(parts: Parts, bitmap: Bitmap, allocations: Allocation[]): Promise<Bitmap> {
  if (bitmap.stored !== undefined) return bitmap
  const pages = new Float64Array(bitmap.pages.length)
  const { host } = await writeOwned(parts, encodeTable(pages), allocations)
  return { ...bitmap, stored: { host, pages } }
}

/** Write what has changed of a bitmap. @returns it as it is when that counts */
async function storeOne(
  parts: Parts,
  bitmap: Bitmap,
  size: number,
  allocations: Allocation[],
): Promise<Bitmap> {
  if (bitmap.isInconsistent || isForeign(bitmap)) return bitmap
  const pages = await writePages(parts, bitmap, size, allocations)
  const { stored } = bitmap
  const isSame =
    stored !== undefined &&
    stored.pages.length === pages.length &&
    stored.pages.every((page, index) => page === pages[index])
  const host = isSame ? stored.host : (await writeOwned(parts, encodeTable(pages), allocations)).host
  return { ...bitmap, pages, changes: newBits(parts.geometry), isCut: false, stored: { host, pages } }
}

/** @returns the pages of the bitmap with its changes, those that differ in clusters of their own */
async function writePages(
  parts: Parts,
  bitmap: Bitmap,
  size: number,
  allocations: Allocation[],
): Promise<Float64Array> {
  const { clusterSize } = parts.geometry
  const pages = bitmap.pages.slice()
  const last = pages.length - 1
  const bitsInLast = bitsFor(size, bitmap.granularityBits) - last * clusterSize * 8
  const touched = bitmap.changes.pages(clusterSize)
  if (bitmap.isCut && touched.at(-1) !== last) touched.push(last)
  let batch: { page: number; bytes: Uint8Array }[] = []
  const writeBatch = async (): Promise<void> => {
    if (batch.length === 0) return
    const { host } = await writeOwned(parts, Buffer.concat(batch.map(({ bytes }) => bytes)), allocations)
    for (const [index, { page }] of batch.entries()) pages[page] = host + index * clusterSize
    batch = []
  }
  for (const page of touched) {
    const base = pages[page] as number
    if (base === onePage) continue
    const bytes = new Uint8Array(clusterSize)
    if (base > onePage) await parts.backend.read(bytes, base)
    const hasGained = bitmap.changes.copyInto(bytes, page * clusterSize)
    const hasLost = page === last && clearFrom(bytes, bitsInLast)
    if (!hasGained && !hasLost) continue
    if (bytes.every((value) => value === 0xff)) {
      pages[page] = onePage
      continue
    }
    batch.push({ page, bytes })
    if (batch.length * clusterSize >= alignDown(batchBytes, clusterSize)) await writeBatch()
  }
  await writeBatch()
  return pages
}

async function writeOwned(parts: Parts, bytes: Uint8Array, allocations: Allocation[]): Promise<NewTable> {
  const written = await writeTable(parts, bytes)
  if (written.allocation !== undefined) allocations.push(written.allocation)
  return written
}
