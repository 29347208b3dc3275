/** What waits in the queue now. */
export type Queued = { readonly bytes: number; readonly nodes: number }

type Queue = {
  queued(): Queued
  /** Whether nothing will ever be written any more. */
  failed(): boolean
  /** Start to write what is queued. */
  drain(): void
}

/**
 * Bounds what the queue holds: an operation takes room before it writes data, and waits until there is some. First come, first
 * served. What is taken and not yet given back counts like what is queued.
 */
export class Admission {
  /** Operations that had to wait. */
  waits = 0
  readonly #limits: Queued
  readonly #queue: Queue
  /** Bytes taken by operations that have not yet queued their nodes. */
  #taken = 0
  readonly #waiting: { readonly bytes: number; readonly go: () => void }[] = []

  constructor(limits: Queued, queue: Queue) {
    this.#limits = limits
    this.#queue = queue
  }

  /** @returns undefined when there was room at once; else a promise that resolves when the room has been taken */
  admit(bytes: number): Promise<void> | undefined {
    if (this.#waiting.length === 0 && this.#hasRoom(bytes)) {
      this.#taken += bytes
      return undefined
    }
    this.waits++
    return new Promise((go) => {
      this.#waiting.push({ bytes, go })
      this.#queue.drain()
    })
  }

  release(bytes: number): void {
    this.#taken -= bytes
    this.progressed()
  }

  /** There may be more room than before. */
  progressed(): void {
    let next = this.#waiting[0]
    if (next === undefined) return
    while (next !== undefined && this.#hasRoom(next.bytes)) {
      this.#taken += next.bytes
      this.#waiting.shift()
      next.go()
      next = this.#waiting[0]
    }
    if (next !== undefined) this.#queue.drain()
  }

  #hasRoom(bytes: number): boolean {
    // A failed queue holds nobody up: whoever goes on learns of the failure.
    if (this.#queue.failed()) return true
    const queued = this.#queue.queued()
    const used = queued.bytes + this.#taken
    // Alone, even an operation that asks for more than there is must go on.
    return used === 0 || (used + bytes <= this.#limits.bytes && queued.nodes < this.#limits.nodes)
  }
}
