import { assert } from '../../lib/base/assert.js'
import { sectorSize } from '../../lib/base/units.js'
import type { ChangedSectors } from './changed-sectors.js'
import type { DeviceLog, LoggedWrite } from './device-log.js'
import { noPayload, type Payload } from './payload.js'
import type { PayloadReader } from './payload-reader.js'

/** The disk in one state, with what each sector's payload is. Changed in place from state to state. */
export type CrashedDisk = {
  /** Whole sectors, up to the longest that the file can be; zeros behind `length`. */
  readonly bytes: Uint8Array
  /** By host sector: see Payload. */
  readonly payloadLba: Int32Array
  readonly payloadGeneration: Int32Array
  /** Bytes of the file. */
  length: number
  /** Since somebody has looked at it. */
  readonly changes: ChangedSectors
}

/**
 * What may be there or not, on its own: one sector of a metadata write, or all of a data write, of which also any part may be there.
 * `radix` 2: absent or there; 3: also torn.
 */
export type Atom = {
  readonly write: LoggedWrite
  radix: 2 | 3
  readonly places: Place[]
  /** Host cluster of its first byte, for classes. */
  readonly offset: number
}

/** A sector that the crash decides about. Its newest version that is there shows. */
type Place = {
  readonly sector: number
  /** As it surely is. */
  readonly base: Uint8Array
  readonly versions: Version[]
}

type Version = {
  readonly atom: number
  /** Undefined: zeros. */
  readonly bytes: Uint8Array | undefined
  readonly payload: Payload
  /** Equal for equal bytes at this place; 0: as it surely is. */
  readonly content: number
  inTear: boolean
}

/** What a write does to the file's length. `atom` -1: nothing else. */
type Stretch = { readonly atom: number; readonly kind: 'extend' | 'set'; readonly length: number }

export const absent = 0
export const present = 1
export const torn = 2

/**
 * All disks that a crash at one time can leave, as combinations of atoms. `choose` moves from one to the next.
 * A sector is there as a whole or not at all; what was submitted later never loses against what had ended before it.
 */
export class DiskStates {
  readonly disk: CrashedDisk
  readonly atoms: Atom[] = []
  /** By atom: absent, present, torn. */
  chosen: Uint8Array = new Uint8Array(0)
  /** Whether the file's length may run ahead of what is in it. */
  readonly lengthVaries: boolean
  /** The length as far as any submitted write has asked for, instead of as far as what is there. */
  longest = false
  readonly #base: CrashedDisk
  readonly #reader: PayloadReader
  readonly #stretches: Stretch[] = []
  /** By sector: the number of the content that shows. */
  readonly #contentShown: number[] = []
  #hashLow = 0
  #hashHigh = 0

  /**
   * @param base     what is durable at `time`
   * @param working  the same once more, to be changed
   */
  constructor(
    base: CrashedDisk,
    working: CrashedDisk,
    { log, reader }: { readonly log: DeviceLog; readonly reader: PayloadReader },
    time: number,
    lastDurable: Int32Array,
  ) {
    this.#base = base
    this.#reader = reader
    this.disk = working
    const places = new Map<number, Place>()
    for (const write of log.writes) {
      if (write.submitted > time || write.durable <= time) continue
      this.#add(write, places, lastDurable)
    }
    this.chosen = new Uint8Array(this.atoms.length)
    this.longest = true
    const longest = this.#length()
    this.longest = false
    this.lengthVaries = this.#length() !== longest || this.#stretches.some(({ kind }) => kind === 'set')
  }

  /** How many combinations there are, at least. */
  get count(): number {
    let count = this.lengthVaries ? 2 : 1
    for (const { radix } of this.atoms) count *= radix
    return count
  }

  /** Make the disk what is durable again, and leave it to others. */
  leave(): void {
    for (let atom = 0; atom < this.atoms.length; atom++) this.choose(atom, absent)
    this.disk.length = this.#base.length
  }

  choose(atom: number, choice: number): void {
    if (this.chosen[atom] === choice) return
    this.chosen[atom] = choice
    for (const place of this.#atom(atom).places) this.#show(place)
  }

  /** Which sectors of an atom are there when it is torn: not none, not all. */
  tear(atom: number, isThere: (step: number) => boolean): void {
    const { places } = this.#atom(atom)
    places.forEach((place, step) => {
      for (const version of place.versions) if (version.atom === atom) version.inTear = isThere(step)
    })
    if (this.chosen[atom] === torn) for (const place of places) this.#show(place)
  }

  /** Make the disk's length what it is for this choice. To be called before the disk is looked at. */
  settleLength(): void {
    this.disk.length = this.#length()
  }

  /** When the newest write of which anything is there was submitted. */
  newestPresent(): number {
    for (let atom = this.atoms.length - 1; atom >= 0; atom--) {
      if (this.chosen[atom] !== absent) return this.#atom(atom).write.submitted
    }
    return -1
  }

  /** Equal for equal disks, different for nearly all others. */
  signature(): number {
    const length = Math.imul(this.disk.length, 0x27d4eb2f) >>> 0
    return (this.#hashHigh >>> 11) * 2 ** 32 + ((this.#hashLow ^ length) >>> 0)
  }

  /** The choice as text, to be chosen again. */
  describe(): string {
    const tears = this.atoms.map((atom, index) => {
      const choice = this.chosen[index] ?? absent
      if (choice !== torn) return String(choice)
      const mask = atom.places.map(({ versions }) => {
        return versions.some((version) => version.atom === index && version.inTear) ? '1' : '0'
      })
      return `[${mask.join('')}]`
    })
    return `${this.longest ? 'L' : 'S'}${tears.join('')}`
  }

  /** The reverse of `describe`. */
  chooseDescribed(text: string): void {
    this.longest = text.startsWith('L')
    const parts = text.slice(1).match(/\[[01]+\]|[01]/g) ?? []
    assert(parts.length === this.atoms.length, 'the text is of this crash point')
    parts.forEach((part, index) => {
      if (part.startsWith('[')) {
        this.tear(index, (step) => part[step + 1] === '1')
        this.choose(index, torn)
      } else this.choose(index, Number(part))
    })
  }

  #atom(index: number): Atom {
    const atom = this.atoms[index]
    assert(atom !== undefined, 'an atom of this point')
    return atom
  }

  #add(write: LoggedWrite, places: Map<number, Place>, lastDurable: Int32Array): void {
    const { kind, offset } = write
    const first = kind === 'truncate' ? Math.ceil(offset / sectorSize) : write.sectors.first
    const end = Math.ceil((offset + write.length) / sectorSize)
    const last = kind === 'truncate' ? this.disk.payloadLba.length : end
    let group: Atom | undefined
    let groupIndex = -1
    if (kind === 'truncate') {
      group = { write, radix: 2, places: [], offset }
      groupIndex = this.atoms.push(group) - 1
    }
    for (let sector = first; sector < last && kind !== 'allocate'; sector++) {
      // A failed write that was repeated, and that repeated write is there for good.
      if ((lastDurable[sector] ?? -1) > write.submitted) continue
      const bytes =
        kind === 'write'
          ? write.sectors.bytes.subarray((sector - first) * sectorSize, (sector - first + 1) * sectorSize)
          : undefined
      const place = places.get(sector) ?? this.#placeOf(sector)
      const content = this.#contentOf(place, bytes)
      if (content === 0 && place.versions.length === 0) continue
      if (
        write.isNode &&
        content !== undefined &&
        place.versions.every(({ atom }) => this.#atom(atom).write.isNode)
      )
        continue
      places.set(sector, place)
      if (write.isNode || group === undefined) {
        group = { write, radix: 2, places: [], offset: sector * sectorSize }
        groupIndex = this.atoms.push(group) - 1
        if (write.isNode) {
          this.#stretches.push({ atom: groupIndex, kind: 'extend', length: (sector + 1) * sectorSize })
        }
      }
      group.places.push(place)
      const payload = this.#payloadOf(write, sector)
      const newContent = Math.max(0, ...place.versions.map((version) => version.content)) + 1
      place.versions.push({
        atom: groupIndex,
        bytes,
        payload,
        content: content ?? newContent,
        inTear: false,
      })
    }
    if (kind === 'truncate') {
      // One that failed may have happened, but not any more once something behind it is there for good.
      const newer = lastDurable.findLastIndex((submitted) => submitted > write.submitted)
      this.#stretches.push({
        atom: groupIndex,
        kind: 'set',
        length: Math.max(offset, (newer + 1) * sectorSize),
      })
    }
    if (kind !== 'truncate' && kind !== 'punch') {
      this.#stretches.push({
        atom: write.isNode ? -1 : groupIndex,
        kind: 'extend',
        length: offset + write.length,
      })
    }
    if (group !== undefined && !write.isNode && group.places.length > 1 && kind !== 'truncate') {
      group.radix = 3
      this.tear(groupIndex, (step) => step === 0)
    }
  }

  #placeOf(sector: number): Place {
    const base = this.#base.bytes.subarray(sector * sectorSize, (sector + 1) * sectorSize)
    return { sector, base, versions: [] }
  }

  #payloadOf({ kind, isNode, sectors }: LoggedWrite, sector: number): Payload {
    if (kind !== 'write') return this.#reader.ofZeros
    return (
      (isNode ? undefined : this.#reader.of(sectors.bytes, sectors.first)[sector - sectors.first]) ??
      noPayload
    )
  }

  /** The number of equal bytes among what the place may show; undefined: new ones. */
  #contentOf(place: Place, bytes: Uint8Array | undefined): number | undefined {
    if (sameSector(bytes, place.base)) return 0
    return place.versions.find((version) => sameSector(bytes, version.bytes))?.content
  }

  #show(place: Place): void {
    const { sector, versions } = place
    const { disk } = this
    let shown: Version | undefined
    for (let index = versions.length - 1; index >= 0 && shown === undefined; index--) {
      const version = versions[index] as Version
      const choice = this.chosen[version.atom]
      if (choice === present || (choice === torn && version.inTear)) shown = version
    }
    const at = sector * sectorSize
    const before = this.#contentShown[sector] ?? 0
    const content = shown?.content ?? 0
    if (content === before) return
    this.#hash(sector, before)
    this.#hash(sector, content)
    this.#contentShown[sector] = content
    disk.changes.add(sector)
    if (shown === undefined || content === 0) {
      disk.bytes.set(place.base, at)
      disk.payloadLba[sector] = this.#base.payloadLba[sector] as number
      disk.payloadGeneration[sector] = this.#base.payloadGeneration[sector] as number
      return
    }
    if (shown.bytes === undefined) disk.bytes.fill(0, at, at + sectorSize)
    else disk.bytes.set(shown.bytes, at)
    disk.payloadLba[sector] = shown.payload.lba
    disk.payloadGeneration[sector] = shown.payload.generation
  }

  /** Exclusive or: the same call again takes it out. */
  #hash(sector: number, content: number): void {
    if (content === 0) return
    let mixed = Math.imul(sector + 1, 0x9e3779b1) ^ Math.imul(content, 0x85ebca6b)
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0xc2b2ae35)
    this.#hashLow ^= mixed ^ (mixed >>> 13)
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x27d4eb2f)
    this.#hashHigh ^= mixed ^ (mixed >>> 16)
  }

  #length(): number {
    let { length } = this.#base
    for (const stretch of this.#stretches) {
      const isThere = stretch.atom >= 0 && (this.chosen[stretch.atom] ?? absent) !== absent
      if (stretch.kind === 'set') {
        if (isThere) length = stretch.length
      } else if ((isThere || this.longest) && stretch.length > length) length = stretch.length
    }
    return length
  }
}

const zeroSector = new Uint8Array(sectorSize)

function sameSector(one: Uint8Array | undefined, other: Uint8Array | undefined): boolean {
  return Buffer.compare(one ?? zeroSector, other ?? zeroSector) === 0
}
