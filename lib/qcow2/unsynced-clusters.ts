import type { Section } from '../base/units.js'
import type { BlockBackend } from '../queue/backend.js'
import { poisonedError } from '../queue/system-error.js'

/** Host bytes that something in memory refers to, and that are durable when `section` is. */
type Range = { readonly host: number; length: number; readonly section: Section }

/**
 * Clusters that were filled and then referred to, whose bytes no sync has made durable yet. A sync that fails may have lost them: the file then
 * shows what the cluster held before, which may be another guest offset's bytes, or no table at all. So after a failure nothing is read from them.
 * Bytes overwritten in place are not of these: they show old or new.
 *
 * The host tells of the loss a moment later than it may show; for reads that end in this moment nothing can be done.
 */
export class UnsyncedClusters {
  readonly #backend: BlockBackend
  /** By about ascending sections. */
  #ranges: Range[] = []
  /** How many at the head of `#ranges` are durable. */
  #done = 0

  constructor(backend: BlockBackend) {
    this.#backend = backend
  }

  /** @param section  of the write that refers to the bytes, which comes behind a sync that makes them durable */
  add(host: number, length: number, section: Section): void {
    const last = this.#ranges.at(-1)
    if (last !== undefined && last.section === section && last.host + last.length === host) {
      last.length += length
      return
    }
    this.#prune()
    this.#ranges.push({ host, length, section })
  }

  /** Call it when the bytes have been read. @throws ERR_POISONED  they may be others than were written */
  refuse(host: number, length: number): void {
    const { poisoned } = this.#backend
    if (poisoned === undefined) return
    const { durableSection, path } = this.#backend
    const isLost = this.#ranges.some(
      (range) =>
        range.section > durableSection && range.host < host + length && host < range.host + range.length,
    )
    if (isLost) throw poisonedError(poisoned, path)
  }

  #prune(): void {
    const { durableSection } = this.#backend
    while (this.#done < this.#ranges.length && (this.#ranges[this.#done] as Range).section <= durableSection)
      this.#done++
    if (this.#done * 2 <= this.#ranges.length) return
    this.#ranges = this.#ranges.slice(this.#done)
    this.#done = 0
  }
}
