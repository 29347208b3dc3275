import { constants } from 'node:os'
import { type Section, sectorSize } from '../base/units.js'
import { SparseBytes } from './sparse-bytes.js'

export type DeviceOperationKind = 'read' | 'write' | 'zero' | 'punch' | 'allocate' | 'truncate' | 'sync'

/** What the device is about to do. */
export type DeviceOperation = {
  readonly kind: DeviceOperationKind
  /** Bytes; of 'truncate' the new length. */
  readonly offset: number
  readonly length: number
  /** Of a node of the queue; undefined for data. */
  readonly section: Section | undefined
  /** Counts all operations of this device from 0. */
  readonly index: number
}

/** What becomes of an operation that does not simply succeed at once. */
export type Failure = {
  /** Positive; 0: it succeeds in the end. */
  readonly errno: number
  /** Of a write or zeroing that fails, bytes from its start that reach the disk all the same; of a read, that are filled. Default 0. */
  readonly done?: number
  /** It is interrupted behind so many bytes, and continued some time later. */
  readonly split?: number
  /** Turns of the event loop that it takes longer. */
  readonly turns?: number
  /**
   * Of a sync that fails: which sectors of 512 bytes it loses, of those that it should have made durable. They show again what was durable
   * before, and every later sync succeeds without them. Counts only with `mayLose`.
   */
  readonly loses?: (sector: number) => boolean
}

/**
 * Decides what becomes of an operation: an errno, positive (it fails, and changes nothing), more than that, or undefined (it succeeds).
 *
 * The device stands where the file layer of the addon does (native/file.h), and keeps its contract: calls that a signal interrupts are made again and
 * short transfers are continued down here. So EINTR and short counts are never told; `split` is what they look like from above. A
 * transfer that cannot be continued fails with the errno of the continuation, and a part of it (`done`) has happened. All other errnos,
 * EAGAIN among them, are told as they are.
 */
export type Fault = (operation: DeviceOperation) => number | Failure | undefined

type ChangeKind = Exclude<DeviceOperationKind, 'read' | 'sync'>

/**
 * What happened, in one total order. An operation may have reached the disk from its NSUB on, surely only by a sync with a
 * good SEND whose SSUB comes after its NEND. `error` is 0 or an errno; what failed may be there all the same.
 */
export type DeviceEvent =
  | {
      readonly type: 'NSUB'
      readonly id: number
      readonly kind: ChangeKind
      readonly offset: number
      readonly length: number
      readonly section: Section | undefined
      /** As they were when submitted; empty unless `kind` is 'write'. */
      readonly bytes: Uint8Array
    }
  | { readonly type: 'NEND'; readonly id: number; readonly error: number }
  | { readonly type: 'SSUB'; readonly id: number }
  | { readonly type: 'SEND'; readonly id: number; readonly error: number }
  | GuestEvent

/** A request of the guest; whoever makes it notes it. */
export type GuestEvent =
  | {
      readonly type: 'GSUB'
      readonly id: number
      readonly kind: string
      readonly offset: number
      readonly length: number
      readonly generation: number
    }
  | { readonly type: 'GEND'; readonly id: number; readonly error: number }

export type MemoryDeviceOptions = {
  readonly contents: SparseBytes
  /** Chooses the order in which what is under way ends; undefined: first come, first served. */
  readonly seed: number | undefined
  readonly record: boolean
  readonly fault: Fault | undefined
  /** Remember what is durable, so that failing syncs can lose the rest. */
  readonly mayLose?: boolean
}

/** By sector, what it holds durably. */
type Durable = Map<number, Uint8Array>

const noBytes = new Uint8Array(0)

/**
 * A disk in memory on which several operations are under way at once. They end in a later turn, in an order that depends on
 * nothing but the seed and the order of the calls. Keeps the event loop busy only while something is under way.
 */
export class MemoryDevice {
  readonly contents: SparseBytes
  readonly log: DeviceEvent[] = []
  readonly #record: boolean
  readonly #fault: Fault | undefined
  readonly #random: (() => number) | undefined
  readonly #mayLose: boolean
  /** Of the sectors that have changed since the newest sync began. */
  #unsynced: Durable = new Map()
  /** What will happen next, in some order. */
  #pending: (() => void)[] = []
  #scheduled = false
  #operations = 0
  /** How many syncs have begun. */
  syncs = 0
  #hasChanged = false

  constructor(options: MemoryDeviceOptions) {
    this.contents = options.contents
    this.#record = options.record
    this.#fault = options.fault
    this.#mayLose = options.mayLose ?? false
    this.#random = options.seed === undefined ? undefined : xorshift(options.seed)
  }

  /**
   * Begin an operation.
   * @param bytes  of 'read' to be filled, of 'write' to be written: when the operation ends, or as they are now if the log is on
   * @param over   called in a later turn, with 0 or an errno
   */
  perform(
    operation: Omit<DeviceOperation, 'index'>,
    bytes: Uint8Array | undefined,
    over: (errno: number) => void,
  ): void {
    const index = this.#operations++
    const fate = this.#fault?.({ ...operation, index }) ?? 0
    const {
      errno: fault,
      done = 0,
      split,
      turns = 0,
      loses,
    } = typeof fate === 'number' ? { errno: fate } : fate
    const source = this.#begin(operation, index, bytes ?? noBytes)
    const covered = operation.kind === 'sync' ? this.#beginSync() : undefined
    const end = (from: number): void => {
      let errno = fault
      if (errno === 0) errno = this.#tryToApply(operation, source, from)
      else if (done > 0) this.#apply(operation, source, 0, done)
      if (covered !== undefined && errno !== 0 && loses !== undefined) this.#lose(covered, loses)
      if (operation.kind !== 'read' && operation.kind !== 'sync') this.#hasChanged = true
      if (this.#record) this.#end(operation.kind, index, errno)
      over(errno)
    }
    this.#after(turns, () => {
      if (split === undefined || fault !== 0) return end(0)
      this.#apply(operation, source, 0, split)
      this.later(() => end(split))
    })
  }

  #after(turns: number, step: () => void): void {
    this.later(turns === 0 ? step : () => this.#after(turns - 1, step))
  }

  sync(over: (errno: number) => void): void {
    this.#hasChanged = false
    this.syncs++
    this.perform({ kind: 'sync', offset: 0, length: 0, section: undefined }, undefined, over)
  }

  /** Sync, unless nothing has changed since the last one began. */
  syncChanges(over: (errno: number) => void): void {
    if (this.#hasChanged) this.sync(over)
    else this.later(() => over(0))
  }

  /** Something else that happens some time, in no fixed order with the operations. */
  later(step: () => void): void {
    this.#pending.push(step)
    this.#schedule()
  }

  note(event: GuestEvent): void {
    if (this.#record) this.log.push(event)
  }

  #begin(operation: Omit<DeviceOperation, 'index'>, id: number, bytes: Uint8Array): Uint8Array {
    const { kind, offset, length, section } = operation
    if (!this.#record || kind === 'read') return bytes
    if (kind === 'sync') {
      this.log.push({ type: 'SSUB', id })
      return bytes
    }
    const copy = kind === 'write' ? bytes.slice() : noBytes
    this.log.push({ type: 'NSUB', id, kind, offset, length, section, bytes: copy })
    return copy
  }

  #end(kind: DeviceOperationKind, id: number, error: number): void {
    if (kind === 'read') return
    this.log.push({ type: kind === 'sync' ? 'SEND' : 'NEND', id, error })
  }

  /** The rest of an operation, from a count of its bytes on. @returns 0, or ENOMEM where there is no memory for what is written */
  #tryToApply(operation: Omit<DeviceOperation, 'index'>, bytes: Uint8Array, from: number): number {
    try {
      this.#apply(operation, bytes, from, operation.length)
      return 0
    } catch (error) {
      // What V8 throws when it cannot have an array, or a map more entries.
      if (error instanceof RangeError) return constants.errno.ENOMEM
      throw error
    }
  }

  /** Do the part of an operation that lies between two counts of its bytes; what has no parts, when the last one comes. */
  #apply(operation: Omit<DeviceOperation, 'index'>, bytes: Uint8Array, from: number, to: number): void {
    const { kind, length } = operation
    const offset = operation.offset + from
    const isDone = to === length
    if (!isDone && to <= from) return
    switch (kind) {
      case 'read': {
        this.contents.read(bytes.subarray(from, to), offset)
        return
      }
      case 'write': {
        this.#remember(offset, to - from)
        this.contents.write(bytes.subarray(from, to), offset)
        return
      }
      case 'zero': {
        this.#remember(offset, to - from)
        this.contents.clear(offset, to - from)
        this.contents.extend(operation.offset + to)
        return
      }
      case 'punch': {
        if (!isDone) return
        this.#remember(operation.offset, length)
        this.contents.clear(operation.offset, length)
        return
      }
      case 'allocate': {
        this.contents.extend(operation.offset + to)
        return
      }
      case 'truncate': {
        this.contents.truncate(operation.offset)
        for (const sector of this.#unsynced.keys()) {
          if (sector * sectorSize >= operation.offset) this.#unsynced.delete(sector)
        }
        return
      }
      case 'sync':
        return undefined
    }
  }

  /** Before a range changes: what is durable there. */
  #remember(offset: number, length: number): void {
    if (!this.#mayLose) return
    const last = Math.ceil((offset + length) / sectorSize)
    for (let sector = Math.floor(offset / sectorSize); sector < last; sector++) {
      if (this.#unsynced.has(sector)) continue
      const bytes = new Uint8Array(sectorSize)
      this.contents.read(bytes, sector * sectorSize)
      this.#unsynced.set(sector, bytes)
    }
  }

  /** @returns what the sync is to make durable */
  #beginSync(): Durable {
    const covered = this.#unsynced
    this.#unsynced = new Map()
    return covered
  }

  #lose(covered: Durable, loses: (sector: number) => boolean): void {
    const { length } = this.contents
    for (const [sector, bytes] of covered) {
      // What was written while the sync ran is still to be written back.
      const isLater = this.#unsynced.has(sector)
      if (isLater) this.#unsynced.set(sector, bytes)
      else if (loses(sector) && sector * sectorSize < length) {
        this.contents.write(bytes.subarray(0, length - sector * sectorSize), sector * sectorSize)
      }
    }
  }

  #schedule(): void {
    if (this.#scheduled || this.#pending.length === 0) return
    this.#scheduled = true
    const run = (): void => {
      this.#scheduled = false
      this.#run()
      this.#schedule()
    }
    // Now and then within the same turn: a caller must not rely on a pause either.
    if (this.#random !== undefined && this.#random() < 0.25) queueMicrotask(run)
    else setImmediate(run)
  }

  /** Without a seed all that is pending, in its order; with one some of it, in any order. */
  #run(): void {
    const random = this.#random
    if (random === undefined) {
      const steps = this.#pending
      this.#pending = []
      for (const step of steps) step()
      return
    }
    for (let count = 1 + Math.floor(random() * this.#pending.length); count > 0; count--) {
      const [step] = this.#pending.splice(Math.floor(random() * this.#pending.length), 1)
      step?.()
    }
  }
}

/** Marsaglia's xorshift with 32 bits of state. @returns numbers in [0, 1) */
function xorshift(seed: number): () => number {
  // Zero would stay zero; the multiplier spreads small seeds over all bits.
  let state = Math.imul(seed + 1, 0x9e3779b1) | 0 || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
}
