/** Access to a run of sectors. 'part': less than a whole sector is to change, by reading and writing it. */
export type SectorUse = 'read' | 'whole' | 'part'

export type SectorAccess = {
  readonly first: number
  readonly last: number
  readonly use: SectorUse
  readonly granted: () => void
}

/**
 * Who uses which sectors of an encrypted file. A sector is encrypted as one, so that changing a part of it is reading it, changing it and writing it back:
 * meanwhile nobody else may write to it, or what he wrote is undone, nor read it, since half of an encrypted block is none.
 * Everything else may go on at once, as on a disk. First come, first served.
 */
export class SectorGate {
  readonly #held = new Set<SectorAccess>()
  #waiting: SectorAccess[] = []
  /** Of those held and waiting: as long as there are none, nobody waits for anybody. */
  #parts = 0

  /** @returns the access, or a promise of it; hand it to `leave` */
  enter(first: number, last: number, use: SectorUse): SectorAccess | Promise<SectorAccess> {
    if (use === 'part') this.#parts++
    const wanted: SectorAccess = { first, last, use, granted: () => undefined }
    if (this.#isFree(wanted, this.#waiting)) {
      this.#held.add(wanted)
      return wanted
    }
    return new Promise((resolve) => {
      const access: SectorAccess = { first, last, use, granted: () => resolve(access) }
      this.#waiting.push(access)
    })
  }

  leave(access: SectorAccess): void {
    this.#held.delete(access)
    if (access.use === 'part') this.#parts--
    if (this.#waiting.length === 0) return
    const candidates = this.#waiting
    const still: SectorAccess[] = []
    for (const waiter of candidates) {
      if (this.#isFree(waiter, still)) {
        this.#held.add(waiter)
        waiter.granted()
      } else still.push(waiter)
    }
    this.#waiting = still
  }

  #isFree(wanted: SectorAccess, ahead: readonly SectorAccess[]): boolean {
    if (this.#parts === 0) return true
    for (const other of this.#held) if (collide(wanted, other)) return false
    return !ahead.some((other) => collide(wanted, other))
  }
}

function collide(a: SectorAccess, b: SectorAccess): boolean {
  return (a.use === 'part' || b.use === 'part') && a.first <= b.last && b.first <= a.last
}
