import { assert } from '../../lib/base/assert.js'
import type { CopiedRule } from './disk-walk.js'
import { type AllowedSnapshot, type FrozenDisk, SnapshotHistory } from './frozen-disk.js'
import { backingValue, zeroValue } from './payload.js'

/** A request's mark on what the guest may see. Times are positions in the log. */
type Change = {
  /** What a sector may show for it. */
  readonly values: readonly number[]
  readonly submitted: number
  readonly ended: number
  /** Once a flush covers it, nothing older may show. Not so of a discard, which may be lost, and of what failed. */
  readonly isFinal: boolean
  /** It is durable when it ends: no flush has to cover it. */
  readonly isDurable: boolean
  /** The resize that this is the mark of, by its number in the history of sizes; 0: none. */
  readonly resize: number
  /** A growth: where the disk has its size, nothing older may show. */
  readonly isGrowth: boolean
  /** How often a snapshot had been applied, this time included. */
  readonly epoch: number
}

export type SizeChange = {
  readonly sectors: number
  readonly submitted: number
  readonly ended: number
  readonly isDurable: boolean
  readonly epoch: number
}

/** A time from which on the disk is what a snapshot was, and nothing of before shows: all of it or none. */
type Epoch = { readonly submitted: number; readonly ended: number }

/** A value that may show, if it had been asked for by then, on a disk of this epoch whose size is not of a later resize than this. */
type Candidate = {
  readonly value: number
  readonly submitted: number
  readonly lastResize: number
  readonly epoch: number
}

/** What may show at one crash point. */
export type Allowed = {
  /** By LBA; LBAs that are missing show what they showed at first. */
  readonly values: ReadonlyMap<number, readonly Candidate[]>
  readonly sizes: readonly { sectors: number; submitted: number; resize: number; epoch: number }[]
  /** Those that a disk may be of. */
  readonly epochs: readonly { epoch: number; submitted: number }[]
  readonly snapshots: readonly AllowedSnapshot[]
}

export type RequestTimes = { readonly submitted: number; readonly ended: number; readonly failed: boolean }

/**
 * What the guest has done, sector by sector: a checker of registers. A sector may show a change that no flush-covered later change
 * has replaced. Changes that were under way together may win in either order.
 */
export class GuestHistory {
  readonly #initial: Int32Array
  readonly #backingSectors: number
  readonly #changes = new Map<number, Change[]>()
  readonly #sizes: SizeChange[]
  readonly #flushes: RequestTimes[] = []
  readonly #snapshots: SnapshotHistory
  readonly #epochs: Epoch[] = [{ submitted: -1, ended: -1 }]
  #copied: CopiedRule = 'exact'

  /** All that is ever written to, ascending: a resize by a gibibyte concerns no other sector. */
  readonly #used: readonly number[]

  /**
   * @param initial         by LBA, what the disk shows at first
   * @param backingSectors  of the backing file; 0: none
   * @param written         LBAs behind `initial` that requests will write to
   * @param snapshots       that there are at first
   */
  constructor(
    initial: Int32Array,
    backingSectors: number,
    written: Iterable<number>,
    snapshots: readonly FrozenDisk[] = [],
  ) {
    this.#snapshots = new SnapshotHistory(snapshots)
    this.#initial = initial
    this.#backingSectors = backingSectors
    // A disk that has shrunk since shows again what lay behind its end, when a snapshot is applied.
    const frozen = snapshots.flatMap(({ lbas }) => [...lbas])
    this.#used = [...new Set([...initial.keys(), ...written, ...frozen])].sort((a, b) => a - b)
    this.#sizes = [{ sectors: initial.length, submitted: -1, ended: -1, isDurable: false, epoch: 0 }]
  }

  /** What is done to snapshots lets COPIED flags be. */
  get copied(): CopiedRule {
    return this.#copied
  }

  /** LBAs that anything was done to, ascending. */
  get touched(): number[] {
    return [...this.#changes.keys()].sort((a, b) => a - b)
  }

  initialAt(lba: number): number {
    return this.#initial[lba] ?? zeroValue
  }

  /** @param isDurable  when it ends: written through, or with forced unit access */
  write(lba: number, sectors: number, generation: number, times: RequestTimes, isDurable = false): void {
    this.#add(lba, sectors, [generation], times, { isFinal: !times.failed, isDurable })
  }

  zero(lba: number, sectors: number, times: RequestTimes, isDurable = false): void {
    this.#add(lba, sectors, [zeroValue], times, { isFinal: !times.failed, isDurable })
  }

  discard(lba: number, sectors: number, times: RequestTimes): void {
    this.#add(lba, sectors, [zeroValue], times, { isFinal: false, isDurable: false })
  }

  flush(times: RequestTimes): void {
    this.#flushes.push(times)
  }

  /** @param before  of the disk that runs, where a resize may have failed: what was asked for last is not its size then */
  resize(
    sectors: number,
    times: RequestTimes,
    isDurable = false,
    before = this.#sizes.at(-1)?.sectors ?? 0,
  ): void {
    const resize = this.#sizes.length
    this.#pushSize(sectors, times, isDurable)
    const isGrowth = sectors > before
    for (const lba of this.#used) {
      if (lba < Math.min(sectors, before) || lba >= Math.max(sectors, before)) continue
      // What is cut off may already be gone while the disk still has its old size: in any order.
      const values = !isGrowth && lba < this.#backingSectors ? [zeroValue, backingValue] : [zeroValue]
      const isFinal = isGrowth && !times.failed
      this.#add(lba, 1, values, times, { isFinal, isDurable }, { resize, isGrowth })
    }
  }

  createSnapshot(frozen: FrozenDisk, times: RequestTimes): void {
    this.#copied = 'may-differ'
    this.#snapshots.create({ ...frozen, others: this.#undecided(frozen, times) }, times)
    if (!times.failed) this.flush(times)
  }

  /** What a failed write leaves is old or new: a snapshot freezes that too. */
  #undecided({ lbas }: FrozenDisk, { submitted }: RequestTimes): Map<number, number[]> {
    const others = new Map<number, number[]>()
    for (const lba of lbas) {
      const changes = this.#changes.get(lba) ?? []
      if (!changes.some((one) => one.submitted < submitted && one.ended > submitted)) continue
      const found = candidates([this.#first(lba), ...changes], submitted, submitted)
      others.set(
        lba,
        found.map(({ value }) => value),
      )
    }
    return others
  }

  deleteSnapshot(name: string, times: RequestTimes): void {
    if (this.#copied === 'exact') this.#copied = 'may-lack'
    if (!times.failed) this.flush(times)
    this.#snapshots.delete(name, times)
  }

  /** The disk becomes what a snapshot shows, at one stroke: no state is a mix. What failed may still become so, and any mix is let pass. */
  applySnapshot(name: string, times: RequestTimes): void {
    if (this.#copied === 'exact') this.#copied = 'may-lack'
    const frozen = this.#snapshots.frozenAs(name)
    // There is none, and it was refused.
    if (frozen === undefined) return
    if (!times.failed) {
      this.flush(times)
      this.#epochs.push({ submitted: times.submitted, ended: times.ended })
    }
    if (frozen.sectors !== this.#sizes.at(-1)?.sectors || !times.failed) {
      this.#pushSize(frozen.sectors, times, true)
    }
    const known = new Map([...frozen.lbas].map((lba, at) => [lba, frozen.values[at] as number]))
    for (const lba of this.#used) {
      if (lba >= frozen.sectors) continue
      const values = [known.get(lba) ?? this.initialAt(lba), ...(frozen.others?.get(lba) ?? [])]
      this.#add(lba, 1, values, times, { isFinal: !times.failed, isDurable: !times.failed })
    }
  }

  /** What may show after a crash at `time`. */
  at(time: number): Allowed {
    let covered = Number.NEGATIVE_INFINITY
    for (const flush of this.#flushes) {
      if (!flush.failed && flush.ended <= time) covered = Math.max(covered, flush.submitted)
    }
    const values = new Map<number, Candidate[]>()
    for (const [lba, changes] of this.#changes) {
      values.set(lba, candidates([this.#first(lba), ...changes], covered, time))
    }
    const sizes = this.#sizes
      .map((size, resize) => ({ ...size, resize }))
      .filter((size) => size.submitted <= time)
      .filter(
        ({ ended }) =>
          !this.#sizes.some((later) => isPromised(later, covered, time) && ended < later.submitted),
      )
    assert(sizes.length > 0, 'the disk has a size')
    const epochs = this.#epochs
      .map(({ submitted }, epoch) => ({ epoch, submitted }))
      .filter(({ epoch, submitted }) => {
        const next = this.#epochs[epoch + 1]
        return submitted <= time && (next === undefined || next.ended > time)
      })
    return { values, sizes, epochs, snapshots: this.#snapshots.at(time) }
  }

  /** What was there before anything was done. */
  #first(lba: number): Change {
    return {
      values: [this.initialAt(lba)],
      submitted: -1,
      ended: -1,
      isFinal: true,
      isDurable: true,
      resize: 0,
      isGrowth: false,
      epoch: 0,
    }
  }

  /** What a read that ran from `submitted` to `ended` may have seen. */
  mayRead(lba: number, value: number, submitted: number, ended: number): boolean {
    const changes = this.#changes.get(lba) ?? []
    if (value === this.initialAt(lba) && !changes.some((one) => one.isFinal && one.ended < submitted))
      return true
    return changes.some(
      (one) =>
        one.values.includes(value) &&
        one.submitted < ended &&
        !changes.some((later) => later.isFinal && later.ended < submitted && one.ended < later.submitted),
    )
  }

  #pushSize(sectors: number, times: RequestTimes, isDurable: boolean): void {
    const epoch = this.#epochs.length - 1
    this.#sizes.push({ sectors, submitted: times.submitted, ended: ended(times), isDurable, epoch })
  }

  #add(
    lba: number,
    sectors: number,
    values: readonly number[],
    times: RequestTimes,
    kind: { isFinal: boolean; isDurable: boolean },
    of: { resize: number; isGrowth: boolean } = { resize: 0, isGrowth: false },
  ): void {
    const change = {
      values,
      submitted: times.submitted,
      ended: ended(times),
      ...kind,
      ...of,
      epoch: this.#epochs.length - 1,
    }
    for (let at = lba; at < lba + sectors; at++) {
      const changes = this.#changes.get(at)
      if (changes === undefined) this.#changes.set(at, [change])
      else changes.push(change)
    }
  }
}

/** What failed may still take effect, at any time. */
function ended(times: RequestTimes): number {
  return times.failed ? Number.POSITIVE_INFINITY : times.ended
}

/** @param covered  when the newest flush was submitted that has ended by `time` */
function isPromised(change: { ended: number; isDurable: boolean }, covered: number, time: number): boolean {
  return change.ended < covered || (change.isDurable && change.ended <= time)
}

function candidates(changes: readonly Change[], covered: number, time: number): Candidate[] {
  const found: Candidate[] = []
  for (const change of changes) {
    if (change.submitted > time) continue
    const replaced = changes.some(
      (later) => later.isFinal && isPromised(later, covered, time) && change.ended < later.submitted,
    )
    if (replaced) continue
    let lastResize = Number.POSITIVE_INFINITY
    for (const growth of changes) {
      const isOlder = growth.isGrowth && change.ended < growth.submitted
      if (isOlder) lastResize = Math.min(lastResize, growth.resize - 1)
    }
    for (const value of change.values) {
      const { submitted, epoch } = change
      found.push({ value, submitted, lastResize, epoch })
    }
  }
  return found
}
