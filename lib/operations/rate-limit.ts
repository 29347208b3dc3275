import { setTimeout as delay } from 'node:timers/promises'

/** The longest that a timer of Node's can wait, in milliseconds. */
const longestDelay = 2 ** 31 - 1

/** A clock, in milliseconds. */
export type Clock = {
  readonly now: () => number
  readonly wait: (milliseconds: number, signal: AbortSignal | undefined) => Promise<void>
}

const realClock: Clock = {
  now: () => performance.now(),
  wait: (milliseconds, signal) =>
    delay(milliseconds, undefined, signal === undefined ? {} : { signal }).catch((error: unknown) => {
      signal?.throwIfAborted()
      throw error
    }),
}

/** Lets begin no more than so many bytes a second; they run side by side as before. */
export class RateLimit {
  readonly #bytesPerSecond: number
  readonly #clock: Clock
  /** When the next bytes may begin. */
  #free = Number.NEGATIVE_INFINITY

  /** @param bytesPerSecond  > 0 */
  constructor(bytesPerSecond: number, clock = realClock) {
    this.#bytesPerSecond = bytesPerSecond
    this.#clock = clock
  }

  /** Resolves when the bytes may begin. @throws the signal's reason */
  async take(bytes: number, signal: AbortSignal | undefined): Promise<void> {
    const start = Math.max(this.#clock.now(), this.#free)
    this.#free = start + (bytes / this.#bytesPerSecond) * 1000
    for (let left = start - this.#clock.now(); left > 0; left = start - this.#clock.now()) {
      await this.#clock.wait(Math.min(left, longestDelay), signal)
    }
  }
}

/** @param bytesPerSecond  undefined or 0: as many as there are */
export function rateLimitOf(bytesPerSecond: number | undefined): RateLimit | undefined {
  return bytesPerSecond === undefined || bytesPerSecond === 0 ? undefined : new RateLimit(bytesPerSecond)
}
