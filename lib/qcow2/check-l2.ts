import { isAligned } from '../base/integers.js'
import { addon } from '../native/addon.js'
import { type CheckState, hex64 } from './check-state.js'
import type { ReadTable } from './check-tables.js'
import { hostOf } from './l2-entry.js'
import { incompatible } from './spec.js'

/** Where the next cluster of a table would have to be for it not to be fragmented, in clusters; 0: anywhere. */
export type Fragmentation = { next: number }

const copiedBit = 0x80000000
const compressedBit = 0x40000000
const zeroBit = 0x1
const reservedHigh = 0x3f000000
const reservedLow = 0x1fe

/** How a run goes on is looked at here for so many entries: where most are shorter, a native call each would cost more. */
const entriesLookedAt = 8

/** How this image's L2 entries are made. */
export type L2Format = {
  readonly entryBytes: 8 | 16
  readonly extended: boolean
  readonly dataFile: boolean
}

export function l2FormatOf(state: CheckState): L2Format {
  const features = state.header.incompatibleFeatures
  const extended = (features & incompatible.extendedL2) !== 0n
  return { entryBytes: extended ? 16 : 8, extended, dataFile: (features & incompatible.dataFile) !== 0n }
}

/** Count what one L2 table refers to, and report what is wrong with its entries. */
export function checkL2Table(
  state: CheckState,
  table: ReadTable,
  fragmentation: Fragmentation | undefined,
): void {
  const format = l2FormatOf(state)
  const { view } = table
  for (let at = 0; at < view.byteLength; at += format.entryBytes) {
    const plain = format.extended ? 0 : countPlain(state, view, at, format, fragmentation)
    if (plain > 0) {
      at += (plain - 1) * format.entryBytes
      continue
    }
    const high = view.getUint32(at)
    const low = view.getUint32(at + 4)
    const bitmap = format.extended
      ? { zero: view.getUint32(at + 8), allocated: view.getUint32(at + 12) }
      : undefined
    if (high === 0 && low === 0 && !bitmap?.zero && !bitmap?.allocated) continue
    const entry = { high, low, bitmap, offset: table.offset + at, index: at / format.entryBytes }
    if ((high & compressedBit) !== 0) checkCompressed(state, entry, format, fragmentation)
    else checkStandard(state, entry, format, fragmentation)
    if (hasMisalignedZeros(state, view, at, format)) state.misalignedZeros++
  }
}

/**
 * Count what a run of sound, plain entries refers to that go on one from the other, or of empty ones: nearly all are of this kind, and nothing need be made for
 * them. A number of more than 31 bits that goes from one function to another is an object for V8: there is one for a run.
 * @returns how many entries it was; 0, and nothing is done: the first is of another kind, or not sound
 */
function countPlain(
  state: CheckState,
  view: DataView,
  at: number,
  format: L2Format,
  fragmentation: Fragmentation | undefined,
): number {
  const high = view.getInt32(at)
  const low = view.getInt32(at + 4)
  const { clusterSize } = state.geometry
  if ((high & (compressedBit | reservedHigh)) !== 0 || (low & (clusterSize - 1)) !== 0) return 0
  const isEmpty = high === 0 && low === 0
  const cluster = hostOf(high, low) / clusterSize
  if (cluster === 0 && !isEmpty) return 0
  const step = isEmpty ? 0 : clusterSize
  // A carry into the upper half ends the run.
  const inHalf = isEmpty ? Infinity : (2 ** 32 - (low >>> 0)) / clusterSize
  const most = Math.min((view.byteLength - at) / 8, inHalf)
  const shown = Math.min(most, entriesLookedAt)
  let entries = 1
  for (let next = at + 8; entries < shown; next += 8, entries++) {
    if (view.getInt32(next) !== high || view.getInt32(next + 4) !== ((low + entries * step) | 0)) break
  }
  if (entries === entriesLookedAt) {
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
    entries = addon().wordRun(bytes, at, most, step)
  }
  if (isEmpty) return entries
  const counted = format.dataFile ? entries : state.countRun(cluster, entries)
  if (counted === 0) return 0
  if ((high & copiedBit) === 0) state.allCopied = false
  if (fragmentation !== undefined) countPlaces(state, cluster, counted, fragmentation)
  return counted
}

/** @param place  of the first, in clusters, of the file */
function countPlaces(state: CheckState, place: number, clusters: number, fragmentation: Fragmentation): void {
  state.result.allocatedClusters += clusters
  if (fragmentation.next !== 0 && place !== fragmentation.next) state.result.fragmentedClusters++
  fragmentation.next = place + clusters
}

/** In a data file, host offset 0 is a place like any other; COPIED tells it from nothing. */
export function keepsHostZero(format: L2Format, high: number, low: number): boolean {
  return format.dataFile && (high & copiedBit) !== 0 && (low & zeroBit) === 0
}

/** Whether the entry reads as zeros and keeps a cluster for it that cannot be one. */
export function hasMisalignedZeros(state: CheckState, view: DataView, at: number, format: L2Format): boolean {
  const high = view.getUint32(at)
  if ((high & compressedBit) !== 0) return false
  const low = view.getUint32(at + 4)
  const zeros = format.extended ? view.getUint32(at + 12) === 0 : (low & zeroBit) !== 0
  return zeros && !isAligned(hostOf(high, low), state.geometry.clusterSize)
}

type Entry = {
  readonly high: number
  readonly low: number
  readonly bitmap: { readonly zero: number; readonly allocated: number } | undefined
  /** Of the entry in the file. */
  readonly offset: number
  /** Within its table. */
  readonly index: number
}

function checkCompressed(
  state: CheckState,
  { high, low, bitmap, offset, index }: Entry,
  format: L2Format,
  fragmentation: Fragmentation | undefined,
): void {
  const fail = (text: string): void => state.corruption('invalid-entry', text, { offset })
  const highBits = 62 - (state.geometry.clusterBits - 8) - 32
  const hostHigh = high & 0x3fffffff & (2 ** highBits - 1)
  const host = hostHigh * 2 ** 32 + low
  const exact = (BigInt(hostHigh) << 32n) | BigInt(low)
  if ((high & copiedBit) !== 0) {
    fail(`ERROR: coffset=0x${exact.toString(16)}: copied flag must never be set for compressed clusters`)
  }
  const plain = hex64(high & ~copiedBit, low)
  if (format.dataFile) {
    fail(`ERROR compressed cluster ${index} with data file, entry=0x${plain}`)
    return
  }
  if (bitmap !== undefined && (bitmap.zero !== 0 || bitmap.allocated !== 0)) {
    fail(`ERROR compressed cluster ${index} with non-zero subcluster allocation bitmap, entry=0x${plain}`)
    return
  }
  const sectors = ((high & 0x3fffffff) >>> highBits) + 1
  state.count(host, sectors * 512 - (low % 512), exact)
  if (fragmentation === undefined) return
  state.result.allocatedClusters++
  state.result.compressedClusters++
  // each one starts anywhere, and takes a read of its own
  state.result.fragmentedClusters++
}

function checkStandard(
  state: CheckState,
  { high, low, bitmap, offset }: Entry,
  format: L2Format,
  fragmentation: Fragmentation | undefined,
): void {
  const fail = (text: string): void => state.corruption('invalid-entry', text, { offset })
  const { clusterSize } = state.geometry
  if ((high & reservedHigh) !== 0 || (low & reservedLow) !== 0) {
    fail(`ERROR found l2 entry with reserved bits set: ${hex64(high, low)}`)
  }
  const host = hostOf(high, low)
  if (host === 0 && !keepsHostZero(format, high, low)) {
    if (bitmap?.allocated) fail('ERROR: Unallocated cluster has non-zero subcluster allocation map')
    return
  }
  if ((high & copiedBit) === 0) state.allCopied = false
  if (bitmap !== undefined && (bitmap.zero & bitmap.allocated) !== 0) {
    fail(`ERROR offset=${host.toString(16)}: Allocated cluster has corrupted subcluster allocation bitmap`)
  }
  if (!isAligned(host, clusterSize)) {
    const holdsData = bitmap === undefined ? (low & zeroBit) === 0 : bitmap.allocated !== 0
    const what = `${holdsData ? 'Data' : 'Preallocated'} cluster is not properly aligned; L2 entry corrupted.`
    fail(`ERROR offset=${host.toString(16)}: ${what}`)
  }
  if (fragmentation !== undefined) countPlaces(state, host / clusterSize, 1, fragmentation)
  if (!format.dataFile) state.count(host, clusterSize)
}
