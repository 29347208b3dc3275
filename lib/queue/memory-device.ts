import type { Section } from '../base/units.js'
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

/** Decides whether an operation fails: an errno, positive, or undefined. What fails changes nothing. */
export type Fault = (operation: DeviceOperation) => number | undefined

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
}

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
  /** What will happen next, in some order. */
  #pending: (() => void)[] = []
  #scheduled = false
  #operations = 0

  constructor(options: MemoryDeviceOptions) {
    this.contents = options.contents
    this.#record = options.record
    this.#fault = options.fault
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
    const errno = this.#fault?.({ ...operation, index }) ?? 0
    const source = this.#begin(operation, index, bytes ?? noBytes)
    this.later(() => {
      if (errno === 0) this.#apply(operation, source)
      if (this.#record) this.#end(operation.kind, index, errno)
      over(errno)
    })
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

  #apply({ kind, offset, length }: Omit<DeviceOperation, 'index'>, bytes: Uint8Array): void {
    switch (kind) {
      case 'read': {
        this.contents.read(bytes, offset)
        return
      }
      case 'write': {
        this.contents.write(bytes, offset)
        return
      }
      case 'zero':
        this.contents.clear(offset, length)
        {
          this.contents.extend(offset + length)
          return
        }
      case 'punch': {
        this.contents.clear(offset, length)
        return
      }
      case 'allocate': {
        this.contents.extend(offset + length)
        return
      }
      case 'truncate': {
        this.contents.truncate(offset)
        return
      }
      case 'sync':
        return undefined
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
