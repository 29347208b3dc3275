import { bitmapsIn, type WalkedBitmap } from './bitmap-walk.js'
import type { DeviceLog } from './device-log.js'
import type { CrashedDisk } from './disk-states.js'
import { Broken } from './broken.js'
import { zeroValue } from './payload.js'
import type { DiskImage } from '../../lib/image/disk-image.js'
import type { Recording, Step } from './workload.js'

/** An operation on the bitmaps; one is meant by its name. */
export type BitmapStep = {
  readonly kind: 'bitmap-add' | 'bitmap-remove' | 'bitmap-clear' | 'bitmap-enable' | 'bitmap-disable'
  readonly name: string
}

export function isBitmapStep(step: { readonly kind: string }): step is BitmapStep {
  return step.kind.startsWith('bitmap-')
}

export async function performBitmapStep({ bitmaps }: DiskImage, { kind, name }: BitmapStep): Promise<void> {
  switch (kind) {
    case 'bitmap-add':
      return bitmaps.add(name, { granularity: 512 })
    case 'bitmap-remove':
      return bitmaps.remove(name)
    case 'bitmap-clear':
      return bitmaps.clear(name)
    case 'bitmap-enable':
      return bitmaps.enable(name)
    case 'bitmap-disable':
      return bitmaps.disable(name)
  }
}

/** Times are positions in the log. */
type Times = { readonly submitted: number; readonly ended: number }

/** What a sector may show, and since when it may. */
type Origin = Times & { readonly value: number }

type Operation = Times & { readonly kind: BitmapStep['kind'] }

type Known = { readonly initial: WalkedBitmap | undefined; readonly operations: Operation[] }

const fromTheStart: Times = { submitted: -1, ended: -1 }

/**
 * What bitmaps of a crashed disk must say: one that is not in use has marked whatever the disk shows that was written since it was added, cleared or
 * enabled (E19, E20). Operations on them are durable when they end. One that does not follow the disk stays as it is.
 */
export class BitmapHistory {
  /** There are bitmaps at any time. */
  readonly isConcerned: boolean
  readonly #start: Uint8Array
  readonly #known = new Map<string, Known>()
  readonly #origins = new Map<number, Origin[]>()
  #isResized = false

  constructor(recording: Recording, log: DeviceLog) {
    const { start, requests, workload } = recording
    const view = new DataView(start.buffer, start.byteOffset, start.byteLength)
    this.#start = start
    const initial = start.length < 112 ? [] : bitmapsIn(view, start.length).bitmaps
    for (const bitmap of initial) this.#known.set(bitmap.name, { initial: bitmap, operations: [] })
    this.isConcerned = initial.length > 0 || requests.some(({ step }) => isBitmapStep(step))
    if (!this.isConcerned) return
    workload.start.initial.forEach((value, lba) => {
      this.#origins.set(lba, [{ value, ...fromTheStart }])
    })
    for (const { id, step, generation } of requests) {
      const times = log.requests.get(id)
      if (times === undefined) continue
      const ended = times.failed ? Number.POSITIVE_INFINITY : times.ended
      this.#note(step, generation, { submitted: times.submitted, ended })
    }
  }

  #note(step: Step, generation: number, times: Times): void {
    if (isBitmapStep(step)) {
      const known = this.#known.get(step.name) ?? { initial: undefined, operations: [] }
      known.operations.push({ kind: step.kind, ...times })
      this.#known.set(step.name, known)
    } else if (step.kind === 'resize') {
      this.#isResized = true
      for (const lba of this.#origins.keys()) {
        if (lba >= step.sectors) this.#origins.get(lba)?.push({ value: zeroValue, ...times })
      }
    } else if ('lba' in step && step.kind !== 'read') {
      const value = step.kind === 'write' || step.kind === 'compress' ? generation : zeroValue
      for (let lba = step.lba; lba < step.lba + step.sectors; lba++) {
        const origins = this.#origins.get(lba) ?? [{ value: zeroValue, ...fromTheStart }]
        origins.push({ value, ...times })
        this.#origins.set(lba, origins)
      }
    }
  }

  /**
   * @param valueAt  what the guest sees
   * @param options  `isClosed`: the run is over, and the image was closed in order
   * @returns what is wrong with the bitmaps of a disk that a crash at `time` has left
   */
  judge(
    disk: CrashedDisk,
    time: number,
    seen: { readonly sectors: number; readonly valueAt: (lba: number) => number },
    options: { readonly isClosed: boolean },
  ): string | undefined {
    let found: WalkedBitmap[]
    try {
      found = bitmapsIn(new DataView(disk.bytes.buffer), disk.length).bitmaps
    } catch (error) {
      if (error instanceof Broken) return `bitmaps: ${error.message}`
      throw error
    }
    for (const [name, known] of this.#known) {
      const bitmap = found.find((one) => one.name === name)
      const wrong = this.#judgeOne(bitmap, known, time, seen, options.isClosed)
      if (wrong !== undefined) return `bitmaps: ${name} ${wrong}`
    }
    const stranger = found.find(({ name }) => !this.#known.has(name))
    return stranger && `bitmaps: ${stranger.name} is there, which nobody has added`
  }

  #judgeOne(
    bitmap: WalkedBitmap | undefined,
    { initial, operations }: Known,
    time: number,
    seen: { readonly sectors: number; readonly valueAt: (lba: number) => number },
    isClosed: boolean,
  ): string | undefined {
    const begun = operations.filter(({ submitted }) => submitted <= time)
    const isPending = begun.some(({ ended }) => ended > time)
    const last = begun.at(-1)
    const isThere = last === undefined ? initial !== undefined : last.kind !== 'bitmap-remove'
    if (bitmap === undefined) return isThere && !isPending ? 'is gone' : undefined
    if (!isThere && !isPending) return 'is there, which nobody has added, or was removed'
    const wasInUse = initial?.inUse === true && last === undefined
    if (bitmap.inUse) {
      if (isClosed && !wasInUse) return 'is in use after a clean close'
      if (!wasInUse && !bitmap.auto && !this.#isResized && last === undefined)
        return 'is in use, and does not follow the disk'
      return undefined
    }
    if (wasInUse) return 'was inconsistent, and claims to be well'
    if (isPending) return undefined
    if (initial !== undefined && last === undefined && !initial.auto) {
      return this.#isResized ? undefined : this.#judgeStill(bitmap, initial)
    }
    return this.#judgeMarks(bitmap, initial, begun, seen, isClosed)
  }

  #judgeStill(bitmap: WalkedBitmap, initial: WalkedBitmap): string | undefined {
    for (let lba = 0; lba * 512 < this.#start.length; lba++) {
      if (bitmap.isMarked(lba * 512) !== initial.isMarked(lba * 512)) return `has changed at lba ${lba}`
    }
    return undefined
  }

  #judgeMarks(
    bitmap: WalkedBitmap,
    initial: WalkedBitmap | undefined,
    begun: readonly Operation[],
    seen: { readonly sectors: number; readonly valueAt: (lba: number) => number },
    isClosed: boolean,
  ): string | undefined {
    // What was asked for behind this has to be marked, if it was over before the other.
    const stop = begun.at(-1)?.kind === 'bitmap-disable' ? begun.at(-1) : undefined
    const base = (stop === undefined ? begun : begun.slice(0, -1)).at(-1) ?? fromTheStart
    const until = stop?.submitted ?? Number.POSITIVE_INFINITY
    for (const [lba, origins] of this.#origins) {
      if (lba >= seen.sectors) continue
      const value = seen.valueAt(lba)
      const those = origins.filter((one) => one.value === value)
      const isChanged = those.every((one) => one.submitted > base.ended && one.ended < until)
      const isMarked = bitmap.isMarked(lba * 512)
      if (those.length > 0 && isChanged && !isMarked) return `has not marked that lba ${lba} has changed`
      if (!isClosed || !isMarked || this.#isResized || bitmap.unit !== 512) continue
      const isNew = origins.some(({ submitted }) => submitted >= 0)
      const wasMarked = begun.length === 0 && initial?.isMarked(lba * 512) === true
      if (!isNew && !wasMarked && base === fromTheStart) return `marks lba ${lba}, which has not changed`
    }
    return undefined
  }
}
