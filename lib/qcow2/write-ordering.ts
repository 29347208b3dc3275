import { assert } from '../base/assert.js'
import { noSection, section, type Section } from '../base/units.js'
import type { BlockBackend } from '../queue/backend.js'
import { Context } from '../queue/context.js'

/** Bytes of a table as they are in memory, and where they stand in the file: what a metadata write is made of. */
export type TableBytes = { readonly host: number; readonly bytes: Uint8Array }

/**
 * THE policy: what must be durable before what. Every barrier of the format's code is placed here, with the crash it is for.
 *
 * Whoever changes a table in memory calls one of these in the same synchronous step; that is what lets the queue fold
 * updates of one block. Each method returns the section that holds its last node.
 *
 * Within a drain round all edges run one way: refcounts up -> data -> L2 -> L1. Frees do not run against them: a refcount goes down
 * only when the write that removed the reference is durable (deferred-frees.ts). docs/ordering.md has the argument, edge by edge.
 */
export class WriteOrdering {
  readonly #backend: BlockBackend
  #countsMayLag = false
  /** Of all that was queued here. */
  #newest: Section = noSection
  /** Of the counts that went down. */
  #newestDrop: Section = noSection

  constructor(backend: BlockBackend) {
    this.#backend = backend
  }

  /**
   * Lazy refcounts: the dirty bit is durable, so whoever opens the image after a crash counts anew, and no reference waits for its count
   * (E18). Counts are queued all the same, and are exact after a flush. Their own blocks and table stay in order: a repair reads them.
   */
  letCountsLag(): void {
    this.#countsMayLag = true
  }

  /**
   * Refcounts went up, for clusters that nothing refers to yet (E1, first half). No barrier: a crash that keeps the count and
   * loses the reference leaks a cluster, no more. Whoever refers to the clusters comes after the section returned.
   */
  addReferences(refcounts: TableBytes): Section {
    return this.#chain((context) => context.write(refcounts.bytes, refcounts.host))
  }

  /**
   * Refcounts went down again, of clusters whose allocation failed before anything referred to them (H13). No barrier: at no time
   * was there a reference, so any mix of the two counts after a crash is at worst a leak.
   */
  cancelReferences(refcounts: TableBytes): Section {
    return this.addReferences(refcounts)
  }

  /**
   * Refcounts went down, the removal of the references being durable (E1 to E14, the far end of each). No barrier: that is
   * what deferring buys. A crash that loses this leaks.
   * @param removal  the section that removed the references
   */
  dropReferences(refcounts: TableBytes, removal: Section): Section {
    // A crash with the count down and the reference still there would let the next writer have the cluster: two owners.
    assert(removal <= this.#backend.durableSection, 'references are gone for good before their counts are')
    this.#newestDrop = this.#chain((context) => context.write(refcounts.bytes, refcounts.host))
    return this.#newestDrop
  }

  /**
   * A new refcount block, whose cluster has been zeroed as data.
   * @param count    the slice that holds the block's own count: one of the block's if it counts itself (E8), else another block's (E7)
   * @param counted  the section behind which clusters may be referred to that the other block counts
   * @returns the section of the refcount table's entry: whatever refers to a cluster that the block covers comes after it (E7)
   */
  publishRefcountBlock(count: TableBytes, table: TableBytes, counted: Section): Section {
    return this.#chain((context) => {
      context.write(count.bytes, count.host)
      // Guards against an entry that names a block which a block counts that is not there itself: the new one would be given out again.
      context.after(counted)
      // Guards the entry against pointing to a block whose zeros or own count are not there: counts would be garbage.
      context.afterData()
      context.barrier()
      context.write(table.bytes, table.host)
    })
  }

  /**
   * L2 entries now map clusters that were written as data: guest bytes, and what was copied around them (E1, E2, E3, E16).
   * @param allocated  the section behind which the clusters may be referred to; none when the clusters were mapped before
   */
  linkData(l2: TableBytes, allocated: Section): Section {
    return this.#chain((context) => {
      // Guards against a mapping of a cluster whose count is still 0: after a crash the next write would get it as well.
      this.#afterCounts(context, allocated)
      // Guards against a mapping of bytes that are not there: copied ones were flushed long ago, and stale ones are somebody else's.
      context.afterData()
      context.write(l2.bytes, l2.host)
    })
  }

  /**
   * L2 entries now map clusters that are durably in the file and read as zeros (`Allocation.blank`), in place of entries that read as zeros too. No barrier
   * behind the bytes: a crash that keeps the mapping and loses any of them shows the zeros that were there before.
   */
  linkBlankData(l2: TableBytes, allocated: Section): Section {
    return this.#chain((context) => {
      // Guards against a mapping of a cluster whose count is still 0, as in `linkData`.
      this.#afterCounts(context, allocated)
      context.write(l2.bytes, l2.host)
    })
  }

  /** An L1 entry now points to a new L2 table, zeroed or copied as data (E5, E6). */
  linkL2Table(l1: TableBytes, allocated: Section): Section {
    return this.#chain((context) => {
      // As for data: a table with count 0 would be given out again, and be overwritten by its second owner.
      this.#afterCounts(context, allocated)
      // Guards against an entry that makes whatever the cluster held before into a table: thousands of wild mappings.
      context.afterData()
      context.write(l1.bytes, l1.host)
    })
  }

  /** As `linkL2Table`, to an empty table in a cluster that durably reads as zeros: it is an empty table already. */
  linkBlankL2Table(l1: TableBytes, allocated: Section): Section {
    return this.#chain((context) => {
      // As in `linkL2Table`.
      this.#afterCounts(context, allocated)
      context.write(l1.bytes, l1.host)
    })
  }

  /**
   * L2 entries (or L1 entries) lost their clusters (E14, E22), or were made to read as zeros and keep them (E15). No barrier in
   * front: nothing has to be there first. What comes behind (the count, re-use, the host's punch) waits in deferred-frees.ts.
   */
  unlink(table: TableBytes): Section {
    return this.#chain((context) => context.write(table.bytes, table.host))
  }

  /**
   * Entries of a table lost COPIED, because a snapshot is to share what they refer to (E11, E13). No barrier: until the header names the
   * snapshot there is one owner, which then copies without need. That the header does not name it while an entry that is COPIED on disk
   * lets the next session write into it, is seen to by `switchHeader`.
   */
  share(table: TableBytes): Section {
    return this.#chain((context) => context.write(table.bytes, table.host))
  }

  /** Entries are COPIED as they were before `share`: the snapshot has not come about. No barrier: there was one owner all the time. */
  unshare(table: TableBytes): Section {
    return this.share(table)
  }

  /** Entries became COPIED, because the snapshot that shared what they refer to is gone (E12). */
  ownAlone(table: TableBytes): Section {
    return this.#chain((context) => {
      // Guards against an entry that says one owner beside a count that says two: a crash would leave what checkers call a corruption.
      context.after(this.#newestDrop)
      context.write(table.bytes, table.host)
    })
  }

  /**
   * Switch a pointer in the header to new tables that were written as data (E9 to E13), or change its size (E21, E22) or features.
   * All fields that change lie in the first 512-byte sector, so that the switch is atomic. Resolves when it is durable.
   * @param change    makes the change in memory and returns the header; called when everything before is durable, in the step that queues it
   * @param switched  called in the same step: from here on the change counts, whatever fails then; what it replaced can be freed behind `section`
   */
  async switchHeader(change: () => TableBytes, switched?: (section: Section) => void): Promise<void> {
    // Guards against a header that names tables which are not there, or counts that are not: everything before is durable first.
    await this.#backend.flush()
    const placed = this.#chain((context) => {
      const header = change()
      context.write(header.bytes, header.host)
    })
    switched?.(placed)
    // Guards what follows (the first write under new features, the host's truncate) against the old header.
    await this.#backend.durable(placed)
  }

  /**
   * Give the header other strings, which may reach behind its first sector (E23). Everything before is durable first: of a header that names another
   * backing file, the clusters that only the old one had. Resolves when it is durable.
   * @param change    makes the change in memory and returns what to queue: see `HeaderCluster.rewrite`; called when everything before is durable
   * @param switched  as for `switchHeader`
   */
  async rewriteHeader(
    change: () => { beyond: readonly TableBytes[]; first: TableBytes },
    switched?: (section: Section) => void,
  ): Promise<void> {
    // Guards against a header with the new name whose disk still lacks what was copied from the old backing file, and against one that names a
    // bitmap directory which is not there, nor its tables, bits and counts (E20).
    await this.#backend.flush()
    const { beyond, first } = change()
    const placed = this.replaceStrings(beyond, first)
    switched?.(placed)
    // Guards the next step, which re-uses the places of strings that this one has left, and whoever then deletes the old backing file.
    await this.#backend.durable(placed)
  }

  /**
   * The bitmap directory has been written again in place, as data: it says of the bitmaps that follow the disk that they are in use, and that what is
   * stored of them is out of date (E19). Of each entry one word changes, so that it may tear between entries.
   */
  async bitmapsInUse(): Promise<void> {
    // Guards against a guest's write that is there, and a bitmap that says of itself that it knows all changes, and not this one.
    await this.#backend.flush()
  }

  /** The new strings, then the sector that points to them (E23). */
  replaceStrings(beyond: readonly TableBytes[], first: TableBytes): Section {
    return this.#chain((context) => {
      for (const piece of beyond) context.write(piece.bytes, piece.host)
      // Guards against a first sector that points to strings which are not there: another file's name, or half of one.
      if (beyond.length > 0) context.barrier()
      context.write(first.bytes, first.host)
    })
  }

  /** The section with which all data is durable that has been written by now: a sync stands behind it that has not started. */
  durableWithData(): Section {
    return section(this.#backend.sectionAfterData() - 1)
  }

  /**
   * Data that metadata will refer to has been written. Where every write is synced, that means durable: the queue is off, and
   * no later sync would come in time. Otherwise the barrier in front of the link does it, for many at once.
   * @returns what to wait for, if anything
   */
  dataWritten(): Promise<void> | undefined {
    return this.#backend.syncPolicy === 'write' ? this.#backend.flush() : undefined
  }

  /**
   * A request ends: where every write is synced its metadata is durable before it completes, otherwise that is left to a flush.
   * @returns what to wait for, if anything
   */
  completed(section: Section): Promise<void> | undefined {
    return this.#backend.syncPolicy === 'write' ? this.#backend.durable(section) : undefined
  }

  /**
   * A request ends that found everything as it should become. Another one may have made it so that is not durable yet, or never will be for lack of
   * room: where every write is synced, this one must not say so before.
   * @returns what to wait for, if anything
   */
  unchanged(): Promise<void> | undefined {
    return this.#newest > this.#backend.durableSection ? this.completed(this.#newest) : undefined
  }

  #afterCounts(context: Context, allocated: Section): void {
    if (!this.#countsMayLag) context.after(allocated)
  }

  #chain(write: (context: Context) => void): Section {
    const context = new Context(this.#backend)
    write(context)
    assert(context.section > noSection, 'a chain writes something')
    if (context.section > this.#newest) this.#newest = context.section
    return context.section
  }
}
