import { assert } from '../../lib/base/assert.js'
import type { CrashedDisk } from './disk-states.js'
import { type CopiedRule, DiskWalk, looser, sectorsPerUnit } from './disk-walk.js'
import { firstChanged, type FrozenDisk } from './frozen-disk.js'
import type { Allowed, GuestHistory } from './guest-history.js'
import { describeValue } from './payload.js'
import { RunningContent } from './running-content.js'
import { RunningWalk } from './running-walk.js'
import type { StartImage } from './start-images.js'

/** Of so many states that were found sound by what has changed, one is looked at as a whole. */
const usualWholeEvery = 256

/**
 * Judges the disks that crashes leave: no corruption, every sector of the guest shows what it may show, snapshots show what they
 * froze, and a size that was asked for.
 *
 * From disk to disk only what has changed is looked at; what is not surely sound then is judged as a whole, by code of its own.
 */
export class Oracle {
  readonly #walk: DiskWalk
  readonly #running: RunningWalk
  readonly #content: RunningContent
  readonly #touched: Uint8Array
  /** Every LBA of a unit that something was written to at any time, or that is not zeros, ascending. */
  readonly #lbas: Int32Array
  /** By place in `#lbas`. */
  readonly #initial: Int32Array
  /** What COPIED flags may be. */
  readonly copied: CopiedRule
  #judged = 0
  #isWhole = false

  readonly #wholeEvery: number

  /**
   * @param disk        all of whose states are judged
   * @param wholeEvery  of so many states that seem sound one is looked at as a whole
   */
  constructor(start: StartImage, history: GuestHistory, disk: CrashedDisk, wholeEvery = usualWholeEvery) {
    this.#wholeEvery = wholeEvery
    const perUnit = sectorsPerUnit(start)
    const lbas = new Set<number>()
    // What is written beside a part of a cluster must be there, too: zeros that were never written are bytes of the cluster.
    for (const lba of history.touched) {
      const first = lba - (lba % perUnit)
      for (let step = 0; step < perUnit; step++) lbas.add(first + step)
    }
    start.initial.forEach((value, lba) => {
      // Zeros over a backing file are something that can be lost.
      if (value !== 0 || lba < start.backingSectors) lbas.add(lba)
    })
    this.copied = looser(start.copied ?? 'exact', history.copied)
    this.#lbas = Int32Array.from(lbas).sort()
    this.#initial = this.#lbas.map((lba) => history.initialAt(lba))
    const touched = new Set(history.touched)
    this.#touched = Uint8Array.from(this.#lbas, (lba) => Number(touched.has(lba)))
    const watched = new Set<number>()
    for (const lba of this.#lbas) watched.add(Math.floor(lba / perUnit))
    this.#walk = new DiskWalk({ ...start, copied: this.copied }, disk.bytes.length, [...watched])
    this.#running = new RunningWalk(start, disk, this.#walk.slots, watched.size)
    this.#content = new RunningContent(start, this.#lbas, this.#initial, this.#touched, this.#walk.slots)
  }

  /** It will not be asked any more. */
  end(): void {
    this.#running.end()
  }

  /** Of the disk judged last. */
  get leaks(): number {
    return this.#isWhole ? this.#walk.leaks : this.#running.leaks
  }

  /** Have the disk judged last ready to be read: `valueAt`, `sizeSectors`, `leaksInFile`. */
  look(disk: CrashedDisk): void {
    if (!this.#isWhole) this.#walk.walk(disk)
    this.#isWhole = true
  }

  /** Of the disk judged or looked at last, if that was by all of it. */
  get isDirty(): boolean {
    return this.#walk.isDirty
  }

  get leaksInFile(): number {
    return this.#walk.leaksInFile
  }

  /** What the guest sees at `lba`. */
  valueAt(lba: number): number {
    return this.#walk.valueAt(lba)
  }

  get sizeSectors(): number {
    return this.#walk.sizeSectors
  }

  /**
   * @param allowed  at the crash
   * @param newest   when the newest write was submitted of which the disk shows anything: what the guest asked for later cannot excuse it
   * @param since    what is durable, and what flushes have promised, has not changed since then: it counts for as new at least
   * @returns what is wrong; undefined when the disk is sound
   */
  judge(disk: CrashedDisk, allowed: Allowed, newest: number, since: number): string | undefined {
    const time = Math.max(newest, since)
    this.#isWhole = false
    this.#judged++
    if (this.copied !== 'exact' || !this.#isSurelySound(disk, allowed, time, since)) {
      return this.judgeWhole(disk, allowed, time)
    }
    if (this.#judged % this.#wholeEvery === 0) {
      const { leaks, leaksInFile } = this.#running
      const wrong = this.judgeWhole(disk, allowed, time)
      if (wrong !== undefined) return `by what has changed it is sound, but ${wrong}`
      assert(leaks === this.leaks && leaksInFile === this.leaksInFile, 'both walks count the same leaks')
    }
    return undefined
  }

  #isSurelySound(disk: CrashedDisk, allowed: Allowed, time: number, since: number): boolean {
    const running = this.#running
    if (!running.follow(disk)) return false
    const size = sizeOf(running.sizeSectors, allowed, time, 0)
    if (size === undefined) return false
    if (!this.#content.follow(disk, running, allowed, size.resize, time, since)) return false
    if (running.snapshotsChanged && this.#judgeSnapshots(disk, allowed, time) !== undefined) return false
    running.snapshotsChanged = false
    return true
  }

  /** As `judge`, by looking at all of it. */
  judgeWhole(disk: CrashedDisk, allowed: Allowed, time: number): string | undefined {
    const walk = this.#walk
    this.#isWhole = true
    const broken = walk.walk(disk)
    if (broken !== undefined) return `corrupt: ${broken}`
    let wrong: string | undefined
    // Whatever it shows is of one epoch: before a snapshot was applied, or after it.
    for (const { epoch, submitted } of allowed.epochs) {
      if (submitted > time) continue
      const found = this.#judgeEpoch(allowed, time, epoch)
      if (found === undefined) return this.#judgeSnapshots(disk, allowed, time)
      wrong ??= found
    }
    return wrong ?? 'an epoch that has not begun'
  }

  /** As `judgeWhole`, of the flags alone, of an image that no operation has left half done. */
  judgeFlags(disk: CrashedDisk): string | undefined {
    const broken = this.#walk.walk(disk, { exactly: true })
    return broken === undefined ? undefined : `corrupt: ${broken}`
  }

  #judgeEpoch(allowed: Allowed, time: number, epoch: number): string | undefined {
    const { sizeSectors } = this.#walk
    const size = sizeOf(sizeSectors, allowed, time, epoch)
    if (size === undefined)
      return `size: ${sizeSectors} sectors, which nobody asked for or a flush has replaced`
    return this.#judgeContent(allowed, time, size.resize, epoch)
  }

  #judgeContent(allowed: Allowed, time: number, resize: number, epoch: number): string | undefined {
    const walk = this.#walk
    const lbas = this.#lbas
    for (let index = 0; index < lbas.length; index++) {
      const lba = lbas[index] as number
      if (lba >= walk.sizeSectors) break
      const value = walk.valueAt(lba)
      const initial = this.#initial[index] as number
      if (walk.autoclear && value !== initial) {
        return `autoclear: lba ${lba} has changed, and the bit that promises it has not is still set`
      }
      const candidates = this.#touched[index] === 1 ? allowed.values.get(lba) : undefined
      const isAllowed =
        candidates === undefined
          ? value === initial
          : candidates.some(
              (one) =>
                one.value === value &&
                one.submitted <= time &&
                one.lastResize >= resize &&
                one.epoch === epoch,
            )
      if (!isAllowed) return this.#describe(lba, value, candidates ?? [{ value: initial }])
    }
    return undefined
  }

  #judgeSnapshots(disk: CrashedDisk, allowed: Allowed, time: number): string | undefined {
    const names = this.#walk.snapshotNames(disk)
    const known = allowed.snapshots.filter(({ submitted }) => submitted <= time)
    for (const { frozen, requiredUpTo } of known) {
      if (time < requiredUpTo && !names.includes(frozen.name)) return `snapshot: ${frozen.name} is gone`
    }
    for (const [index, name] of names.entries()) {
      if (names.indexOf(name) !== index) return `snapshot: ${name} is there twice`
      const one = known.find(({ frozen }) => frozen.name === name)
      if (one === undefined) return `snapshot: ${name} is there, which nobody asked for or was deleted`
      const { lbas, values: frozen } = one.frozen
      const values = this.#walk.snapshotValues(disk, index, lbas)
      const at = firstChanged(one.frozen, values)
      if (at >= 0) {
        const what = `${describeValue(values[at] ?? 0)}, not ${describeValue(frozen[at] ?? 0)}`
        return `snapshot: lba ${lbas[at]} of ${name} shows ${what}`
      }
    }
    return undefined
  }

  /** The snapshots of the disk judged last, as they must be. */
  snapshotsOf(disk: CrashedDisk, allowed: Allowed): FrozenDisk[] {
    return this.#walk
      .snapshotNames(disk)
      .flatMap((name) => allowed.snapshots.find(({ frozen }) => frozen.name === name)?.frozen ?? [])
  }

  #describe(lba: number, value: number, candidates: readonly { value: number }[]): string {
    const may = candidates.map((one) => describeValue(one.value)).join(', ')
    return `content: lba ${lba} shows ${describeValue(value)}, where it may show ${may}`
  }
}

function sizeOf(
  sectors: number,
  { sizes }: Allowed,
  time: number,
  epoch: number,
): { resize: number } | undefined {
  return sizes.find((one) => one.sectors === sectors && one.submitted <= time && one.epoch === epoch)
}
