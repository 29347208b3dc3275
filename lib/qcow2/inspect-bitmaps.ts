import { alignUp, isAligned } from '../base/integers.js'
import { isPlausible } from './bitmap-directory.js'
import { entryBytes, type Geometry } from './geometry.js'
import { findExtension } from './header-extensions.js'
import type { HeaderNumbers } from './inspect-header.js'
import { fieldsOf, type ImageStructure, numbersOf, problemOf, shownText } from './inspect-structure.js'
import { placeOf, withList } from './inspect-tables.js'
import { bitmapWords } from './inspect-words.js'
import type { Inspection } from './inspection.js'
import { autoclear, bitmapEntry, bitmapsExtension, extensionTypes, limits } from './spec.js'

/** Longest name that is read, bytes: more than any can have, so that a longer one is seen to be. */
const mostNameBytes = limits.bitmapNameBytes + 1

type EntryNumbers = Readonly<Record<keyof typeof bitmapEntry.offsets, number | bigint>>

/** The bitmap directory: its entries, and in each of these its table. */
export async function inspectBitmaps(
  inspection: Inspection,
  geometry: Geometry,
  header: HeaderNumbers,
): Promise<ImageStructure | undefined> {
  const extension = findExtension(header.extensions, extensionTypes.bitmaps)
  if (extension === undefined) return undefined
  const { data } = extension
  const structure = 'bitmap directory'
  if (data.length !== bitmapsExtension.sizeBytes) {
    return { structure, problem: `the extension has ${data.length} bytes, not ${bitmapsExtension.sizeBytes}` }
  }
  const numbers = numbersOf(bitmapsExtension, data, 0)
  const { directoryOffset: offset, directoryBytes } = numbers
  const count = Number(numbers.count)
  const length = Number(directoryBytes)
  const place = placeOf(structure, offset, length)
  if ((header.autoclearFeatures & autoclear.bitmaps) === 0n) {
    // Whoever cleared the bit may have put something else there.
    const problem = 'not read: its bit in autoclear_features is not set, so that it is out of date'
    return { ...place, problem }
  }
  if (length > limits.bitmapDirectoryBytes) {
    return { ...place, problem: `${length} bytes, at most ${limits.bitmapDirectoryBytes} can be` }
  }
  const { problem, isReadable } = inspection.placeProblem(offset, length, geometry)
  if (!isReadable || typeof offset !== 'number') return { ...place, ...problemOf(problem) }
  const directory = { offset, end: Math.min(offset + length, inspection.fileBytes) }
  const { parts, broken } = await inspectEntries(inspection, geometry, directory, count)
  return withList({ ...place, counts: { entries: count }, ...problemOf(problem, broken) }, parts, count)
}

async function inspectEntries(
  inspection: Inspection,
  geometry: Geometry,
  directory: { readonly offset: number; readonly end: number },
  count: number,
): Promise<{ parts: ImageStructure[]; broken: string | undefined }> {
  const parts: ImageStructure[] = []
  const { sizeBytes } = bitmapEntry
  let at = directory.offset
  for (let index = 0; index < Math.min(count, inspection.options.most); index++) {
    const broken = `it ends within entry ${index}, at offset ${at}`
    if (at + sizeBytes > directory.end) return { parts, broken }
    const head = await inspection.read(at, sizeBytes)
    const numbers = numbersOf(bitmapEntry, head, 0)
    const [extraBytes, nameBytes] = [Number(numbers.extraBytes), Number(numbers.nameBytes)]
    const nameAt = at + sizeBytes + extraBytes
    if (nameAt + nameBytes > directory.end) return { parts, broken }
    const name = await inspection.read(nameAt, Math.min(nameBytes, mostNameBytes))
    const length = alignUp(sizeBytes + extraBytes + nameBytes, 8)
    const field = { structure: 'bitmap field' }
    parts.push({
      structure: 'bitmap directory entry',
      name: shownText(name),
      index,
      offset: at,
      length,
      parts: [
        ...fieldsOf(field.structure, bitmapEntry, bitmapWords, head, 0, at),
        ...(extraBytes === 0
          ? []
          : [{ ...field, name: 'extra data', offset: at + sizeBytes, length: extraBytes }]),
        { ...field, name: 'name', offset: nameAt, length: nameBytes, value: shownText(name) },
        await inspectTable(inspection, geometry, numbers, nameBytes),
      ],
    })
    at += length
  }
  return { parts, broken: undefined }
}

async function inspectTable(
  inspection: Inspection,
  geometry: Geometry,
  numbers: EntryNumbers,
  nameBytes: number,
): Promise<ImageStructure> {
  const offset = numbers.tableOffset
  const entries = Number(numbers.tableEntries)
  const length = entries * entryBytes
  const place = placeOf('bitmap table', offset, length)
  const { problem, isReadable } = inspection.placeProblem(offset, length, geometry)
  if (!isReadable || typeof offset !== 'number') return { ...place, ...problemOf(problem) }
  const entry = {
    flags: Number(numbers.flags),
    granularityBits: Number(numbers.granularityBits),
    tableOffset: offset,
    tableEntries: entries,
  }
  if (!isPlausible(entry, Number(numbers.type), nameBytes, geometry.clusterSize)) {
    return { ...place, problem: 'not read: its directory entry says what none can' }
  }
  const counts = { entries, zeros: 0, ones: 0, stored: 0, invalid: 0 }
  const unread = await inspection.eachPiece({ offset, length, entries }, (view) => {
    for (let at = 0; at < view.byteLength; at += entryBytes) {
      const page = view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4)
      if (page === 0) counts.zeros++
      else if (page === 1) counts.ones++
      else if (isAligned(page, geometry.clusterSize) && page < inspection.fileBytes) counts.stored++
      else counts.invalid++
    }
  })
  if (unread !== undefined) return { ...place, ...problemOf(problem, unread) }
  const { invalid, ...valid } = counts
  return { ...place, counts: invalid === 0 ? valid : counts, ...problemOf(problem) }
}
