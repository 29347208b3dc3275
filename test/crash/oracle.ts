import type { CrashedDisk } from './disk-states.js'
import { DiskWalk } from './disk-walk.js'
import type { Allowed, GuestHistory } from './guest-history.js'
import { describeValue } from './payload.js'
import type { StartImage } from './start-images.js'

/**
 * Judges the disks that crashes leave: no corruption, every sector of the guest shows what it may show, snapshots show what they
 * froze, and a size that was asked for.
 */
export class Oracle {
  readonly #start: StartImage
  readonly #walk: DiskWalk
  readonly #touched: Uint8Array
  /** Every LBA that something was written to at any time, ascending. */
  readonly #lbas: Int32Array
  /** By place in `#lbas`. */
  readonly #initial: Int32Array

  /** @param bytes  the longest that the file can be */
  constructor(start: StartImage, history: GuestHistory, bytes: number) {
    const perCluster = start.clusterSize / 512
    const lbas = new Set(history.touched)
    start.initial.forEach((value, lba) => {
      // Zeros over a backing file are something that can be lost.
      if (value !== 0 || lba < start.backingSectors) lbas.add(lba)
    })
    this.#start = start
    this.#lbas = Int32Array.from([...lbas].sort((a, b) => a - b))
    this.#initial = this.#lbas.map((lba) => history.initialAt(lba))
    const touched = new Set(history.touched)
    this.#touched = Uint8Array.from(this.#lbas, (lba) => Number(touched.has(lba)))
    const watched = new Set<number>()
    for (const lba of this.#lbas) watched.add(Math.floor(lba / perCluster))
    this.#walk = new DiskWalk(start, bytes, [...watched])
  }

  /** Of the disk judged last. */
  get leaks(): number {
    return this.#walk.leaks
  }

  get leaksInFile(): number {
    return this.#walk.leaksInFile
  }

  /** What the guest sees at `lba` on the disk judged last. */
  valueAt(lba: number): number {
    return this.#walk.valueAt(lba)
  }

  get sizeSectors(): number {
    return this.#walk.sizeSectors
  }

  /**
   * @param allowed  at the crash
   * @param time     when the newest write was submitted of which the disk shows anything: what the guest asked for later cannot excuse it
   * @returns what is wrong; undefined when the disk is sound
   */
  judge(disk: CrashedDisk, allowed: Allowed, time: number): string | undefined {
    const walk = this.#walk
    const broken = walk.walk(disk)
    if (broken !== undefined) return `corrupt: ${broken}`
    const size = allowed.sizes.find(
      ({ sectors, submitted }) => sectors === walk.sizeSectors && submitted <= time,
    )
    if (size === undefined)
      return `size: ${walk.sizeSectors} sectors, which nobody asked for or a flush has replaced`
    const wrong = this.#judgeContent(allowed, time, size.resize)
    if (wrong !== undefined) return wrong
    return this.#judgeSnapshots()
  }

  #judgeContent(allowed: Allowed, time: number, resize: number): string | undefined {
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
          : candidates.some((one) => one.value === value && one.submitted <= time && one.lastResize >= resize)
      if (!isAllowed) return this.#describe(lba, value, candidates ?? [{ value: initial }])
    }
    return undefined
  }

  #judgeSnapshots(): string | undefined {
    for (const [index, frozen] of this.#start.snapshots.entries()) {
      const values = this.#walk.snapshotValues(index, frozen.length)
      if (values.length === 0) return 'snapshot: it is gone'
      const lba = values.findIndex((value, at) => value !== frozen[at])
      if (lba >= 0) return `snapshot: lba ${lba} shows ${describeValue(values[lba] ?? 0)}`
    }
    return undefined
  }

  #describe(lba: number, value: number, candidates: readonly { value: number }[]): string {
    const may = candidates.map((one) => describeValue(one.value)).join(', ')
    return `content: lba ${lba} shows ${describeValue(value)}, where it may show ${may}`
  }
}
