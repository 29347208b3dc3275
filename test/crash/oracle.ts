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
  readonly #history: GuestHistory
  readonly #lbas: number[]

  /** @param bytes  the longest that the file can be */
  constructor(start: StartImage, history: GuestHistory, bytes: number) {
    const perCluster = start.clusterSize / 512
    const lbas = new Set(history.touched)
    start.initial.forEach((value, lba) => {
      if (value !== 0) lbas.add(lba)
    })
    this.#start = start
    this.#history = history
    this.#lbas = [...lbas].sort((a, b) => a - b)
    const watched = new Set(this.#lbas.map((lba) => Math.floor(lba / perCluster)))
    this.#walk = new DiskWalk(start, bytes, [...watched])
  }

  /** Of the disk judged last. */
  get leaks(): number {
    return this.#walk.leaks
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
    if (size === undefined) return `size: ${walk.sizeSectors} sectors, which nobody asked for or a flush has replaced`
    for (const lba of this.#lbas) {
      if (lba >= walk.sizeSectors) break
      const value = walk.valueAt(lba)
      const initial = this.#history.initialAt(lba)
      if (walk.autoclear && value !== initial) {
        return `autoclear: lba ${lba} has changed, and the bit that promises it has not is still set`
      }
      const candidates = allowed.values.get(lba)
      const isAllowed =
        candidates === undefined
          ? value === initial
          : candidates.some(
              (one) => one.value === value && one.submitted <= time && one.lastResize >= size.resize,
            )
      if (!isAllowed) return this.#describe(lba, value, candidates ?? [{ value: initial }])
    }
    return this.#judgeSnapshots()
  }

  #judgeSnapshots(): string | undefined {
    for (let index = 0; index < this.#start.snapshots; index++) {
      const values = this.#walk.snapshotValues(index, this.#start.initial.length)
      if (values.length === 0) return 'snapshot: it is gone'
      const lba = values.findIndex((value, at) => value !== this.#start.initial[at])
      if (lba >= 0) return `snapshot: lba ${lba} shows ${describeValue(values[lba] ?? 0)}`
    }
    return undefined
  }

  #describe(lba: number, value: number, candidates: readonly { value: number }[]): string {
    const may = candidates.map((one) => describeValue(one.value)).join(', ')
    return `content: lba ${lba} shows ${describeValue(value)}, where it may show ${may}`
  }
}
