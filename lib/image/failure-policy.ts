import { Qcow2Error } from '../base/errors.js'
import type { BlockBackend } from '../queue/backend.js'

/**
 * What a failed change of the guest's does: 'report' rejects it; 'enospc' holds it back while the host has no space, and
 * reports anything else; 'stop' holds it back after any failed write. What is held back runs again at `resume()`.
 */
export type OnError = 'report' | 'stop' | 'enospc'

/** What a VM manager must know before its guest's next flush. */
export type ImageEvent = {
  readonly type: 'corrupt' | 'poisoned' | 'no-space' | 'io-error'
  readonly error: Qcow2Error
  /** The request waits for `resume()`, and so does every change that is asked for from now on. Told once until then. */
  readonly stopped: boolean
}

/** A change that waits. */
type Held = {
  /** In the order in which changes were asked for. */
  readonly ticket: number
  readonly go: () => void
  readonly giveUp: (error: Error) => void
}

/**
 * Reports the failures of one image to its owner, and holds changes back as the owner wishes.
 *
 * While one is held back, all that are asked for wait behind it; reads go on. After `resume()`, and when all that was under way has ended, they
 * run one after the other, in the order in which they were asked for: nothing is dropped, and what goes to one place arrives in its order.
 */
export class FailurePolicy {
  readonly #onError: OnError
  readonly #onEvent: ((event: ImageEvent) => void) | undefined
  /** By ascending tickets. */
  readonly #held: Held[] = []
  #lastTicket = 0
  /** Why nothing goes on before `resume()`. */
  #stoppedBy: Qcow2Error | undefined
  /** A change that was held back runs, alone. */
  #isTurnTaken = false
  /** Changes that run. One that was asked for before others were held back may still meet the failure: it then goes before them. */
  #underWay = 0
  #closed = false
  #poisoned = false
  #corrupt = false

  constructor(onError: OnError, onEvent: ((event: ImageEvent) => void) | undefined) {
    this.#onError = onError
    this.#onEvent = onEvent
  }

  /** Run a request. Its failure is told; a change may then wait and run again from the start. */
  async run<T>(request: () => Promise<T>, kind: 'read' | 'change'): Promise<T> {
    if (kind === 'change') return this.#runChange(request, ++this.#lastTicket)
    try {
      return await request()
    } catch (error) {
      if (error instanceof Qcow2Error) this.#tell(error, false)
      throw error
    }
  }

  /** The queue of a file fails by itself, between two requests: its owner is to know before the guest's next flush does. */
  watch(backend: BlockBackend): void {
    backend.onProgress(() => {
      const cause = backend.poisoned
      if (cause === undefined) return
      const message = `Writing '${backend.path}' failed, what the disk holds is not known: ${cause.message}`
      this.notice(new Qcow2Error('ERR_POISONED', message, { path: backend.path, cause }))
    })
  }

  /** Tell of a failure that no request has met yet. */
  notice(error: Qcow2Error): void {
    this.#tell(error, false)
  }

  /** Run again what was held back, then what came after it. Nothing where nothing is held back. */
  resume(): void {
    this.#stoppedBy = undefined
    this.#letNextGo()
  }

  /** Nothing waits any longer: what was held back fails with what stopped it. */
  close(): void {
    this.#closed = true
    for (const { giveUp } of this.#held.splice(0)) giveUp(this.#stoppedBy ?? closing())
  }

  async #runChange<T>(request: () => Promise<T>, ticket: number): Promise<T> {
    let isInTurn = false
    try {
      if (this.#mustWait()) {
        await this.#hold(ticket)
        isInTurn = true
      }
      for (;;) {
        try {
          return await this.#counted(request)
        } catch (error) {
          if (!(error instanceof Qcow2Error)) throw error
          const stops = !this.#closed && this.#stopsFor(error)
          const isTold = stops && this.#stoppedBy !== undefined
          if (!stops) {
            this.#tell(error, false)
            throw error
          }
          if (isInTurn) this.#isTurnTaken = false
          isInTurn = false
          this.#stoppedBy ??= error
          // Before it is told: whoever is told may resume at once.
          const held = this.#hold(ticket)
          if (!isTold) this.#tell(error, true)
          await held
          isInTurn = true
        }
      }
    } finally {
      if (isInTurn) this.#isTurnTaken = false
      this.#letNextGo()
    }
  }

  async #counted<T>(request: () => Promise<T>): Promise<T> {
    this.#underWay++
    try {
      return await request()
    } finally {
      this.#underWay--
    }
  }

  #mustWait(): boolean {
    return !this.#closed && (this.#stoppedBy !== undefined || this.#isTurnTaken || this.#held.length > 0)
  }

  #hold(ticket: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const after = this.#held.findIndex((other) => other.ticket > ticket)
      this.#held.splice(after < 0 ? this.#held.length : after, 0, { ticket, go: resolve, giveUp: reject })
    })
  }

  #letNextGo(): void {
    if (this.#stoppedBy !== undefined || this.#isTurnTaken || this.#underWay > 0) return
    const next = this.#held.shift()
    if (next === undefined) return
    this.#isTurnTaken = true
    next.go()
  }

  /** A limit of the format has no errno: no room of the host's would help. */
  #stopsFor(error: Qcow2Error): boolean {
    if (error.errno === undefined) return false
    if (error.code === 'ERR_NO_SPACE') return this.#onError !== 'report'
    return error.code === 'ERR_IO' && this.#onError === 'stop'
  }

  #tell(error: Qcow2Error, stopped: boolean): void {
    // What changes a damaged image fails with it from then on, as with the next: once is enough.
    if (error.code === 'ERR_CORRUPT' && !this.#corrupt) {
      this.#corrupt = true
      this.#emit({ type: 'corrupt', error, stopped })
    }
    if (error.code === 'ERR_POISONED' && !this.#poisoned) {
      // Every request fails with it from now on: once is enough.
      this.#poisoned = true
      this.#emit({ type: 'poisoned', error, stopped })
    }
    if (error.code === 'ERR_NO_SPACE') this.#emit({ type: 'no-space', error, stopped })
    // Else nobody would know that there is something to resume.
    if (error.code === 'ERR_IO' && stopped) this.#emit({ type: 'io-error', error, stopped })
  }

  /** What a listener throws is its owner's to see, as with any event of Node's; no request may hang for it, or fail with it. */
  #emit(event: ImageEvent): void {
    try {
      this.#onEvent?.(event)
    } catch (error) {
      process.nextTick(() => {
        throw error
      })
    }
  }
}

function closing(): Qcow2Error {
  return new Qcow2Error('ERR_CLOSED', 'The image is being closed')
}
