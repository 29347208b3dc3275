import { entryBytes, type Geometry } from './geometry.js'
import type { HeaderNumbers } from './inspect-header.js'
import { type ImageStructure, problemOf, reasonOf } from './inspect-structure.js'
import type { Inspection } from './inspection.js'
import {
  decodeL1Entry,
  firstByteOf,
  hostOf,
  kindOfL2Entry,
  type L2EntryKind,
  type L2EntryRules,
} from './l2-entry.js'
import { loadRefcount } from './refcount-entry.js'
import { limits } from './spec.js'
import { loadSubclusters } from './subclusters.js'

/** An L1 table, and where it is said to be. */
export type L1Place = {
  readonly offset: number | bigint
  readonly entries: number
  /** Without it the L2 tables are not listed. */
  readonly l2Rules?: L2EntryRules
}

/** An entry that is not empty. */
type Used = { readonly index: number; readonly high: number; readonly low: number }

/** Go through the entries of a table that are not empty. @returns why it was not read, if it was not */
function eachUsed(
  inspection: Inspection,
  offset: number,
  entries: number,
  visit: (entry: Used) => void,
): Promise<string | undefined> {
  return inspection.eachPiece({ offset, length: entries * entryBytes, entries }, (view, from) => {
    for (let at = 0; at < view.byteLength; at += entryBytes) {
      const high = view.getUint32(at)
      const low = view.getUint32(at + 4)
      if (high !== 0 || low !== 0) visit({ index: (from + at) / entryBytes, high, low })
    }
  })
}

/** An L1 table with its L2 tables. */
export async function inspectL1(
  inspection: Inspection,
  geometry: Geometry,
  { offset, entries, l2Rules }: L1Place,
): Promise<ImageStructure> {
  const length = entries * entryBytes
  const place = placeOf('L1 table', offset, length)
  if (entries === 0) return place
  if (entries > limits.l1Entries) {
    return { ...place, problem: `${entries} entries, at most ${limits.l1Entries} can be` }
  }
  const { problem, isReadable } = inspection.placeProblem(offset, length, geometry)
  if (!isReadable || typeof offset !== 'number') return { ...place, ...problemOf(problem) }
  const counts = { entries, used: 0, copied: 0 }
  const most = l2Rules === undefined ? 0 : inspection.options.most
  const listed: Used[] = []
  const unread = await eachUsed(inspection, offset, entries, (entry) => {
    counts.used++
    if (entry.high >= 0x80000000) counts.copied++
    if (listed.length < most) listed.push(entry)
  })
  if (unread !== undefined) return { ...place, ...problemOf(problem, unread) }
  const parts: ImageStructure[] = []
  if (l2Rules !== undefined) {
    for (const entry of listed) {
      if (!inspection.hasRoomFor(geometry.l2EntriesPerTable)) break
      parts.push(await inspectL2(inspection, geometry, l2Rules, entry, offset))
    }
  }
  return withList({ ...place, counts, ...problemOf(problem) }, parts, l2Rules === undefined ? 0 : counts.used)
}

/** @param table  where the L1 table is that has the entry */
async function inspectL2(
  inspection: Inspection,
  geometry: Geometry,
  rules: L2EntryRules,
  { index, high, low }: Used,
  table: number,
): Promise<ImageStructure> {
  const { clusterSize, clusterBits, l2EntriesPerTable, l2TableCoverage } = geometry
  const host = hostOf(high, low)
  const place = {
    ...placeOf('L2 table', host <= Number.MAX_SAFE_INTEGER ? host : BigInt(host), clusterSize),
    index,
    meaning: `of guest bytes from ${index * l2TableCoverage} on`,
  }
  try {
    decodeL1Entry(high, low, clusterBits, table + index * entryBytes)
  } catch (error) {
    return { ...place, problem: reasonOf(error) }
  }
  const { problem, isReadable } = inspection.placeProblem(host, clusterSize, geometry)
  if (!isReadable) return { ...place, ...problemOf(problem) }
  const counts = new L2Counts(inspection, rules)
  const what = { offset: host, length: clusterSize, entries: l2EntriesPerTable }
  const unread = await inspection.eachPiece(what, (view) => counts.add(view))
  return { ...place, counts: counts.result(l2EntriesPerTable), ...problemOf(problem, unread) }
}

/** Counts the entries of one L2 table. */
class L2Counts {
  readonly #inspection: Inspection
  readonly #rules: L2EntryRules
  readonly #kinds: Record<L2EntryKind, number> = {
    unallocated: 0,
    normal: 0,
    zero: 0,
    'zero-allocated': 0,
    compressed: 0,
    invalid: 0,
  }
  #beyondEnd = 0
  #subclustersAllocated = 0
  #subclustersZero = 0

  constructor(inspection: Inspection, rules: L2EntryRules) {
    this.#inspection = inspection
    this.#rules = rules
  }

  add(view: DataView): void {
    const { extendedL2 = false, clusterBits, hasDataFile = false } = this.#rules
    const width = extendedL2 ? 2 * entryBytes : entryBytes
    for (let at = 0; at + width <= view.byteLength; at += width) {
      const high = view.getUint32(at)
      const low = view.getUint32(at + 4)
      const kind = kindOfL2Entry(high, low, this.#rules)
      this.#kinds[extendedL2 ? this.#extendedKind(kind, view, at) : kind]++
      if (kind === 'compressed' || (kind === 'normal' && !hasDataFile)) {
        if (firstByteOf(high, low, clusterBits) >= this.#inspection.fileBytes) this.#beyondEnd++
      }
    }
  }

  /** By an entry's second word: see decodeExtended. */
  #extendedKind(kind: L2EntryKind, view: DataView, at: number): L2EntryKind {
    if (kind === 'compressed' || kind === 'invalid') return kind
    const { allocated, zero } = loadSubclusters(view, at)
    if ((allocated & zero) !== 0 || (kind === 'unallocated' && allocated !== 0)) return 'invalid'
    this.#subclustersAllocated += onesOf(allocated)
    this.#subclustersZero += onesOf(zero)
    return kind === 'unallocated' && zero !== 0 ? 'zero' : kind
  }

  /** What the file does not have reads as zeros: entries of nothing. Kinds that cannot be, or that are not there, are left out. */
  result(entries: number): Record<string, number> {
    const found = Object.values(this.#kinds).reduce((sum, count) => sum + count, 0)
    this.#kinds.unallocated += entries - found
    const { unallocated, normal, ...others } = this.#kinds
    const rare = Object.entries({ ...others, 'beyond-end': this.#beyondEnd }).filter(([, count]) => count > 0)
    const subclusters = {
      'subclusters-allocated': this.#subclustersAllocated,
      'subclusters-zero': this.#subclustersZero,
    }
    return {
      entries,
      unallocated,
      normal,
      ...Object.fromEntries(rare),
      ...(this.#rules.extendedL2 === true ? subclusters : {}),
    }
  }
}

/** How many bits of 32 are set. */
function onesOf(set: number): number {
  let count = 0
  for (let rest = set; rest !== 0; rest &= rest - 1) count++
  return count
}

/** The refcount table with its blocks. */
export async function inspectRefcounts(
  inspection: Inspection,
  geometry: Geometry,
  header: HeaderNumbers,
): Promise<ImageStructure> {
  const { refcountTableOffset: offset, refcountTableClusters: clusters, refcountOrder } = header
  const length = clusters * geometry.clusterSize
  const place = placeOf('refcount table', offset, length)
  if (length === 0) return { ...place, problem: 'it has no clusters' }
  if (length > limits.refcountTableBytes) {
    return { ...place, problem: `${length} bytes, at most ${limits.refcountTableBytes} can be` }
  }
  const { problem, isReadable } = inspection.placeProblem(offset, length, geometry)
  if (!isReadable || typeof offset !== 'number') return { ...place, ...problemOf(problem) }
  const entries = length / entryBytes
  const counts = { entries, used: 0 }
  const listed: Used[] = []
  const unread = await eachUsed(inspection, offset, entries, (entry) => {
    counts.used++
    if (listed.length < inspection.options.most) listed.push(entry)
  })
  if (unread !== undefined) return { ...place, ...problemOf(problem, unread) }
  if (refcountOrder > limits.refcountOrder) {
    const why = `its blocks are not read: refcount_order is ${refcountOrder}, at most ${limits.refcountOrder} can be`
    return withList({ ...place, counts, ...problemOf(problem, why) }, [], counts.used)
  }
  const parts: ImageStructure[] = []
  for (const entry of listed) {
    if (!inspection.hasRoomFor(geometry.refcountsPerBlock)) break
    parts.push(await inspectBlock(inspection, geometry, entry))
  }
  return withList({ ...place, counts, ...problemOf(problem) }, parts, counts.used)
}

async function inspectBlock(
  inspection: Inspection,
  geometry: Geometry,
  { index, high, low }: Used,
): Promise<ImageStructure> {
  const { clusterSize, refcountsPerBlock, refcountBits } = geometry
  const offset = high < 2 ** 21 ? high * 2 ** 32 + low : (BigInt(high) << 32n) | BigInt(low)
  const first = index * refcountsPerBlock * clusterSize
  const place = {
    ...placeOf('refcount block', offset, clusterSize),
    index,
    meaning: `of clusters from offset ${first} on`,
  }
  const { problem, isReadable } = inspection.placeProblem(offset, clusterSize, geometry)
  if (!isReadable || typeof offset !== 'number') return { ...place, ...problemOf(problem) }
  let used = 0
  let shared = 0
  const what = { offset, length: clusterSize, entries: refcountsPerBlock }
  const unread = await inspection.eachPiece(what, (view) => {
    const entries = (view.byteLength * 8) / refcountBits
    for (let entry = 0; entry < entries; entry++) {
      const count = loadRefcount(view, entry, geometry)
      if (count > 0) used++
      if (count > 1) shared++
    }
  })
  const counts = { entries: refcountsPerBlock, free: refcountsPerBlock - used, used, shared }
  return { ...place, counts, ...problemOf(problem, unread) }
}

/** A part without what is in it. */
export function placeOf(structure: string, offset: number | bigint, length: number): ImageStructure {
  return { structure, ...(typeof offset === 'number' ? { offset } : {}), length }
}

/** A table with the parts that are listed of those that there are. */
export function withList(
  table: ImageStructure,
  parts: readonly ImageStructure[],
  count: number,
): ImageStructure {
  const notShown = count - parts.length
  return {
    ...table,
    ...(notShown > 0 ? { notShown } : {}),
    ...(parts.length > 0 ? { parts } : {}),
  }
}
