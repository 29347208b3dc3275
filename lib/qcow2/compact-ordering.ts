import type { BlockBackend } from '../queue/backend.js'

/**
 * The barriers of compaction (E25). Nothing else uses the image meanwhile. Whatever is moved goes to clusters that nothing refers to, and every reference of
 * the format is one field of 8 bytes, which lies within a sector: so each is the old one or the new one after a crash, and both are right as long as both
 * places hold the same and are counted.
 */
export class CompactOrdering {
  readonly #backend: BlockBackend

  constructor(backend: BlockBackend) {
    this.#backend = backend
  }

  /**
   * Clusters have been copied, and are counted as often in their new places; what refers to them is next. Without the barrier a crash could leave an entry
   * that names a cluster which does not hold the bytes yet, or whose count is 0: the next writer would be given it.
   */
  async copied(): Promise<void> {
    await this.#backend.flush()
  }

  /**
   * All that referred to the old places refers to the new ones; counts of the old ones go down next, and others are copied there. Without the barrier a
   * crash could keep an entry and lose the count of what it names, or show somebody else's bytes there.
   */
  async switched(): Promise<void> {
    await this.#backend.flush()
  }

  /**
   * A refcount block is written that counts itself, and nothing names it; its entry in the table is next. Without the barrier a crash could leave an entry
   * that names a block of garbage counts.
   */
  async blockWritten(): Promise<void> {
    await this.#backend.flush()
  }

  /**
   * Blocks that count nothing are named no more; their own counts go down next. Without the barrier a crash could keep the entry of a block whose cluster
   * is free: the next writer would be given it.
   */
  async blocksDropped(): Promise<void> {
    await this.#backend.flush()
  }

  /**
   * Counts are what they will be; the file is cut next, and what is free in it punched. Without the barrier a crash could leave counts of clusters that
   * the file does not have any more.
   */
  async settled(): Promise<void> {
    await this.#backend.flush()
  }

  /** All of it is durable when it ends. */
  async over(): Promise<void> {
    await this.#backend.flush()
  }
}
