import { Qcow2Error } from '../base/errors.js'
import { alignUp, isAligned } from '../base/integers.js'
import type { BlockBackend } from '../queue/backend.js'
import type { Header } from './header.js'
import { escapeName, findExtension } from './header-extensions.js'
import {
  autoclear,
  bitmapEntry,
  bitmapFlags,
  bitmapsExtension,
  extensionHeader,
  extensionTypes,
  limits,
} from './spec.js'

/** An entry of the bitmap directory. qcow2 spec, "Bitmap directory". */
export type DirectoryEntry = {
  /** Bytes of UTF-8, if the writer kept to the specification. */
  readonly nameBytes: Uint8Array
  /** What some other program has added; kept. */
  readonly extra: Uint8Array
  readonly flags: number
  readonly granularityBits: number
  readonly tableOffset: number
  readonly tableEntries: number
}

/** What the stock tool says, each time that it opens such an image, where the header names bitmaps and does not vouch for them. */
export const staleBitmaps =
  'a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent\n' +
  "Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix."

/** What the header says of the bitmaps, or undefined where it says nothing that can be believed: the autoclear bit is the promise. */
export function bitmapPointer(header: Header): ReturnType<typeof bitmapsExtension.decode> | undefined {
  const extension = findExtension(header.extensions, extensionTypes.bitmaps)
  if (extension === undefined || (header.autoclearFeatures & autoclear.bitmaps) === 0n) return undefined
  return bitmapsExtension.decode(extension.data, 0, extension.offset + extensionHeader.sizeBytes)
}

/**
 * Read the bitmap directory and check it, before anything that it names is read: at most 64 MiB.
 * @throws ERR_CORRUPT  it does not lie within the file, its entries do not fill it, or one of them says what none can
 */
export async function readDirectory(
  backend: BlockBackend,
  header: Header,
): Promise<{ entries: DirectoryEntry[]; host: number; bytes: Uint8Array }> {
  const pointer = bitmapPointer(header)
  if (pointer === undefined) return { entries: [], host: 0, bytes: new Uint8Array(0) }
  const { directoryOffset, directoryBytes, count } = pointer
  const { path } = backend
  const fail = (what: string, at = 0): never => {
    throw new Qcow2Error('ERR_CORRUPT', `Bitmap directory at offset ${directoryOffset}: ${what}`, {
      path,
      offset: directoryOffset + at,
      structure: 'bitmap directory',
    })
  }
  if (directoryOffset === 0) fail('it cannot be where the header is')
  if (directoryOffset + directoryBytes > backend.length) fail('the file is truncated, it ends within it')
  if (count * bitmapEntry.sizeBytes > directoryBytes) fail(`it has no room for ${count} entries`)
  const bytes = new Uint8Array(directoryBytes)
  await backend.read(bytes, directoryOffset)
  const entries: DirectoryEntry[] = []
  let at = 0
  for (let index = 0; index < count; index++) {
    if (at + bitmapEntry.sizeBytes > bytes.length) fail('it ends within an entry', at)
    const fields = bitmapEntry.decode(bytes, at, directoryOffset + at)
    const extraAt = at + bitmapEntry.sizeBytes
    const nameAt = extraAt + fields.extraBytes
    const end = nameAt + fields.nameBytes
    if (end > bytes.length) fail('it ends within an entry', at)
    const entry = {
      ...fields,
      extra: Uint8Array.from(bytes.subarray(extraAt, nameAt)),
      nameBytes: Uint8Array.from(bytes.subarray(nameAt, end)),
    }
    checkEntry(entry, fields.type, header, directoryOffset + at, path)
    entries.push(entry)
    at = alignUp(end, 8)
  }
  // The padding of the last entry may be missing.
  if (at !== alignUp(bytes.length, 8)) fail('its entries do not fill it', Math.min(at, bytes.length))
  refuseTwins(entries, fail)
  return { entries, host: directoryOffset, bytes }
}

/** Whether an entry says what one can say. The limits are QEMU's. */
export function isPlausible(
  entry: Pick<DirectoryEntry, 'flags' | 'granularityBits' | 'tableOffset' | 'tableEntries'>,
  type: number,
  nameBytes: number,
  clusterSize: number,
): boolean {
  const { least, most } = limits.bitmapGranularityBits
  return (
    type === 1 &&
    (entry.flags & ~(bitmapFlags.inUse | bitmapFlags.auto | bitmapFlags.extraCompatible)) === 0 &&
    entry.granularityBits >= least &&
    entry.granularityBits <= most &&
    nameBytes <= limits.bitmapNameBytes &&
    entry.tableOffset > 0 &&
    isAligned(entry.tableOffset, clusterSize) &&
    entry.tableEntries > 0 &&
    entry.tableEntries <= limits.bitmapTableEntries &&
    entry.tableEntries * clusterSize <= limits.bitmapBytes
  )
}

function checkEntry(entry: DirectoryEntry, type: number, header: Header, offset: number, path: string): void {
  if (isPlausible(entry, type, entry.nameBytes.length, 2 ** header.clusterBits)) return
  throw new Qcow2Error('ERR_CORRUPT', `Bitmap '${shownName(entry)}' doesn't satisfy the constraints`, {
    path,
    offset,
    structure: 'bitmap directory entry',
  })
}

function refuseTwins(entries: readonly DirectoryEntry[], fail: (what: string) => never): void {
  const names = new Set<string>()
  for (const entry of entries) {
    const name = Buffer.from(entry.nameBytes).toString('latin1')
    if (names.has(name)) fail(`two bitmaps are called '${shownName(entry)}'`)
    names.add(name)
  }
}

/** The name as text. What is no UTF-8 is replaced. */
export function nameOf({ nameBytes }: Pick<DirectoryEntry, 'nameBytes'>): string {
  return Buffer.from(nameBytes).toString('utf8')
}

/** For messages: a stranger's text. */
function shownName(entry: DirectoryEntry): string {
  return escapeName(nameOf(entry))
}

/** The directory that holds these entries. */
export function encodeDirectory(entries: readonly DirectoryEntry[]): Uint8Array {
  const pieces: Uint8Array[] = []
  for (const { nameBytes, extra, ...entry } of entries) {
    const used = bitmapEntry.sizeBytes + extra.length + nameBytes.length
    const bytes = new Uint8Array(alignUp(used, 8))
    const lengths = { nameBytes: nameBytes.length, extraBytes: extra.length }
    bytes.set(bitmapEntry.encode({ ...entry, ...lengths, type: 1 }))
    bytes.set(extra, bitmapEntry.sizeBytes)
    bytes.set(nameBytes, bitmapEntry.sizeBytes + extra.length)
    pieces.push(bytes)
  }
  return Uint8Array.from(Buffer.concat(pieces))
}

/** Say in a directory, in place, that these bitmaps are in use. @param isMeant  of an entry's number */
export function markEntriesInUse(directory: Uint8Array, isMeant: (index: number) => boolean): void {
  let at = 0
  for (let index = 0; at < directory.length; index++) {
    const { flags, nameBytes, extraBytes } = bitmapEntry.decode(directory, at, at)
    if (isMeant(index)) bitmapEntry.patch(directory, at, { flags: flags | bitmapFlags.inUse })
    at += alignUp(bitmapEntry.sizeBytes + extraBytes + nameBytes, 8)
  }
}
