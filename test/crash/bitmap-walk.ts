import { Broken } from './broken.js'

/** A bitmap as a file has it. */
export type WalkedBitmap = {
  readonly name: string
  /** What it says means nothing. */
  readonly inUse: boolean
  /** It follows the disk. */
  readonly auto: boolean
  /** Guest bytes for one bit. */
  readonly unit: number
  /** Whether the bit that stands for this guest byte is set. */
  readonly isMarked: (offset: number) => boolean
}

/** Clusters that bitmaps refer to. */
export type BitmapRegion = { readonly offset: number; readonly bytes: number; readonly what: string }

const extensionType = 0x23852875
const two32 = 2 ** 32

/**
 * Read the persistent bitmaps of a file. Shares no code with lib/. qcow2 spec, "Bitmaps".
 * @param length  of the file
 * @throws Broken
 */
export function bitmapsIn(
  view: DataView,
  length: number,
): { bitmaps: WalkedBitmap[]; regions: BitmapRegion[] } {
  const bitmaps: WalkedBitmap[] = []
  const regions: BitmapRegion[] = []
  const at = view.getUint32(4) === 3 && (view.getUint32(92) & 1) !== 0 ? findExtension(view) : 0
  if (at === 0) return { bitmaps, regions }
  if (view.getUint32(at + 4) !== 24 || view.getUint32(at + 12) !== 0) throw new Broken('a broken extension')
  const bytes = offsetAt(view, at + 16)
  const directory = offsetAt(view, at + 24)
  regions.push({ offset: directory, bytes, what: 'bitmap directory' })
  if (directory + bytes > length) throw new Broken('the bitmap directory is not within the file')
  let entry = directory
  for (let left = view.getUint32(at + 8); left > 0; left--) {
    const nameAt = entry + 24 + view.getUint32(entry + 20)
    const end = nameAt + view.getUint16(entry + 18)
    if (end > directory + bytes) throw new Broken('the bitmap directory ends within an entry')
    const flags = view.getUint32(entry + 12)
    const table = { offset: offsetAt(view, entry), entries: view.getUint32(entry + 8) }
    if (table.offset === 0 || table.entries === 0) throw new Broken('a bitmap without a table')
    walkTable(view, length, table, regions)
    const unit = 2 ** view.getUint8(entry + 17)
    const size = offsetAt(view, 24)
    const pageBytes = 2 ** view.getUint32(20)
    // As the stock tool: another length keeps the image from being opened.
    const needed = Math.ceil(Math.ceil(size / unit) / (pageBytes * 8))
    if ((flags & 1) === 0 && needed !== table.entries) throw new Broken('a table of another length')
    bitmaps.push({
      name: Buffer.from(view.buffer, nameAt, end - nameAt).toString(),
      inUse: (flags & 1) !== 0,
      auto: (flags & 2) !== 0,
      unit,
      isMarked: (offset) => isMarked(view, table, pageBytes, Math.floor(offset / unit)),
    })
    entry = directory + Math.ceil((end - directory) / 8) * 8
  }
  if (entry !== directory + Math.ceil(bytes / 8) * 8) throw new Broken('a bitmap directory of another length')
  return { bitmaps, regions }
}

/** @returns where the extension begins; 0: there is none */
function findExtension(view: DataView): number {
  let at = view.getUint32(100)
  for (let left = 32; left > 0; left--) {
    const type = view.getUint32(at)
    if (type === extensionType) return at
    if (type === 0) break
    at += 8 + Math.ceil(view.getUint32(at + 4) / 8) * 8
  }
  return 0
}

type Table = { readonly offset: number; readonly entries: number }

function walkTable(view: DataView, length: number, table: Table, regions: BitmapRegion[]): void {
  const bytes = table.entries * 8
  if (table.offset + bytes > length) throw new Broken('a bitmap table is not within the file')
  regions.push({ offset: table.offset, bytes, what: 'bitmap table' })
  for (let at = table.offset; at < table.offset + bytes; at += 8) {
    const page = offsetAt(view, at)
    if (page <= 1) continue
    if (page % 512 !== 0) throw new Broken(`the bitmap table entry ${page}`)
    regions.push({ offset: page, bytes: 2 ** view.getUint32(20), what: 'bitmap data' })
  }
}

function isMarked(view: DataView, table: Table, pageBytes: number, bit: number): boolean {
  const index = Math.floor(bit / (pageBytes * 8))
  if (index >= table.entries) return false
  const page = offsetAt(view, table.offset + index * 8)
  if (page <= 1) return page === 1
  const within = bit % (pageBytes * 8)
  return (view.getUint8(page + (within >>> 3)) & (1 << (within & 7))) !== 0
}

function offsetAt(view: DataView, at: number): number {
  return view.getUint32(at) * two32 + view.getUint32(at + 4)
}
