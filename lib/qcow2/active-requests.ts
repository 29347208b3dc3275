import { NumberMap } from '../base/number-map.js'

/**
 * Which requests are running, in the order in which they began.
 *
 * This is what keeps a freed cluster from a second owner while somebody still reads or writes it (gate G3, hazards H5 and H6): a
 * cluster that was unlinked when ticket n was the newest is let go once no ticket up to n is running, for only those can have looked up
 * the old mapping. One counter instead of a pin for every cluster of every request.
 */
export class ActiveRequests {
  #newest = 0
  readonly #running = new NumberMap<true>()
  /** None below this is running. */
  #oldest = 1
  #idle: (() => void)[] = []
  /** Resumed whenever a request ends: to look again. */
  #watching: (() => void)[] = []
  #gate: Promise<void> | undefined

  /** Set while an operation has the image for itself: requests wait for it before they begin. */
  get gate(): Promise<void> | undefined {
    return this.#gate
  }

  get newest(): number {
    return this.#newest
  }

  /** @returns the request's ticket */
  begin(): number {
    const ticket = ++this.#newest
    this.#running.set(ticket, true)
    return ticket
  }

  end(ticket: number): void {
    this.#running.delete(ticket)
    if (this.#watching.length > 0) {
      const watching = this.#watching
      this.#watching = []
      for (const resume of watching) resume()
    }
    if (this.#running.size === 0 && this.#idle.length > 0) {
      const waiting = this.#idle
      this.#idle = []
      for (const resume of waiting) resume()
    }
  }

  /** Whether a request is still running that had begun when `ticket` was the newest. */
  anyUpTo(ticket: number): boolean {
    while (this.#oldest <= this.#newest && this.#running.get(this.#oldest) === undefined) this.#oldest++
    return this.#oldest <= Math.min(ticket, this.#newest)
  }

  /** Resolves when no request is running any more that had begun when `ticket` was the newest. The caller must not be one of them. */
  async endedUpTo(ticket: number): Promise<void> {
    while (this.anyUpTo(ticket)) await new Promise<void>((resolve) => this.#watching.push(resolve))
  }

  /** Resolves when nothing is running. */
  async drained(): Promise<void> {
    while (this.#running.size > 0) await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  /** Run `work` while no request is, and none begins (H10, H11). One after the other. */
  async exclusively<T>(work: () => Promise<T>): Promise<T> {
    while (this.#gate !== undefined) await this.#gate
    let open = (): void => undefined
    this.#gate = new Promise((resolve) => {
      open = resolve
    })
    try {
      await this.drained()
      return await work()
    } finally {
      this.#gate = undefined
      open()
    }
  }
}
