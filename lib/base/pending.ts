/** Counts what has begun and not ended, for those who wait until all of it has. */
export class Pending {
  #count = 0
  #waiting: (() => void)[] = []

  begin(): void {
    this.#count++
  }

  /** Bound: may be handed on as it is. */
  readonly end = (): void => {
    this.#count--
    if (this.#count > 0) return
    const waiting = this.#waiting
    this.#waiting = []
    for (const resume of waiting) resume()
  }

  /** Resolves when nothing is pending. Whoever wants it to come to that lets nothing begin meanwhile. */
  async ended(): Promise<void> {
    while (this.#count > 0) await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }
}
