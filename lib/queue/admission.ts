/** What waits in the queue, or may. */
export type Queued = { readonly bytes: number; readonly nodes: number }

export type BoundedQueue = {
  queued(): Queued
  /**
   * Why the queue writes nothing now: `forGood` after a failure that nobody understands, otherwise until it is asked once more
   * (the disk was full).
   */
  failure(): { readonly error: Error; readonly forGood: boolean } | undefined
  /**
   * Start to write what is queued. `queued` and `failure` may lag behind what has happened; after this they do not. Throws when it cannot be
   * done.
   */
  drain(): void
}

type Waiter = {
  readonly bytes: number
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

/**
 * Bounds what the queue holds: an operation takes room before it writes data, and waits until there is some. First come, first
 * served. What is taken and not yet given back counts like what is queued.
 *
 * Whoever waits here must hold nothing that an operation with room may wait for, or neither goes on.
 */
export class Admission {
  /** Operations that had to wait. */
  waits = 0
  readonly #limits: Queued
  readonly #queue: BoundedQueue
  /** Bytes taken by operations that have not yet queued their nodes. */
  #taken = 0
  readonly #waiting: Waiter[] = []

  constructor(limits: Queued, queue: BoundedQueue) {
    this.#limits = limits
    this.#queue = queue
  }

  /**
   * @returns undefined when there was room at once; else a promise that resolves when the room has been taken, and rejects when
   *   there will be none: the disk is full, or the queue has failed
   */
  admit(bytes: number): Promise<void> | undefined {
    if (this.#waiting.length === 0 && this.#hasRoom(bytes)) {
      this.#taken += bytes
      return undefined
    }
    return this.#wait(bytes)
  }

  /** Apart: a call makes what the closures of a function share, whether it comes to them or not. */
  #wait(bytes: number): Promise<void> {
    const failure = this.#queue.failure()
    if (failure?.forGood) return Promise.reject(failure.error)
    this.waits++
    return new Promise((resolve, reject) => {
      this.#waiting.push({ bytes, resolve, reject })
      // Also after the disk was full: it may have room by now. If not, `progressed` will say so.
      this.#letGo()
    })
  }

  release(bytes: number): void {
    this.#taken -= bytes
    this.#letGo()
  }

  /** There may be more room than before, or none for the time being. */
  progressed(): void {
    const failure = this.#queue.failure()
    if (failure === undefined) {
      this.#letGo()
      return
    }
    this.#rejectWaiting(failure.error)
  }

  #letGo(): void {
    this.#admitWaiting()
    if (this.#waiting.length === 0) return
    try {
      this.#queue.drain()
    } catch (error) {
      // Nobody makes room for those who wait.
      this.#rejectWaiting(error as Error)
      return
    }
    // It may turn out that the queue is empty, or broken, and has not told yet. Then nothing moves that would keep the process alive
    // for those who wait.
    const failure = this.#queue.failure()
    if (failure?.forGood) this.#rejectWaiting(failure.error)
    else this.#admitWaiting()
  }

  #admitWaiting(): void {
    let next = this.#waiting[0]
    while (next !== undefined && this.#hasRoom(next.bytes)) {
      this.#taken += next.bytes
      this.#waiting.shift()
      next.resolve()
      next = this.#waiting[0]
    }
  }

  #rejectWaiting(error: Error): void {
    for (const waiter of this.#waiting.splice(0)) waiter.reject(error)
  }

  #hasRoom(bytes: number): boolean {
    const queued = this.#queue.queued()
    const used = queued.bytes + this.#taken
    // Alone, even an operation that asks for more than there is must go on.
    return used === 0 || (used + bytes <= this.#limits.bytes && queued.nodes < this.#limits.nodes)
  }
}
