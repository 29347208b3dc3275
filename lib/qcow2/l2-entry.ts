import { corrupt } from '../base/errors.js'
import { type HostOffset, hostOffset } from '../base/units.js'

/**
 * L1 and L2 entries, read and written as two 32-bit halves: bits 62 and 63 do not fit a number.
 * qcow2 spec, "Cluster mapping", "L1 table entry" and "Standard Cluster Descriptor".
 */
const copiedBit = 0x80000000
const compressedBit = 0x40000000
const zeroBit = 0x1
/** Bits 9 to 55 hold the offset: the upper half's lower 24 bits, the lower half without its lowest nine. */
const highOffsetMask = 0x00ffffff
const lowOffsetMask = 0xfffffe00
const l1ReservedHigh = 0x7f000000
const l1ReservedLow = 0x1ff
const l2ReservedHigh = 0x3f000000
const l2ReservedLow = 0x1fe
const two32 = 2 ** 32
/** A host offset at or past this is not exact in a number; no file is that long. */
const highestHostHigh = 0x1fffff

/** What an entry says about its cluster. `copied`: exactly one reference, may be written in place. */
export type L2Entry =
  /** `host`: the cluster that it has all the same; only with extended L2 entries, where other parts of the cluster may be there. */
  | { readonly type: 'unallocated'; readonly host?: HostOffset }
  /** Reads as zeros; `host`: the cluster kept for it, whose contents are garbage. */
  | { readonly type: 'zero'; readonly host: HostOffset | undefined; readonly copied: boolean }
  | { readonly type: 'normal'; readonly host: HostOffset; readonly copied: boolean }
  /** `host`: first byte of the payload, any alignment; `bytes`: an upper bound of its length. */
  | { readonly type: 'compressed'; readonly host: HostOffset; readonly bytes: number }

/** What the decoder must know of the image, and where the entry stands for messages. */
export type L2EntryRules = {
  readonly version: 2 | 3
  readonly clusterBits: number
  /** Clusters are in an external data file: offset 0 is a place like any other, if COPIED tells it from nothing. */
  readonly hasDataFile?: boolean
  /** The zero flag stands in the entry's second word. As for QEMU, bit 0 of the first then means nothing, and neither does COPIED without a cluster. */
  readonly extendedL2?: boolean
}

const unallocated: L2Entry = { type: 'unallocated' }
const zeroPlain: L2Entry = { type: 'zero', host: undefined, copied: false }

/** The entry as read-only bits, without judging it: whether it is a plain cluster that may be written in place. */
export function isWritableInPlace(high: number, low: number): boolean {
  return (high & (copiedBit | compressedBit)) === (copiedBit | 0) && (low & zeroBit) === 0
}

/** The host offset in an entry's halves. */
export function hostOf(high: number, low: number): number {
  return (high & highOffsetMask) * two32 + ((low & lowOffsetMask) >>> 0)
}

/** Where an entry's bytes begin in the file, whatever else it says; 0: nowhere. */
export function firstByteOf(high: number, low: number, clusterBits: number): number {
  if ((high & compressedBit) === 0) return hostOf(high, low)
  return compressedHostHigh(high, clusterBits) * two32 + (low >>> 0)
}

/**
 * Decode one L2 entry; of an extended one its first word, which says nothing of the cluster's parts. COMPRESSED is tested first, then ZERO, then the offset: bit 0 is payload offset in a compressed entry.
 * @param at  byte offset of the entry in the file, for the message
 * @throws ERR_CORRUPT  misaligned, beyond 2^53, or reserved bits set
 */
export function decodeL2Entry(high: number, low: number, rules: L2EntryRules, at: number): L2Entry {
  const fault = faultOfL2Entry(high, low, rules)
  if (fault !== undefined) throw corrupt('L2 entry', at, fault)
  return soundL2Entry(high, low, rules)
}

export type L2EntryKind = 'unallocated' | 'zero' | 'zero-allocated' | 'normal' | 'compressed' | 'invalid'

/** As decodeL2Entry, for who counts entries of which any number may be invalid: that is a kind here, and costs no exception. */
export function kindOfL2Entry(high: number, low: number, rules: L2EntryRules): L2EntryKind {
  if (faultOfL2Entry(high, low, rules) !== undefined) return 'invalid'
  const entry = soundL2Entry(high, low, rules)
  return entry.type === 'zero' && entry.host !== undefined ? 'zero-allocated' : entry.type
}

/** Why no image can have the entry, if none can. */
function faultOfL2Entry(high: number, low: number, rules: L2EntryRules): string | undefined {
  if (high === 0 && low === 0) return undefined
  if ((high & compressedBit) !== 0) {
    const isBeyond = compressedHostHigh(high, rules.clusterBits) > highestHostHigh
    return isBeyond ? 'compressed cluster beyond 2^53' : undefined
  }
  if ((high & l2ReservedHigh) !== 0 || (low & l2ReservedLow) !== 0) return 'reserved bits are set'
  const fault = faultOfHost(hostOf(high, low), high, rules.clusterBits)
  if (fault !== undefined || rules.extendedL2 === true) return fault
  if ((low & zeroBit) !== 0) return rules.version === 2 ? 'zero flag in a version 2 image' : undefined
  const isNowhere = hostOf(high, low) === 0 && (high & copiedBit) !== 0 && rules.hasDataFile !== true
  return isNowhere ? 'data cluster at host offset 0' : undefined
}

/** Of an entry without a fault. */
function soundL2Entry(high: number, low: number, rules: L2EntryRules): L2Entry {
  if (high === 0 && low === 0) return unallocated
  if ((high & compressedBit) !== 0) return compressedEntry(high, low, rules.clusterBits)
  const host = hostOf(high, low)
  const copied = (high & copiedBit) !== 0
  const isNowhere = host === 0 && !(rules.hasDataFile === true && copied)
  if ((low & zeroBit) !== 0 && rules.extendedL2 !== true)
    return isNowhere ? zeroPlain : { type: 'zero', host: hostOffset(host), copied }
  return isNowhere ? unallocated : { type: 'normal', host: hostOffset(host), copied }
}

function compressedEntry(high: number, low: number, clusterBits: number): L2Entry {
  const host = compressedHostHigh(high, clusterBits) * two32 + (low >>> 0)
  const extraSectors = (high & 0x3fffffff) >>> (compressedOffsetBits(clusterBits) - 32)
  return { type: 'compressed', host: hostOffset(host), bytes: (extraSectors + 1) * 512 - (host % 512) }
}

/** The upper half of a compressed cluster's host offset. */
function compressedHostHigh(high: number, clusterBits: number): number {
  return high & (2 ** (compressedOffsetBits(clusterBits) - 32) - 1) & 0x3fffffff
}

/**
 * The L2 table that an L1 entry points to, or undefined.
 * @throws ERR_CORRUPT  misaligned, beyond 2^53, or reserved bits set
 */
export function decodeL1Entry(
  high: number,
  low: number,
  clusterBits: number,
  at: number,
): { host: HostOffset; copied: boolean } | undefined {
  if (high === 0 && low === 0) return undefined
  if ((high & l1ReservedHigh) !== 0 || (low & l1ReservedLow) !== 0) {
    throw corrupt('L1 entry', at, 'reserved bits are set')
  }
  const host = hostOf(high, low)
  const fault = faultOfHost(host, high, clusterBits)
  if (fault !== undefined) throw corrupt('L1 entry', at, fault)
  if (host === 0) return undefined
  return { host: hostOffset(host), copied: (high & copiedBit) !== 0 }
}

function faultOfHost(host: number, high: number, clusterBits: number): string | undefined {
  if ((high & highOffsetMask) > highestHostHigh) return 'host offset beyond 2^53'
  return host % 2 ** clusterBits === 0
    ? undefined
    : `host offset 0x${host.toString(16)} is not cluster aligned`
}

/** Store `host` with COPIED set, as an L1 entry or as the L2 entry of a plain cluster. */
export function storeCopied(view: DataView, byteOffset: number, host: number): void {
  view.setUint32(byteOffset, (copiedBit | Math.floor(host / two32)) >>> 0)
  view.setUint32(byteOffset + 4, host % two32)
}

/** Set or clear COPIED in an L1 entry, or in the L2 entry of a cluster that is not compressed. */
export function storeCopiedFlag(view: DataView, byteOffset: number, copied: boolean): void {
  const high = view.getUint32(byteOffset)
  view.setUint32(byteOffset, (copied ? high | copiedBit : high & ~copiedBit) >>> 0)
}

/**
 * Store a compressed cluster; never COPIED. qcow2 spec, "Compressed Clusters Descriptor".
 * @param host  of the first byte  @param bytes  1 to cluster size
 */
export function storeCompressed(
  view: DataView,
  byteOffset: number,
  place: { readonly host: number; readonly bytes: number },
  clusterBits: number,
): void {
  const { host, bytes } = place
  const extraSectors = Math.floor((host + bytes - 1) / 512) - Math.floor(host / 512)
  const highBits = compressedOffsetBits(clusterBits) - 32
  view.setUint32(byteOffset, (compressedBit | (extraSectors << highBits) | Math.floor(host / two32)) >>> 0)
  view.setUint32(byteOffset + 4, host % two32)
}

/** How many bits of a compressed cluster's entry hold its host offset. */
export function compressedOffsetBits(clusterBits: number): number {
  return 62 - (clusterBits - 8)
}

/** Store an entry that reads as zeros; `host` undefined: keeps no cluster. qcow2 spec, bit 0 of the standard descriptor. */
export function storeZero(view: DataView, byteOffset: number, host: number | undefined): void {
  if (host === undefined) view.setUint32(byteOffset, 0)
  else view.setUint32(byteOffset, (copiedBit | Math.floor(host / two32)) >>> 0)
  view.setUint32(byteOffset + 4, ((host ?? 0) % two32) + zeroBit)
}

/** Store an empty entry: unallocated. */
export function storeUnallocated(view: DataView, byteOffset: number): void {
  view.setUint32(byteOffset, 0)
  view.setUint32(byteOffset + 4, 0)
}
