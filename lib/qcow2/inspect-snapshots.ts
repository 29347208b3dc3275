import { corrupt } from '../base/errors.js'
import { alignUp } from '../base/integers.js'
import type { Geometry } from './geometry.js'
import type { HeaderNumbers } from './inspect-header.js'
import {
  fieldsOf,
  type ImageStructure,
  numberAt,
  problemOf,
  reasonOf,
  shownText,
} from './inspect-structure.js'
import { inspectL1, type L1Place, placeOf, withList } from './inspect-tables.js'
import { snapshotExtraNames, snapshotWords } from './inspect-words.js'
import type { Inspection } from './inspection.js'
import { eachSnapshotEntry } from './snapshot-table.js'
import { snapshotEntry } from './spec.js'

/** An entry, and the L1 table that it says. */
type Entry = { readonly part: ImageStructure; readonly l1: L1Place }

/** The snapshot table: its entries, and in each of these its L1 table. The L2 tables of snapshots are not listed, most being those of the disk. */
export async function inspectSnapshots(
  inspection: Inspection,
  geometry: Geometry,
  header: HeaderNumbers,
): Promise<ImageStructure | undefined> {
  const { snapshotsOffset, snapshotCount } = header
  if (snapshotCount === 0) return undefined
  const place = placeOf('snapshot table', snapshotsOffset, 0)
  const { problem, isReadable } = inspection.placeProblem(snapshotsOffset, 0, geometry)
  if (!isReadable || typeof snapshotsOffset !== 'number') return { ...place, ...problemOf(problem) }
  const entries: Entry[] = []
  let end = snapshotsOffset
  let broken: string | undefined
  try {
    const { clusterBits } = geometry
    await eachSnapshotEntry(
      inspection.backend,
      { snapshotsOffset, snapshotCount, clusterBits },
      (window, from, at) => {
        inspection.options.signal?.throwIfAborted()
        const entry = inspectEntry(window, from, at, entries.length)
        // The padding of the last entry may be missing.
        if (at + entry.used > inspection.fileBytes) {
          const what = `the file ends after ${inspection.fileBytes} bytes, before it or within`
          throw corrupt('snapshot table entry', at, what)
        }
        const length = Math.min(alignUp(entry.used, 8), inspection.fileBytes - at)
        end = at + length
        if (entries.length >= inspection.options.most) return
        entries.push({ ...entry, part: { ...entry.part, length } })
      },
    )
  } catch (error) {
    broken = reasonOf(error)
  }
  const parts: ImageStructure[] = []
  for (const { part, l1 } of entries) {
    const table = await inspectL1(inspection, geometry, l1)
    parts.push({ ...part, parts: [...(part.parts ?? []), table] })
  }
  const table = { ...place, length: end - snapshotsOffset, counts: { entries: snapshotCount } }
  return withList({ ...table, ...problemOf(problem, broken) }, parts, snapshotCount)
}

/** @returns the entry without its L1 table; `used`: its bytes without padding */
function inspectEntry(window: Uint8Array, from: number, at: number, index: number): Entry & { used: number } {
  const fields = snapshotEntry.decode(window, from, at)
  const { sizeBytes } = snapshotEntry
  const idAt = sizeBytes + fields.extraBytes
  const nameAt = idAt + fields.idBytes
  const used = nameAt + fields.nameBytes
  const text = (name: string, start: number, length: number): ImageStructure => ({
    structure: 'snapshot field',
    name,
    offset: at + start,
    length,
    value: shownText(window.subarray(from + start, from + start + length)),
  })
  const part = {
    structure: 'snapshot table entry',
    name: shownText(window.subarray(from + nameAt, from + used)),
    index,
    offset: at,
    parts: [
      ...fieldsOf('snapshot field', snapshotEntry, snapshotWords, window, from, at),
      ...extraFields(window.subarray(from + sizeBytes, from + idAt), at + sizeBytes),
      text('unique ID string', idAt, fields.idBytes),
      text('name', nameAt, fields.nameBytes),
    ],
  }
  return {
    part,
    l1: { offset: numberAt(window, from + snapshotEntry.offsets.l1Offset, 8), entries: fields.l1Entries },
    used,
  }
}

function extraFields(extra: Uint8Array, offset: number): ImageStructure[] {
  const parts: ImageStructure[] = []
  let at = 0
  for (const name of snapshotExtraNames) {
    if (at + 8 > extra.length) break
    const value = numberAt(extra, at, 8)
    parts.push({ structure: 'snapshot field', name, offset: offset + at, length: 8, value })
    at += 8
  }
  if (at < extra.length) {
    const length = extra.length - at
    parts.push({ structure: 'snapshot field', name: 'unknown extra data', offset: offset + at, length })
  }
  return parts
}
