import { invalid, notSupported, outOfRange, Qcow2Error } from '../base/errors.js'
import { alignUp } from '../base/integers.js'
import type { BitmapChange, BitmapCut } from '../queue/format-image.js'
import { cutOf } from './bitmap-cut.js'
import { type Bitmap, emptyBitmap, findBitmap, refuseUnusable } from './bitmap-state.js'
import { tableEntriesFor } from './bitmap-table.js'
import type { Header } from './header.js'
import { escapeName } from './header-extensions.js'
import type { Parts } from './parts.js'
import { bitmapEntry, limits } from './spec.js'

/** What a change of bitmaps is made against. */
export type ChangeContext = {
  readonly parts: Parts
  readonly header: Header
  /** Guest bytes of the disk. */
  readonly size: () => number
}

/** The default granularity is the cluster size within these bounds, as QEMU's. */
const defaultGranularity = { least: 4096, most: 65536 }

/**
 * The bitmaps as a change makes them; the same list where it changes nothing. Nothing is written, and those that there are stay as they are.
 * @param options.isTrial  only see whether it can be done: no bits are looked at
 * @throws ERR_BITMAP_EXISTS, ERR_BITMAP_NOT_FOUND, ERR_BITMAP_INCONSISTENT, ERR_NOT_SUPPORTED; RangeError
 */
export async function changedList(
  context: ChangeContext,
  list: readonly Bitmap[],
  change: BitmapChange,
  options: { readonly isTrial: boolean } = { isTrial: false },
): Promise<readonly Bitmap[]> {
  const { parts } = context
  const { path } = parts.backend
  if (change.kind === 'add') return addBitmap(context, list, change)
  const bitmap = findBitmap(list, change.name, path)
  if (change.kind === 'remove') return list.filter((one) => one !== bitmap)
  refuseUnusable(bitmap, path)
  const replaced = (changed: Bitmap): readonly Bitmap[] => list.map((one) => (one === bitmap ? changed : one))
  switch (change.kind) {
    case 'clear': {
      const { pages, changes } = emptyBitmap(parts.geometry, context.size(), bitmap)
      return replaced({ ...bitmap, pages, changes, isCut: false })
    }
    case 'enable':
    case 'disable': {
      const enabled = change.kind === 'enable'
      return bitmap.enabled === enabled ? list : replaced({ ...bitmap, enabled })
    }
    case 'merge': {
      const changes = bitmap.changes.clone()
      const unit = 2 ** bitmap.granularityBits
      for (const source of change.sources) {
        const cut = await sourceOf(context, list, source, options)
        if (cut === undefined) continue
        for (const { offset, length } of cut.ranges()) {
          changes.set(Math.floor(offset / unit), Math.floor((offset + length - 1) / unit))
        }
      }
      return replaced({ ...bitmap, changes })
    }
  }
}

function addBitmap(
  context: ChangeContext,
  list: readonly Bitmap[],
  change: BitmapChange & { kind: 'add' },
): readonly Bitmap[] {
  const { geometry, backend, version } = context.parts
  const { path } = backend
  const { name, enabled } = change
  const size = context.size()
  const shown = escapeName(name)
  const { least, most } = defaultGranularity
  const granularity = change.granularity ?? Math.min(most, Math.max(least, geometry.clusterSize))
  const granularityBits = Math.log2(granularity)
  const bounds = limits.bitmapGranularityBits
  if (!Number.isInteger(granularityBits) || granularityBits < bounds.least || granularityBits > bounds.most) {
    throw outOfRange(
      `The granularity of a bitmap must be a power of two from 512 bytes to 2 GiB, not ${granularity}`,
    )
  }
  const nameBytes = Buffer.byteLength(name)
  if (nameBytes === 0) throw invalid('Bitmap name cannot be empty')
  if (nameBytes > limits.bitmapNameBytes) {
    throw outOfRange(`A bitmap's name has at most ${limits.bitmapNameBytes} bytes of UTF-8, not ${nameBytes}`)
  }
  if (list.some((bitmap) => bitmap.name === name)) {
    throw new Qcow2Error('ERR_BITMAP_EXISTS', `Bitmap already exists: ${shown}`, { path })
  }
  const refuse = (why: string): never => {
    throw notSupported(`Can't make bitmap '${shown}' persistent in '${path}': ${why}`, { path })
  }
  if (version === 2) refuse('Cannot store dirty bitmaps in qcow2 v2 files')
  if (size === 0) refuse('A disk of 0 bytes cannot have bitmaps')
  if (list.length >= limits.bitmaps) refuse('Maximum number of persistent bitmaps is already reached')
  let directoryBytes = alignUp(bitmapEntry.sizeBytes + nameBytes, 8)
  let tableBytes = tableEntriesFor(geometry.clusterSize, size, granularityBits) * 8
  const bitmapBytes = (tableBytes / 8) * geometry.clusterSize
  for (const bitmap of list) {
    directoryBytes += alignUp(bitmapEntry.sizeBytes + bitmap.extra.length + bitmap.nameBytes.length, 8)
    tableBytes += bitmap.pages.length * 8
  }
  if (directoryBytes > limits.bitmapDirectoryBytes) refuse('Not enough space in the bitmap directory')
  if (bitmapBytes > limits.bitmapBytes || tableBytes > limits.bitmapTablesBytes) {
    refuse('Too much space will be occupied by the bitmap. Use larger granularity')
  }
  return [...list, emptyBitmap(geometry, size, { name, granularityBits, enabled })]
}

/** @returns undefined in a trial, when it is there */
async function sourceOf(
  { parts, size }: ChangeContext,
  list: readonly Bitmap[],
  source: string | BitmapCut,
  { isTrial }: { readonly isTrial: boolean },
): Promise<BitmapCut | undefined> {
  const { path } = parts.backend
  if (typeof source === 'string') {
    const bitmap = findBitmap(list, source, path)
    refuseUnusable(bitmap, path)
    return isTrial ? undefined : await cutOf(parts, bitmap, size())
  }
  if (source.size !== size()) {
    throw notSupported(
      `Bitmaps are of different sizes (destination size is ${size()}, source size is ${source.size}) and can't be merged`,
      { path },
    )
  }
  return isTrial ? undefined : source
}
