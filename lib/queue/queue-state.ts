import type { Qcow2Error } from '../base/errors.js'
import { section, type Section } from '../base/units.js'
import type { NativeConstants } from '../native/types.js'
import type { Queued } from './admission.js'
import { poisonedError, systemError } from './system-error.js'

/** What the addon shows of a file's queue without being asked: written by it, on this thread, before it tells of anything. */
export class QueueState {
  /** For the addon. */
  readonly numbers: Float64Array
  readonly #path: string
  readonly #places: NativeConstants['state']
  #poisoned: Qcow2Error | undefined

  constructor(path: string, places: NativeConstants['state']) {
    this.#path = path
    this.#places = places
    this.numbers = new Float64Array(places.length)
  }

  get durableSection(): Section {
    return section(this.numbers[this.#places.durableSection] as number)
  }

  get queued(): Queued {
    return {
      bytes: this.numbers[this.#places.queuedBytes] as number,
      nodes: this.numbers[this.#places.queuedNodes] as number,
    }
  }

  /** The failure since which the queue cannot be believed. */
  get poisoned(): Qcow2Error | undefined {
    const errno = this.numbers[this.#places.poisoned] as number
    if (errno === 0) return undefined
    this.#poisoned ??= systemError(errno, 'metadata write or sync', { path: this.#path })
    return this.#poisoned
  }

  /** Why nothing is written now: for good, or, since the disk was full, until somebody asks again. */
  get failure(): { readonly error: Qcow2Error; readonly forGood: boolean } | undefined {
    const { poisoned } = this
    if (poisoned !== undefined) return { error: poisonedError(poisoned, this.#path), forGood: true }
    const errno = this.numbers[this.#places.stalled] as number
    if (errno === 0) return undefined
    return { error: systemError(errno, 'metadata write', { path: this.#path }), forGood: false }
  }
}
