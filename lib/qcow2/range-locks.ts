/** A run of guest clusters that one request has for itself. */
export type RangeLock = {
  readonly first: number
  readonly last: number
  readonly granted: (() => void) | undefined
}

/**
 * Exclusive locks on runs of guest clusters, first come first served. Whoever changes the mapping of clusters holds one from before it looks
 * them up until the change is made: two writes to one unallocated cluster, a copy around one write and the bytes of another, a discard
 * in the middle of an allocation (H1, H2, H3, H9). Reads and writes in place need none: they act on the mapping of one moment, and
 * ActiveRequests keeps the cluster for them.
 */
export class RangeLocks {
  readonly #held = new Set<RangeLock>()
  #waiting: RangeLock[] = []

  /** @returns the lock, or a promise of it; hand it to `release` */
  acquire(first: number, last: number): RangeLock | Promise<RangeLock> {
    if (this.#isFree(first, last, this.#waiting.length)) {
      const lock: RangeLock = { first, last, granted: undefined }
      this.#held.add(lock)
      return lock
    }
    return this.#wait(first, last)
  }

  #wait(first: number, last: number): Promise<RangeLock> {
    return new Promise((resolve) => {
      const lock: RangeLock = { first, last, granted: () => resolve(lock) }
      this.#waiting.push(lock)
    })
  }

  release(lock: RangeLock): void {
    this.#held.delete(lock)
    if (this.#waiting.length === 0) return
    const still: RangeLock[] = []
    const candidates = this.#waiting
    this.#waiting = still
    for (const waiter of candidates) {
      // Behind whoever came earlier and still waits: a stream of small requests does not starve a large one.
      if (this.#isFree(waiter.first, waiter.last, still.length)) {
        this.#held.add(waiter)
        waiter.granted?.()
      } else still.push(waiter)
    }
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
