/** A run of guest clusters that one request has for itself. */
export type RangeLock = {
  readonly first: number
  readonly last: number
  readonly granted: (() => void) | undefined
  /** Its index among those that are held. */
  place: number
}

/**
 * Exclusive locks on runs of guest clusters, first come first served. Whoever changes the mapping of clusters holds one from before it looks
 * them up until the change is made: two writes to one unallocated cluster, a copy around one write and the bytes of another, a discard
 * in the middle of an allocation (H1, H2, H3, H9). Reads and writes in place need none: they act on the mapping of one moment, and
 * ActiveRequests keeps the cluster for them.
 */
export class RangeLocks {
  /** In no order. */
  readonly #held: RangeLock[] = []
  #waiting: RangeLock[] = []

  /** @returns the lock, or a promise of it; hand it to `release` */
  acquire(first: number, last: number): RangeLock | Promise<RangeLock> {
    if (this.#isFree(first, last, this.#waiting.length)) {
      const lock: RangeLock = { first, last, granted: undefined, place: 0 }
      this.#hold(lock)
      return lock
    }
    return this.#wait(first, last)
  }

  /** Apart: a call makes what the closures of a function share, whether it comes to them or not. */
  #wait(first: number, last: number): Promise<RangeLock> {
    return new Promise((resolve) => {
      const lock: RangeLock = { first, last, granted: () => resolve(lock), place: 0 }
      this.#waiting.push(lock)
    })
  }

  release(lock: RangeLock): void {
    const moved = this.#held.pop()
    if (moved !== undefined && moved !== lock) this.#held[(moved.place = lock.place)] = moved
    if (this.#waiting.length === 0) return
    const still: RangeLock[] = []
    const candidates = this.#waiting
    this.#waiting = still
    for (const waiter of candidates) {
      // Behind whoever came earlier and still waits: a stream of small requests does not starve a large one.
      if (this.#isFree(waiter.first, waiter.last, still.length)) {
        this.#hold(waiter)
        waiter.granted?.()
      } else still.push(waiter)
    }
  }

  #hold(lock: RangeLock): void {
    lock.place = this.#held.push(lock) - 1
  }

  #isFree(first: number, last: number, waitersAhead: number): boolean {
    for (const other of this.#held) if (other.first <= last && first <= other.last) return false
    for (let index = 0; index < waitersAhead; index++) {
      const other = this.#waiting[index]
      if (other !== undefined && other.first <= last && first <= other.last) return false
    }
    return true
  }
}
