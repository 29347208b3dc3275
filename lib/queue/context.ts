import { noSection, section, type Section } from '../base/units.js'
import type { BlockBackend } from './backend.js'

/**
 * One chain of dependent metadata writes: what is written before `barrier()` is durable before what is written after it.
 * Barriers order within their context only; those of independent contexts that fall in the same place cost one sync.
 */
export class Context {
  readonly #backend: BlockBackend
  /** The lowest section that the next node may go to. */
  #position: Section = noSection
  /** The highest section that holds a node of this chain. */
  #highest: Section = noSection

  constructor(backend: BlockBackend) {
    this.#backend = backend
  }

  /** The highest section so far: what must be durable for this chain to be. */
  get section(): Section {
    return this.#highest
  }

  /** Queue a node; copies the bytes. @returns the section it went to */
  write(bytes: Uint8Array, offset: number): Section {
    const placed = this.#backend.enqueue(bytes, offset, this.#position)
    if (placed > this.#highest) this.#highest = placed
    return placed
  }

  /** All nodes of this chain so far are durable before its next one. */
  barrier(): void {
    this.#backend.countBarrier()
    this.after(this.#highest)
  }

  /** The nodes of `predecessor` and below are durable before the next one of this chain. */
  after(predecessor: Section): void {
    if (predecessor > this.#highest) this.#highest = predecessor
    if (predecessor >= this.#position) this.#position = section(predecessor + 1)
  }

  /** All data writes that have completed are durable before the next node of this chain. */
  afterData(): void {
    this.#backend.countBarrier()
    const behind = this.#backend.sectionAfterData()
    if (behind > this.#position) this.#position = behind
  }
}
