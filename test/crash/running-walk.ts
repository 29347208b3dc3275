import { sectorSize } from '../../lib/base/units.js'
import { ChangedSectors } from './changed-sectors.js'
import { ClusterSums } from './cluster-sums.js'
import type { CrashedDisk } from './disk-states.js'
import {
  compressedBit,
  copiedBit,
  readsZeros,
  sectorsPerUnit,
  snapshotHeads,
  unmapped,
  type WalkedImage,
} from './disk-walk.js'
import { encryptionIn } from './encryption-walk.js'
import { zeroPayload } from './payload.js'
import { giveBytes, takeBytes } from './spare-bytes.js'

/** What a host sector holds, as far as a change of it can be followed without walking the image anew. */
const data = 0
const counts = 1
const mappings = 2
const others = 3

const two32 = 2 ** 32

/**
 * The walk of disk-walk.ts for disks that differ from the last one in a few sectors: what counts and L2 entries say is kept, and only
 * what has changed is looked at again. It says 'sound' only; when it is not sure, or anything else has changed, the other walk decides.
 */
export class RunningWalk {
  sizeSectors = 0
  /** By slot: where the guest unit is; see disk-walk.ts. */
  readonly places: Int32Array
  /** Slots whose place or bytes may have changed since `clearSlots`. */
  readonly changedSlots: ChangedSectors
  /** Whether anything that snapshots show may have changed since this was made false. */
  snapshotsChanged = true
  readonly #image: WalkedImage
  readonly #sectorsPerCluster: number
  /** What has a place of its own: a cluster, or a subcluster. */
  readonly #sectorsPerUnit: number
  readonly #l2EntryBytes: number
  readonly #slots: Int32Array
  readonly #view: DataView
  readonly #words: Int32Array
  /** Sectors of counts and mappings as they are counted in here. */
  readonly #knownBytes: Uint8Array<ArrayBuffer>
  readonly #known: DataView
  readonly #knownWords: Int32Array
  /** By sector. */
  readonly #holds: Uint8Array
  /** By sector: the first cluster that it counts, or the first guest cluster that it maps. */
  readonly #first: Int32Array
  readonly #sums: ClusterSums
  /** By host unit: the slot that is mapped to it, plus 1. */
  readonly #owner: Int32Array
  /** Whether snapshots have bytes there. */
  readonly #frozen: Uint8Array
  /** Guest units whose place nobody asks for; what is there must be zeros. */
  readonly #unwatched = new Map<number, number>()
  /** Entries that are wrong. */
  #wrong = 0
  #isKnown = false

  /** @param slots  by guest unit: its slot, or -1 */
  constructor(image: WalkedImage, disk: CrashedDisk, slots: Int32Array, watched: number) {
    const sectors = disk.bytes.length / sectorSize
    const clusters = Math.ceil(disk.bytes.length / image.clusterSize) + 1
    this.#image = image
    this.#sectorsPerCluster = image.clusterSize / sectorSize
    this.#sectorsPerUnit = sectorsPerUnit(image)
    this.#l2EntryBytes = image.extendedL2 ? 16 : 8
    this.#slots = slots
    this.places = new Int32Array(watched)
    this.changedSlots = new ChangedSectors(watched)
    this.#view = new DataView(disk.bytes.buffer)
    this.#words = new Int32Array(disk.bytes.buffer)
    this.#knownBytes = takeBytes(disk.bytes.length)
    this.#known = new DataView(this.#knownBytes.buffer)
    this.#knownWords = new Int32Array(this.#knownBytes.buffer)
    this.#holds = new Uint8Array(sectors)
    this.#first = new Int32Array(sectors)
    this.#sums = new ClusterSums(clusters)
    this.#owner = new Int32Array((clusters * this.#sectorsPerCluster) / this.#sectorsPerUnit)
    this.#frozen = new Uint8Array(clusters)
  }

  get leaks(): number {
    return this.#sums.leaks
  }

  get leaksInFile(): number {
    return this.#sums.leaksInFile
  }

  /**
   * Follow what has changed.
   * @returns whether the disk is surely sound, but for what the guest sees
   */
  follow(disk: CrashedDisk): boolean {
    const { changes } = disk
    if (this.#isKnown && this.#followChanges(disk, changes)) changes.clear()
    else {
      changes.clear()
      this.#isKnown = this.#lookAtAll(disk)
    }
    const isSound = this.#isKnown && this.#wrong + this.#sums.wrong === 0 && this.#unwatchedAreZeros(disk)
    // What is not sound is looked at by the other walk, and from the beginning the next time.
    this.#isKnown = isSound
    return isSound
  }

  /** It will not be asked any more. */
  end(): void {
    giveBytes(this.#knownBytes)
  }

  /** @returns false: it has to be looked at as a whole */
  #followChanges(disk: CrashedDisk, { sectors, count }: ChangedSectors): boolean {
    for (let index = 0; index < count; index++)
      if (this.#holds[sectors[index] as number] === others) return false
    for (let index = 0; index < count; index++) {
      const sector = sectors[index] as number
      const holds = this.#holds[sector]
      if (holds === counts) this.#countsChanged(sector)
      else if (holds === mappings) this.#mappingsChanged(sector)
      const cluster = Math.floor(sector / this.#sectorsPerCluster)
      const owner = this.#owner[Math.floor(sector / this.#sectorsPerUnit)] as number
      if (owner > 0) this.changedSlots.add(owner - 1)
      if (this.#frozen[cluster] !== 0) this.snapshotsChanged = true
    }
    this.#sums.setInFile(Math.ceil(disk.length / this.#image.clusterSize))
    return true
  }

  #countsChanged(sector: number): void {
    const { refcountBits } = this.#image
    const at = sector * sectorSize
    const first = this.#first[sector] as number
    const perByte = refcountBits >= 8 ? 1 : 8 / refcountBits
    const bytesEach = Math.max(1, refcountBits / 8)
    for (let byte = 0; byte < sectorSize; byte += 4) {
      if (this.#words[(at + byte) / 4] === this.#knownWords[(at + byte) / 4]) continue
      const width = Math.max(4, bytesEach)
      const from = byte - (byte % width)
      for (let one = from; one < from + width; one += bytesEach) {
        for (let part = 0; part < perByte; part++) {
          const index = (one / bytesEach) * perByte + part
          this.#sums.count(first + index, this.#countAt(this.#known, at, index), -1)
          this.#sums.count(first + index, this.#countAt(this.#view, at, index), 1)
        }
      }
      for (let word = (at + from) / 4; word < (at + from + width) / 4; word++) {
        this.#knownWords[word] = this.#words[word] as number
      }
    }
  }

  #countAt(view: DataView, at: number, index: number): number {
    const { refcountBits } = this.#image
    if (refcountBits === 16) return view.getUint16(at + index * 2)
    if (refcountBits === 64)
      return view.getUint32(at + index * 8) * two32 + view.getUint32(at + index * 8 + 4)
    if (refcountBits === 32) return view.getUint32(at + index * 4)
    if (refcountBits === 8) return view.getUint8(at + index)
    const bit = index * refcountBits
    return (view.getUint8(at + (bit >>> 3)) >>> (bit & 7)) & (2 ** refcountBits - 1)
  }

  #mappingsChanged(sector: number): void {
    const words = this.#l2EntryBytes / 4
    const first = (sector * sectorSize) / 4
    let guest = this.#first[sector] as number
    for (let word = first; word < first + sectorSize / 4; word += words, guest++) {
      if (!this.#hasChanged(word, words)) continue
      this.#entry(this.#known, word * 4, guest, -1)
      this.#entry(this.#view, word * 4, guest, 1)
      for (let step = 0; step < words; step++)
        this.#knownWords[word + step] = this.#words[word + step] as number
    }
  }

  #hasChanged(word: number, words: number): boolean {
    for (let step = 0; step < words; step++)
      if (this.#words[word + step] !== this.#knownWords[word + step]) return true
    return false
  }

  /** An active L2 entry comes or goes. */
  #entry(view: DataView, at: number, guest: number, sign: 1 | -1): void {
    const high = view.getUint32(at)
    const low = view.getUint32(at + 4)
    if (this.#image.extendedL2) {
      this.#extendedEntry(
        { high, low, zero: view.getUint32(at + 8), allocated: view.getUint32(at + 12) },
        guest,
        sign,
      )
      return
    }
    if (high === 0 && low === 0) return
    const { clusterSize, version } = this.#image
    if ((high & compressedBit) !== 0) {
      // They share clusters, and sectors: the other walk looks into them.
      this.#wrong += sign
      return
    }
    const isZero = (low & 1) !== 0
    const host = (high & 0xffffff) * two32 + ((low & 0xfffffe00) >>> 0)
    const isOdd = (high & 0x7f000000) !== 0 || (low & 0x1fe) !== 0 || host % clusterSize !== 0
    if (isOdd || (isZero && version === 2) || (!isZero && host === 0)) {
      this.#wrong += sign
      return
    }
    if (host !== 0) {
      this.#sums.refer(host / clusterSize, sign, (high & copiedBit) !== 0)
    }
    this.#place(guest, isZero ? readsZeros : host / sectorSize, sign)
  }

  /** As `#entry`, with both words. qcow2 spec, "Extended L2 Entries". */
  #extendedEntry({ high, low, zero, allocated }: ExtendedWords, guest: number, sign: 1 | -1): void {
    const host = soundHost({ high, low, zero, allocated }, this.#image.clusterSize)
    if (host === undefined) {
      this.#wrong += sign
      return
    }
    if (host !== 0) this.#sums.refer(host / this.#image.clusterSize, sign, (high & copiedBit) !== 0)
    for (let index = 0; index < 32; index++) {
      const unit = guest * 32 + index
      if (((allocated >>> index) & 1) === 1) {
        this.#place(unit, host / sectorSize + index * this.#sectorsPerUnit, sign)
      } else if (((zero >>> index) & 1) === 1) this.#place(unit, readsZeros, sign)
    }
  }

  /** @param unit  of the guest */
  #place(unit: number, place: number, sign: 1 | -1): void {
    const slot = this.#slots[unit] ?? -1
    const isBehindEnd = unit * this.#sectorsPerUnit >= this.sizeSectors
    if (slot < 0 || isBehindEnd) {
      const cluster = Math.floor((unit * this.#sectorsPerUnit) / this.#sectorsPerCluster)
      // Of the last cluster of the disk what is behind the end stays until the disk grows.
      if (isBehindEnd && cluster * this.#sectorsPerCluster < this.sizeSectors) return
      if (sign > 0) this.#unwatched.set(unit, place)
      else this.#unwatched.delete(unit)
      return
    }
    this.places[slot] = sign > 0 ? place : unmapped
    this.changedSlots.add(slot)
    const owned = place >= 0 ? Math.floor(place / this.#sectorsPerUnit) : -1
    if (owned < 0 || owned >= this.#owner.length) return
    if (sign > 0) this.#owner[owned] = slot + 1
    else if (this.#owner[owned] === slot + 1) this.#owner[owned] = 0
  }

  #unwatchedAreZeros(disk: CrashedDisk): boolean {
    for (const place of this.#unwatched.values()) {
      if (place === readsZeros) continue
      for (let host = place; host < place + this.#sectorsPerUnit; host++) {
        if (disk.payloadLba[host] !== zeroPayload.lba) return false
      }
    }
    return true
  }

  /** @returns false: the other walk has to say what is wrong, or whether anything is */
  #lookAtAll(disk: CrashedDisk): boolean {
    const { clusterSize, version } = this.#image
    const view = this.#view
    if (disk.length < 112 || view.getUint32(0) !== 0x514649fb || view.getUint32(4) !== version) return false
    if (2 ** view.getUint32(20) !== clusterSize) return false
    const features = [72, 76, 88, 92]
    const known = this.#image.extendedL2 ? 0x10 : 0
    if (version === 3 && features.some((at) => view.getUint32(at) !== (at === 76 ? known : 0))) return false
    this.sizeSectors = (view.getUint32(24) * two32 + view.getUint32(28)) / sectorSize
    this.#forget(Math.ceil(disk.length / clusterSize))
    this.#fixed(0, clusterSize)
    const encryption = encryptionIn(view)
    if (encryption !== undefined) this.#fixed(encryption.offset, encryption.bytes)
    this.#refcounts()
    const snapshots = snapshotHeads(view)
    for (const { offset, entries } of snapshots.heads) this.#frozenL1(offset, entries)
    this.#fixed(view.getUint32(64) * two32 + view.getUint32(68), snapshots.length)
    this.#activeL1(view.getUint32(40) * two32 + view.getUint32(44), view.getUint32(36))
    return true
  }

  #forget(clusters: number): void {
    this.#sums.forget(clusters)
    this.#owner.fill(0)
    this.#frozen.fill(0)
    this.#holds.fill(data)
    this.places.fill(unmapped)
    for (let slot = 0; slot < this.places.length; slot++) this.changedSlots.add(slot)
    this.#unwatched.clear()
    this.snapshotsChanged = true
    this.#wrong = 0
  }

  /** Metadata whose changes are not followed. */
  #fixed(offset: number, bytes: number): void {
    const { clusterSize } = this.#image
    if (bytes === 0) return
    if (offset % clusterSize !== 0) this.#wrong++
    for (let cluster = Math.floor(offset / clusterSize); cluster * clusterSize < offset + bytes; cluster++) {
      this.#sums.refer(cluster, 1)
    }
    this.#hold(offset, Math.ceil((offset + bytes) / sectorSize) - offset / sectorSize, others)
  }

  /** What holds two things is not followed. */
  #hold(offset: number, sectors: number, holds: number): void {
    const first = Math.floor(offset / sectorSize)
    for (let sector = first; sector < first + sectors && sector < this.#holds.length; sector++) {
      this.#holds[sector] = this.#holds[sector] === data ? holds : others
    }
  }

  #refcounts(): void {
    const { clusterSize, refcountBits } = this.#image
    const view = this.#view
    const table = view.getUint32(48) * two32 + view.getUint32(52)
    const bytes = view.getUint32(56) * clusterSize
    this.#fixed(table, bytes)
    if (this.#wrong > 0) return
    for (let at = table, first = 0; at < table + bytes; at += 8, first += (clusterSize * 8) / refcountBits) {
      const block = view.getUint32(at) * two32 + view.getUint32(at + 4)
      if (block === 0) continue
      if (block % clusterSize !== 0 || !this.#isInFile(block)) {
        this.#wrong++
        return
      }
      this.#sums.refer(block / clusterSize, 1)
      this.#hold(block, this.#sectorsPerCluster, counts)
      for (let step = 0; step < this.#sectorsPerCluster; step++) {
        const sector = block / sectorSize + step
        this.#first[sector] = first + step * ((sectorSize * 8) / refcountBits)
        this.#blank(sector)
        this.#countsChanged(sector)
      }
    }
  }

  #frozenL1(offset: number, entries: number): void {
    const { clusterSize } = this.#image
    this.#fixed(offset, entries * 8)
    if (this.#wrong > 0) return
    for (let at = offset; at < offset + entries * 8; at += 8) {
      const table = this.#tableAt(at)
      if (table === 0) continue
      if (table < 0) return
      this.#hold(table, this.#sectorsPerCluster, others)
      for (let entry = table; entry < table + clusterSize; entry += this.#l2EntryBytes)
        this.#frozenEntry(entry)
    }
  }

  #frozenEntry(at: number): void {
    const high = this.#view.getUint32(at)
    const low = this.#view.getUint32(at + 4)
    if (this.#image.extendedL2) {
      const second = { zero: this.#view.getUint32(at + 8), allocated: this.#view.getUint32(at + 12) }
      if (soundHost({ high, low, ...second }, this.#image.clusterSize) === undefined) this.#wrong++
    }
    if (high === 0 && low === 0) return
    const host = (high & 0xffffff) * two32 + ((low & 0xfffffe00) >>> 0)
    if ((high & 0x7f000000) !== 0 || host % this.#image.clusterSize !== 0) {
      this.#wrong++
      return
    }
    if (host === 0) return
    this.#sums.refer(host / this.#image.clusterSize, 1)
    this.#frozen[host / this.#image.clusterSize] = 1
  }

  #activeL1(offset: number, entries: number): void {
    const { clusterSize } = this.#image
    this.#fixed(offset, entries * 8)
    if (this.#wrong > 0) return
    for (let index = 0; index < entries; index++) {
      const isCopied = (this.#view.getUint32(offset + index * 8) & copiedBit) !== 0
      const table = this.#tableAt(offset + index * 8, isCopied)
      if (table === 0) continue
      if (table < 0) return
      this.#hold(table, this.#sectorsPerCluster, mappings)
      for (let step = 0; step < this.#sectorsPerCluster; step++) {
        const sector = table / sectorSize + step
        this.#first[sector] = (index * clusterSize + step * sectorSize) / this.#l2EntryBytes
        this.#blank(sector)
        this.#mappingsChanged(sector)
      }
    }
  }

  /** The L2 table that an L1 entry names; 0: none, -1: not one that can be read. */
  #tableAt(at: number, copied?: boolean): number {
    const high = this.#view.getUint32(at)
    const low = this.#view.getUint32(at + 4)
    if (high === 0 && low === 0) return 0
    const table = (high & 0xffffff) * two32 + low
    const { clusterSize } = this.#image
    if ((high & 0x7f000000) !== 0 || table % clusterSize !== 0 || table === 0 || !this.#isInFile(table)) {
      this.#wrong++
      return -1
    }
    this.#sums.refer(table / clusterSize, 1, copied)
    return table
  }

  #isInFile(offset: number): boolean {
    return offset / this.#image.clusterSize < this.#sums.inFile
  }

  #blank(sector: number): void {
    this.#knownWords.fill(0, (sector * sectorSize) / 4, ((sector + 1) * sectorSize) / 4)
  }
}

type ExtendedWords = {
  readonly high: number
  readonly low: number
  readonly zero: number
  readonly allocated: number
}

/** The host offset of an extended entry, 0 for none; undefined: it is compressed or unsound, which the other walk tells apart. */
function soundHost({ high, low, zero, allocated }: ExtendedWords, clusterSize: number): number | undefined {
  const host = (high & 0xffffff) * two32 + ((low & 0xfffffe00) >>> 0)
  const isOdd = (high & 0x7f000000) !== 0 || (low & 0x1ff) !== 0 || host % clusterSize !== 0
  const hasTwoStates = (zero & allocated) !== 0
  const lacksCluster = host === 0 && (high !== 0 || allocated !== 0)
  return isOdd || hasTwoStates || lacksCluster ? undefined : host
}
