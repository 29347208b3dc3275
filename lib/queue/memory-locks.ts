/** The byte range locks of one file in memory, as the system keeps those of a file: each holder has its own, and they end with it. */
export class MemoryLocks {
  readonly #holders = new Set<Set<number>>()

  /** Somebody who has the file open. It holds nothing yet. */
  join(): LockHolder {
    const own = new Set<number>()
    this.#holders.add(own)
    const somebodyElseHas = (byte: number): boolean =>
      [...this.#holders].some((holder) => holder !== own && holder.has(byte))
    return {
      lock: (held, tested) => {
        const conflict = tested.find(somebodyElseHas)
        if (conflict === undefined) for (const byte of held) own.add(byte)
        return conflict
      },
      unlock: (held) => {
        for (const byte of held) own.delete(byte)
      },
      leave: () => void this.#holders.delete(own),
    }
  }
}

export type LockHolder = {
  /** As `BlockBackend.lock`. */
  readonly lock: (held: readonly number[], tested: readonly number[]) => number | undefined
  readonly unlock: (held: readonly number[]) => void
  /** Let go of all. */
  readonly leave: () => void
}
