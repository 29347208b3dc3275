import { sectorSize } from '../../lib/base/units.js'
import { bitmapsIn } from './bitmap-walk.js'
import { Broken } from './broken.js'
import { type CompressedRange, compressedRange, compressedValues } from './compressed-clusters.js'
import type { CrashedDisk } from './disk-states.js'
import { encryptionIn } from './encryption-walk.js'
import { backingValue, garbageValue, valueAt, zeroValue } from './payload.js'

/** What does not change in any state of a workload. */
export type WalkedImage = {
  readonly clusterSize: number
  readonly refcountBits: number
  readonly version: 2 | 3
  readonly extendedL2: boolean
  /** Sectors of the backing file; 0: none. */
  readonly backingSectors: number
  readonly copied?: CopiedRule
}

/**
 * What COPIED flags must be. 'exact': set where the count is 1. 'may-lack': or clear, while a snapshot is being deleted. 'may-differ': or set where the
 * count is higher, but there is one reference: while one is being made. Set where there are two references they are never.
 */
const copiedRules = ['exact', 'may-lack', 'may-differ'] as const
export type CopiedRule = (typeof copiedRules)[number]

/** What holds where both may have happened. */
export function looser(one: CopiedRule, other: CopiedRule): CopiedRule {
  return copiedRules.indexOf(one) > copiedRules.indexOf(other) ? one : other
}

/** Where a guest cluster is: the first host sector, or one of these. */
export const unmapped = -1
export const readsZeros = -2
/** Or a compressed cluster: the first that a walk has met is here, others below. */
export const firstCompressed = -3

export const copiedBit = 0x80000000
export const compressedBit = 0x40000000
const two32 = 2 ** 32
const snapshotHeaderBytes = 40

/**
 * An independent, synchronous check of a small qcow2 image in memory: every reference is counted and compared with the refcounts, and
 * where each guest cluster lies is found on the way. Shares no code with lib/. Made once for a workload, asked for each of its states.
 * qcow2 spec, "Header", "Refcount table", "Cluster mapping".
 */
export class DiskWalk {
  /** Of the last disk walked. */
  sizeSectors = 0
  autoclear = false
  /** It says that its counts may be wrong: they are not looked at. */
  isDirty = false
  leaks = 0
  /** Of these, what lies within the file: checkers do not look behind its end. */
  leaksInFile = 0
  readonly #image: WalkedImage
  readonly #sectorsPerCluster: number
  /** What has a place of its own: a cluster, or a subcluster. */
  readonly #sectorsPerUnit: number
  readonly #l2EntryBytes: number
  readonly #l2Entries: number
  readonly #blockEntries: number
  readonly #references: Int32Array
  readonly #stored: Int32Array
  /** By guest unit: its slot in `#places`, or -1. */
  readonly slots: Int32Array
  /** By slot. */
  readonly #places: Int32Array
  #view: DataView = new DataView(new ArrayBuffer(0))
  #disk: CrashedDisk | undefined
  #clusters = 0
  /** Host clusters with a COPIED entry. */
  #copied: number[] = []
  #isExact = false
  #compressed: { readonly range: CompressedRange; values: Int32Array | undefined }[] = []

  /**
   * @param bytes     the longest that the file can be
   * @param watched   guest units (clusters, or subclusters) whose place is wanted; all others must read as zeros
   */
  constructor(image: WalkedImage, bytes: number, watched: readonly number[]) {
    this.#image = image
    this.#sectorsPerCluster = image.clusterSize / sectorSize
    this.#sectorsPerUnit = sectorsPerUnit(image)
    this.#l2EntryBytes = image.extendedL2 ? 16 : 8
    this.#l2Entries = image.clusterSize / this.#l2EntryBytes
    this.#blockEntries = (image.clusterSize * 8) / image.refcountBits
    const clusters = Math.ceil(bytes / image.clusterSize) + 1
    this.#references = new Int32Array(clusters)
    this.#stored = new Int32Array(clusters)
    this.slots = new Int32Array(Math.max(0, ...watched) + 1).fill(-1)
    watched.forEach((cluster, slot) => {
      this.slots[cluster] = slot
    })
    this.#places = new Int32Array(watched.length)
  }

  /**
   * Walk a disk.
   * @returns what is wrong with it; undefined when it is sound
   */
  walk(disk: CrashedDisk, options: { exactly?: boolean } = {}): string | undefined {
    this.#isExact = options.exactly ?? false
    this.#look(disk)
    this.#clusters = Math.ceil(disk.length / this.#image.clusterSize)
    this.#references.fill(0)
    this.#stored.fill(0)
    this.#places.fill(unmapped)
    this.leaks = 0
    this.leaksInFile = 0
    this.#compressed = []
    this.#copied = []
    try {
      this.#walkAll(disk)
      return undefined
    } catch (error) {
      if (error instanceof Broken) return error.message
      throw error
    }
  }

  /** What the guest sees at `lba` on the disk walked last: a value of payload.ts. */
  valueAt(lba: number): number {
    const slot = this.slots[Math.floor(lba / this.#sectorsPerUnit)] ?? -1
    return slot < 0 ? this.#unmappedAt(lba) : this.#valueIn(lba, this.#places[slot] as number)
  }

  /** The names of the snapshots, in the order of their table. */
  snapshotNames(disk: CrashedDisk): string[] {
    this.#look(disk)
    return snapshotHeads(this.#view).heads.map(({ name }) => name)
  }

  /** What the guest sees at these places in the snapshot number `index`. Slow. */
  snapshotValues(disk: CrashedDisk, index: number, lbas: Int32Array): number[] {
    this.#look(disk)
    const snapshot = snapshotHeads(this.#view).heads[index]
    if (snapshot === undefined) return []
    const values: number[] = []
    for (const lba of lbas) {
      const cluster = Math.floor(lba / this.#sectorsPerCluster)
      const l1Index = Math.floor(cluster / this.#l2Entries)
      const table = l1Index < snapshot.entries ? this.#hostAt(snapshot.offset + l1Index * 8) : 0
      const at = table + (cluster % this.#l2Entries) * this.#l2EntryBytes
      const place = table === 0 ? unmapped : this.#placeAt(at, lba)
      values.push(this.#valueIn(lba, place))
    }
    return values
  }

  #placeAt(at: number, lba: number): number {
    const high = this.#view.getUint32(at)
    const low = this.#view.getUint32(at + 4)
    if ((high & compressedBit) !== 0) return this.#compressedPlace(high, low)
    const host = this.#hostAt(at)
    if (this.#image.extendedL2)
      return this.#subclusterPlace(at, host, Math.floor(lba / this.#sectorsPerUnit) % 32)
    if ((low & 1) !== 0) return readsZeros
    return host === 0 ? unmapped : host / sectorSize
  }

  /** By the second word of an extended entry. qcow2 spec, "Extended L2 Entries". */
  #subclusterPlace(at: number, host: number, index: number): number {
    if (((this.#view.getUint32(at + 12) >>> index) & 1) === 1)
      return host / sectorSize + index * this.#sectorsPerUnit
    return ((this.#view.getUint32(at + 8) >>> index) & 1) === 1 ? readsZeros : unmapped
  }

  #compressedPlace(high: number, low: number): number {
    const range = compressedRange(high, low, this.#image.clusterSize)
    return firstCompressed - (this.#compressed.push({ range, values: undefined }) - 1)
  }

  #look(disk: CrashedDisk): void {
    this.#disk = disk
    if (this.#view.buffer !== disk.bytes.buffer) this.#view = new DataView(disk.bytes.buffer)
  }

  #valueIn(lba: number, place: number): number {
    if (place === unmapped) return this.#unmappedAt(lba)
    if (place === readsZeros) return zeroValue
    if (place <= firstCompressed) return this.#compressedAt(lba, firstCompressed - place)
    const host = place + (lba % this.#sectorsPerUnit)
    const disk = this.#disk as CrashedDisk
    return valueAt(lba, disk.payloadLba[host] ?? -1, disk.payloadGeneration[host] ?? 0)
  }

  #compressedAt(lba: number, index: number): number {
    const compressed = this.#compressed[index]
    if (compressed === undefined) return garbageValue
    const within = lba % this.#sectorsPerCluster
    const { bytes, length } = this.#disk as CrashedDisk
    const file = bytes.subarray(0, length)
    compressed.values ??= compressedValues(file, compressed.range, this.#image.clusterSize, lba - within)
    return compressed.values[within] ?? garbageValue
  }

  #unmappedAt(lba: number): number {
    return lba < this.#image.backingSectors ? backingValue : zeroValue
  }

  #walkAll(disk: CrashedDisk): void {
    const view = this.#view
    if (disk.length < 112) throw new Broken('the file is too short for a header')
    if (view.getUint32(0) !== 0x514649fb) throw new Broken('no magic number')
    if (view.getUint32(4) !== this.#image.version) throw new Broken('another version')
    if (2 ** view.getUint32(20) !== this.#image.clusterSize) throw new Broken('another cluster size')
    this.sizeSectors = (view.getUint32(24) * two32 + view.getUint32(28)) / sectorSize
    this.autoclear = false
    this.isDirty = false
    if (this.#image.version === 3) {
      const features = view.getUint32(76)
      this.isDirty = (features & 1) !== 0
      const known = this.#image.extendedL2 ? 0x10 : 0
      if (view.getUint32(72) !== 0 || (features & ~1) !== known) throw new Broken('an incompatible feature')
      // Bitmaps are kept up to date: bitmap-history.ts judges them.
      this.autoclear = view.getUint32(88) !== 0 || (view.getUint32(92) & ~1) !== 0
    }
    this.#count(0, 1, 'header')
    const encryption = encryptionIn(view)
    if (encryption !== undefined) this.#count(encryption.offset, encryption.bytes, 'LUKS header')
    for (const { offset, bytes, what } of bitmapsIn(view, disk.length).regions)
      this.#count(offset, bytes, what)
    this.#walkRefcounts()
    const snapshots = snapshotHeads(view)
    for (const { offset, entries } of snapshots.heads) this.#walkL1(offset, entries, false)
    if (view.getUint32(60) > 0) this.#count(this.#offsetAt(64), snapshots.length, 'snapshot table')
    this.#walkL1(this.#offsetAt(40), view.getUint32(36), true)
    for (const cluster of this.#copied) {
      const references = this.#references[cluster]
      if (references !== 1) throw new Broken(`cluster ${cluster} is COPIED and has ${references} references`)
    }
    if (this.isDirty) this.#compareDirty(snapshots.heads.length)
    else this.#compare()
  }

  #walkRefcounts(): void {
    const view = this.#view
    const { clusterSize } = this.#image
    const table = this.#offsetAt(48)
    const clusters = view.getUint32(56)
    this.#count(table, clusters * clusterSize, 'refcount table')
    const entries = (clusters * clusterSize) / 8
    for (let index = 0; index < entries; index++) {
      const high = view.getUint32(table + index * 8)
      const low = view.getUint32(table + index * 8 + 4)
      if (high === 0 && low === 0) continue
      const block = high * two32 + low
      this.#count(block, clusterSize, 'refcount block')
      this.#loadBlock(block, index * this.#blockEntries)
    }
  }

  #loadBlock(block: number, firstCluster: number): void {
    const view = this.#view
    const { refcountBits } = this.#image
    for (let index = 0; index < this.#blockEntries; index++) {
      let count: number
      if (refcountBits === 64)
        count = view.getUint32(block + index * 8 + 4) + view.getUint32(block + index * 8) * two32
      else if (refcountBits === 32) count = view.getUint32(block + index * 4)
      else if (refcountBits === 16) count = view.getUint16(block + index * 2)
      else if (refcountBits === 8) count = view.getUint8(block + index)
      else {
        const bit = index * refcountBits
        count = (view.getUint8(block + (bit >>> 3)) >>> (bit & 7)) & (2 ** refcountBits - 1)
      }
      if (count === 0) continue
      if (firstCluster + index < this.#stored.length) this.#stored[firstCluster + index] = count
      else this.leaks++
    }
  }

  #walkL1(offset: number, entries: number, isActive: boolean): void {
    const view = this.#view
    this.#count(offset, entries * 8, 'L1 table')
    for (let index = 0; index < entries; index++) {
      const high = view.getUint32(offset + index * 8)
      const low = view.getUint32(offset + index * 8 + 4)
      if (high === 0 && low === 0) continue
      if ((high & 0x7f000000) !== 0 || (low & 0x1ff) !== 0)
        throw new Broken(`reserved bits in L1 entry ${index}`)
      const table = (high & 0xffffff) * two32 + low
      this.#count(table, this.#image.clusterSize, 'L2 table')
      if (isActive) this.#compareCopied(high, table, 'L1', index)
      this.#walkL2(table, index * this.#l2Entries, isActive)
    }
  }

  #walkL2(table: number, firstGuest: number, isActive: boolean): void {
    const view = this.#view
    const { clusterSize } = this.#image
    for (let index = 0; index < this.#l2Entries; index++) {
      const at = table + index * this.#l2EntryBytes
      const high = view.getUint32(at)
      const low = view.getUint32(at + 4)
      const guest = firstGuest + index
      if (this.#image.extendedL2) {
        this.#walkExtended(at, guest, isActive)
        continue
      }
      if (high === 0 && low === 0) continue
      if ((high & compressedBit) !== 0) {
        this.#walkCompressed(high, low, guest, isActive)
        continue
      }
      if ((high & 0x7f000000) !== 0 || (low & 0x1fe) !== 0)
        throw new Broken(`reserved bits in L2 entry of guest cluster ${guest}`)
      const isZero = (low & 1) !== 0
      if (isZero && this.#image.version === 2) throw new Broken(`a zero flag, which version 2 has not`)
      const host = (high & 0xffffff) * two32 + (low & 0xfffffe00) + ((low & 0xfffffe00) < 0 ? two32 : 0)
      if (host !== 0) {
        this.#count(host, clusterSize, 'data')
        if (isActive) this.#compareCopied(high, host, 'L2', guest)
      } else if (!isZero) throw new Broken(`COPIED without a cluster: guest cluster ${guest}`)
      if (isActive) this.#place(guest, isZero ? readsZeros : host / sectorSize)
    }
  }

  #walkExtended(at: number, guest: number, isActive: boolean): void {
    const view = this.#view
    const [high, low] = [view.getUint32(at), view.getUint32(at + 4)]
    const [zero, allocated] = [view.getUint32(at + 8), view.getUint32(at + 12)]
    if ((high & compressedBit) !== 0) {
      if (zero !== 0 || allocated !== 0)
        throw new Broken(`subclusters of the compressed guest cluster ${guest}`)
      this.#walkCompressed(high, low, guest, isActive)
      return
    }
    if ((high & 0x7f000000) !== 0 || (low & 0x1ff) !== 0)
      throw new Broken(`reserved bits in L2 entry of guest cluster ${guest}`)
    if ((zero & allocated) !== 0) throw new Broken(`subclusters of guest cluster ${guest} are in two states`)
    const host = this.#hostAt(at)
    if (host !== 0) {
      this.#count(host, this.#image.clusterSize, 'data')
      if (isActive) this.#compareCopied(high, host, 'L2', guest)
    } else if (high !== 0 || allocated !== 0)
      throw new Broken(`no cluster for what guest cluster ${guest} has`)
    for (let index = 0; isActive && index < 32; index++) {
      const place = this.#subclusterPlace(at, host, index)
      if (place !== unmapped) this.#place(guest * 32 + index, place)
    }
  }

  #walkCompressed(high: number, low: number, guest: number, isActive: boolean): void {
    const { clusterSize } = this.#image
    if ((high & copiedBit) !== 0) throw new Broken(`COPIED on the compressed guest cluster ${guest}`)
    const { offset, length } = compressedRange(high, low, clusterSize)
    const within = offset % clusterSize
    this.#count(offset - within, within + length, 'compressed data')
    const place = this.#compressedPlace(high, low)
    const units = this.#sectorsPerCluster / this.#sectorsPerUnit
    for (let index = 0; isActive && index < units; index++) this.#place(guest * units + index, place)
  }

  /** @param unit  of the guest */
  #place(unit: number, place: number): void {
    const isBehindEnd = unit * this.#sectorsPerUnit >= this.sizeSectors
    const slot = this.slots[unit] ?? -1
    if (slot >= 0 && !isBehindEnd) {
      this.#places[slot] = place
      return
    }
    // Of the last cluster of the disk what is behind the end stays until the disk grows, which makes it zeros.
    const cluster = Math.floor((unit * this.#sectorsPerUnit) / this.#sectorsPerCluster)
    if (isBehindEnd && cluster * this.#sectorsPerCluster < this.sizeSectors) return
    for (let step = 0; step < this.#sectorsPerUnit; step++) {
      const lba = unit * this.#sectorsPerUnit + step
      if (this.#valueIn(lba, place) === zeroValue) continue
      // Behind the end nobody reads it now; but growing the disk again would show it.
      throw new Broken(
        `lba ${lba} is not zeros, ${isBehindEnd ? 'behind the end of the disk' : 'which nobody has touched'}`,
      )
    }
  }

  /** Count references to the clusters of a range. What begins behind the end of the file cannot be referred to. */
  #count(offset: number, bytes: number, what: string): void {
    const { clusterSize } = this.#image
    if (bytes === 0) return
    if (offset % clusterSize !== 0) throw new Broken(`${what} at ${offset} is not aligned`)
    const end = Math.ceil((offset + bytes) / clusterSize)
    if (end > this.#clusters)
      throw new Broken(`${what} at ${offset} is behind the end of the file, ${this.#disk?.length ?? 0}`)
    for (let cluster = offset / clusterSize; cluster < end; cluster++) {
      this.#references[cluster] = (this.#references[cluster] as number) + 1
    }
  }

  #compareCopied(high: number, host: number, level: string, index: number): void {
    const cluster = host / this.#image.clusterSize
    const count = this.#stored[cluster]
    const isCopied = (high & copiedBit) !== 0
    if (isCopied) this.#copied.push(cluster)
    if (this.isDirty || isCopied === (count === 1)) return
    const rule = this.#isExact ? 'exact' : (this.#image.copied ?? 'exact')
    if (rule !== 'exact' && !isCopied) return
    if (rule === 'may-differ') return
    throw new Broken(
      `${level} entry ${index} has COPIED=${Number(isCopied)}, and its cluster refcount ${count}`,
    )
  }

  /** Counts are wrong, but whoever makes them anew must not find two owners of a cluster: nothing was shared on purpose. */
  #compareDirty(snapshots: number): void {
    // Where there is no file nobody makes them anew.
    for (let cluster = this.#clusters; cluster < this.#stored.length; cluster++) {
      if (this.#stored[cluster] !== 0) this.leaks++
    }
    if (snapshots > 0 || this.#compressed.length > 0) return
    const cluster = this.#references.findIndex((count) => count > 1)
    if (cluster >= 0) throw new Broken(`cluster ${cluster} has ${this.#references[cluster]} owners`)
  }

  #compare(): void {
    const references = this.#references
    const stored = this.#stored
    for (let cluster = 0; cluster < references.length; cluster++) {
      const difference = (stored[cluster] as number) - (references[cluster] as number)
      if (difference === 0) continue
      if (difference < 0) {
        throw new Broken(
          `cluster ${cluster} has refcount ${stored[cluster]} and ${references[cluster]} references`,
        )
      }
      this.leaks++
      if (cluster < this.#clusters) this.leaksInFile++
    }
  }

  #offsetAt(at: number): number {
    return offsetAt(this.#view, at)
  }

  #hostAt(at: number): number {
    const low = this.#view.getUint32(at + 4)
    return (this.#view.getUint32(at) & 0xffffff) * two32 + low - (low % sectorSize)
  }
}

/** Sectors of what has a place of its own. */
export function sectorsPerUnit(image: Pick<WalkedImage, 'clusterSize' | 'extendedL2'>): number {
  return image.clusterSize / sectorSize / (image.extendedL2 ? 32 : 1)
}

/** The L1 tables of the snapshots, and the length of their table in bytes. qcow2 spec, "Snapshots". */
export function snapshotHeads(view: DataView): {
  heads: { offset: number; entries: number; name: string }[]
  length: number
} {
  const heads: { offset: number; entries: number; name: string }[] = []
  const start = offsetAt(view, 64)
  let at = start
  for (let left = view.getUint32(60); left > 0; left--) {
    if (at + snapshotHeaderBytes > view.byteLength)
      throw new Broken('the snapshot table ends behind the file')
    const nameAt = at + snapshotHeaderBytes + view.getUint32(at + 36) + view.getUint16(at + 12)
    const end = nameAt + view.getUint16(at + 14)
    if (end > view.byteLength) throw new Broken('the snapshot table ends behind the file')
    const name = Buffer.from(view.buffer, nameAt, end - nameAt).toString()
    heads.push({ offset: offsetAt(view, at), entries: view.getUint32(at + 8), name })
    at = start + Math.ceil((end - start) / 8) * 8
  }
  return { heads, length: at - start }
}

function offsetAt(view: DataView, at: number): number {
  return view.getUint32(at) * two32 + view.getUint32(at + 4)
}
