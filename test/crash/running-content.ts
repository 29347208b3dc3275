import type { ChangedSectors } from './changed-sectors.js'
import type { CrashedDisk } from './disk-states.js'
import { readsZeros, sectorsPerUnit, unmapped, type WalkedImage } from './disk-walk.js'
import type { Allowed } from './guest-history.js'
import { backingValue, valueAt, zeroValue } from './payload.js'

/** Nothing that was ever asked for. */
const never = 0x7fffffff

/** Where guest units are, and which of them to look at again. */
type Places = {
  readonly places: Int32Array
  readonly changedSlots: ChangedSectors
  readonly sizeSectors: number
}

/**
 * What the guest sees of disks that differ from the last one in a few places. Of each sector the time is kept from which on what it shows
 * is allowed: so a disk is sound if no sector that has changed needs a later time than the disk's.
 */
export class RunningContent {
  readonly #image: WalkedImage
  readonly #perUnit: number
  readonly #lbas: Int32Array
  readonly #initial: Int32Array
  readonly #touched: Uint8Array
  /** By slot: the first of its LBAs; one more for the end. */
  readonly #starts: Int32Array
  /** By place in `#lbas`. */
  readonly #needs: Int32Array
  readonly #isPending: Uint8Array
  readonly #pending: Int32Array
  #pendingCount = 0
  #allowed: Allowed | undefined
  #resize = -1
  #since = -1

  /**
   * @param lbas     ascending
   * @param initial  by place in `lbas`, as is `touched`
   * @param slots    by guest unit, ascending
   */
  constructor(
    image: WalkedImage,
    lbas: Int32Array,
    initial: Int32Array,
    touched: Uint8Array,
    slots: Int32Array,
  ) {
    this.#image = image
    this.#perUnit = sectorsPerUnit(image)
    this.#lbas = lbas
    this.#initial = initial
    this.#touched = touched
    this.#needs = new Int32Array(lbas.length).fill(-1)
    this.#isPending = new Uint8Array(lbas.length)
    this.#pending = new Int32Array(lbas.length)
    this.#starts = new Int32Array(lbas.length + 1).fill(lbas.length)
    for (let index = lbas.length - 1; index >= 0; index--) {
      this.#starts[slots[Math.floor((lbas[index] as number) / this.#perUnit)] as number] = index
    }
  }

  /** @returns whether all that the guest sees is allowed at `time`, which is not before `since` */
  follow(
    disk: CrashedDisk,
    walk: Places,
    allowed: Allowed,
    resize: number,
    time: number,
    since: number,
  ): boolean {
    const isSame = allowed === this.#allowed && resize === this.#resize
    this.#allowed = allowed
    this.#resize = resize
    this.#since = since
    const { sectors, count } = walk.changedSlots
    for (let at = 0; at < count; at++) {
      const slot = sectors[at] as number
      const end = this.#starts[slot + 1] as number
      for (let index = this.#starts[slot] as number; index < end; index++) {
        this.#look(disk, walk, index, walk.places[slot] as number)
      }
    }
    if (!isSame) this.#lookAtTouched(disk, walk)
    walk.changedSlots.clear()
    return this.#pendingAllowed(time)
  }

  #lookAtTouched(disk: CrashedDisk, walk: Places): void {
    let slot = 0
    for (let index = 0; index < this.#lbas.length; index++) {
      while ((this.#starts[slot + 1] as number) <= index) slot++
      if (this.#touched[index] === 1) this.#look(disk, walk, index, walk.places[slot] as number)
    }
  }

  #look(disk: CrashedDisk, walk: Places, index: number, place: number): void {
    const lba = this.#lbas[index] as number
    const needs = lba < walk.sizeSectors ? this.#needsOf(index, lba, this.#valueIn(disk, lba, place)) : -1
    this.#needs[index] = needs
    if (needs <= this.#since || this.#isPending[index] === 1) return
    this.#isPending[index] = 1
    this.#pending[this.#pendingCount++] = index
  }

  #needsOf(index: number, lba: number, value: number): number {
    const candidates = this.#touched[index] === 1 ? this.#allowed?.values.get(lba) : undefined
    if (candidates === undefined) return value === this.#initial[index] ? -1 : never
    let needs = never
    for (const one of candidates) {
      if (one.value === value && one.lastResize >= this.#resize && one.submitted < needs)
        needs = one.submitted
    }
    return needs
  }

  #pendingAllowed(time: number): boolean {
    for (let at = 0; at < this.#pendingCount;) {
      const index = this.#pending[at] as number
      const needs = this.#needs[index] as number
      if (needs > time) return false
      if (needs > this.#since) {
        at++
        continue
      }
      this.#isPending[index] = 0
      this.#pendingCount--
      this.#pending[at] = this.#pending[this.#pendingCount] as number
    }
    return true
  }

  #valueIn(disk: CrashedDisk, lba: number, place: number): number {
    if (place >= 0) {
      const host = place + (lba % this.#perUnit)
      return valueAt(lba, disk.payloadLba[host] ?? -1, disk.payloadGeneration[host] ?? 0)
    }
    if (place === unmapped) return lba < this.#image.backingSectors ? backingValue : zeroValue
    return place === readsZeros ? zeroValue : never
  }
}
