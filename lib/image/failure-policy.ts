import { Qcow2Error } from '../base/errors.js'

/**
 * What a failed change of the guest's does: 'report' rejects it; 'enospc' holds it back while the host has no space, and
 * reports anything else; 'stop' holds it back after any failed write. What is held back runs again at `resume()`.
 */
export type OnError = 'report' | 'stop' | 'enospc'

/** What a VM manager must know before its guest's next flush. */
export type ImageEvent = {
  readonly type: 'corrupt' | 'poisoned' | 'no-space'
  readonly error: Qcow2Error
  /** The request waits for `resume()`. */
  readonly stopped: boolean
}

/** Reports the failures of one image to its owner, and holds requests back as the owner wishes. */
export class FailurePolicy {
  readonly #onError: OnError
  readonly #onEvent: ((event: ImageEvent) => void) | undefined
  /** Requests that wait for resume(). */
  #held: { readonly again: () => void; readonly giveUp: () => void }[] = []
  #closed = false
  #poisoned = false

  constructor(onError: OnError, onEvent: ((event: ImageEvent) => void) | undefined) {
    this.#onError = onError
    this.#onEvent = onEvent
  }

  /** Run a request. Its failure is told; a change may then wait and run again from the start. */
  async run<T>(request: () => Promise<T>, kind: 'read' | 'change'): Promise<T> {
    for (;;) {
      try {
        return await request()
      } catch (error) {
        if (!(error instanceof Qcow2Error)) throw error
        const stops = kind === 'change' && !this.#closed && this.#stopsFor(error)
        this.#tell(error, stops)
        if (!stops) throw error
        await new Promise<void>((resolve, reject) => {
          this.#held.push({ again: resolve, giveUp: () => reject(error) })
        })
      }
    }
  }

  /** Tell of a failure that no request has met yet. */
  notice(error: Qcow2Error): void {
    this.#tell(error, false)
  }

  /** Run again what was held back. */
  resume(): void {
    const held = this.#held
    this.#held = []
    for (const { again } of held) again()
  }

  /** Nothing waits any longer: what was held back fails with what stopped it. */
  close(): void {
    this.#closed = true
    const held = this.#held
    this.#held = []
    for (const { giveUp } of held) giveUp()
  }

  #stopsFor(error: Qcow2Error): boolean {
    if (error.code === 'ERR_NO_SPACE') return this.#onError !== 'report'
    return error.code === 'ERR_IO' && this.#onError === 'stop'
  }

  #tell(error: Qcow2Error, stopped: boolean): void {
    if (error.code === 'ERR_CORRUPT') this.#onEvent?.({ type: 'corrupt', error, stopped })
    if (error.code === 'ERR_POISONED' && !this.#poisoned) {
      // Every request fails with it from now on: once is enough.
      this.#poisoned = true
      this.#onEvent?.({ type: 'poisoned', error, stopped })
    }
    if (error.code === 'ERR_NO_SPACE') this.#onEvent?.({ type: 'no-space', error, stopped })
  }
}
