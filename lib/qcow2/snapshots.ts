import type { LongWork } from '../base/abort.js'
import { assert } from '../base/assert.js'
import { notSupported } from '../base/errors.js'
import type { Section } from '../base/units.js'
import type { FormatSnapshots, Snapshot, SnapshotReference, SnapshotSpace } from '../queue/format-image.js'
import type { Bitmaps } from './bitmaps.js'
import { refuseDataFile } from './data-file.js'
import { alone, type Parts, refuseUnsound } from './parts.js'
import type { SessionMarks } from './session-marks.js'
import { applySnapshot } from './snapshot-apply.js'
import { createSnapshot } from './snapshot-create.js'
import { deleteSnapshot } from './snapshot-delete.js'
import { describeSnapshot, findSnapshot, type StoredSnapshot } from './snapshot-entry.js'
import type { SnapshotList } from './snapshot-list.js'
import { snapshotSpace } from './snapshot-space.js'
import { settle, snapshotNotFound, type SnapshotWork, stepsOf } from './snapshot-work.js'

/** The size of the disk, which applying a snapshot may change. */
export type DiskSize = { readonly get: () => number; readonly set: (size: number) => void }

/** What an operation has left to do when its switch is durable. */
type Unfinished = { readonly removal: Section; readonly finish: () => Promise<void> }

/**
 * The internal snapshots of an open image. Each operation has the image for itself: requests wait until it is over (H11).
 *
 * An operation counts from the switch of the header on. What fails after that (counts that cannot be lowered for want of their block) is no
 * failure of the operation: it is tried again before the next one, and by closing, which reports it. Until then clusters are leaked.
 */
export class Snapshots implements FormatSnapshots {
  readonly #parts: Parts
  readonly #list: SnapshotList
  readonly #marks: SessionMarks
  readonly #bitmaps: Pick<Bitmaps, 'count'>
  readonly #size: DiskSize
  #unfinished: Unfinished | undefined

  constructor(
    parts: Parts,
    list: SnapshotList,
    marks: SessionMarks,
    bitmaps: Pick<Bitmaps, 'count'>,
    size: DiskSize,
  ) {
    this.#parts = parts
    this.#list = list
    this.#marks = marks
    this.#bitmaps = bitmaps
    this.#size = size
  }

  /** @throws ERR_CORRUPT, ERR_IO */
  async list(): Promise<Snapshot[]> {
    return (await this.#load()).map(describeSnapshot)
  }

  /** Requests wait meanwhile. @throws ERR_CORRUPT, ERR_IO, ERR_NOT_SUPPORTED; the signal's reason */
  async space(work: LongWork): Promise<SnapshotSpace[]> {
    work.signal?.throwIfAborted()
    const { active, backend } = this.#parts
    return await active.exclusively(async () => {
      if (!backend.readOnly && backend.poisoned === undefined) {
        await this.finish()
        await settle(this.#parts)
      }
      return await snapshotSpace(this.#parts, this.#list, stepsOf(work)('references'))
    })
  }

  async #load(): Promise<StoredSnapshot[]> {
    const { active, frees } = this.#parts
    while (active.gate !== undefined) await active.gate
    // The ticket keeps the table where it is.
    const ticket = active.begin()
    try {
      return await this.#list.load()
    } finally {
      active.end(ticket)
      if (frees.pending) frees.release()
    }
  }

  /** Each of these returns what runs the operation. Run again after a failure, it does not begin anew if the header was switched already. */
  creating(name: string, work: LongWork): () => Promise<Snapshot> {
    return this.#operation<Snapshot>(work, (snapshotWork) => createSnapshot(snapshotWork, name, new Date()))
  }

  applying(reference: SnapshotReference, work: LongWork): () => Promise<void> {
    const first = async (): Promise<void> => {
      this.#refuseBitmaps()
      await this.#mustFind(reference, 'id')
    }
    return this.#operation<undefined>(work, (snapshotWork) => applySnapshot(snapshotWork, reference), first)
  }

  deleting(reference: SnapshotReference, work: LongWork): () => Promise<void> {
    const first = (): Promise<void> => this.#mustFind(reference, 'name')
    return this.#operation<undefined>(work, (snapshotWork) => deleteSnapshot(snapshotWork, reference), first)
  }

  /** What an operation has left to do. While no request runs. @throws what fails; then it is still left */
  async finish(): Promise<void> {
    if (this.#unfinished === undefined) return
    const { removal, finish } = this.#unfinished
    await this.#parts.backend.durable(removal)
    await finish()
    this.#unfinished = undefined
  }

  /** @param first  done before anything is written: it may refuse */
  #operation<T>(
    work: LongWork,
    run: (work: SnapshotWork<T>) => Promise<void>,
    first: () => Promise<void> = () => Promise.resolve(),
  ): () => Promise<T> {
    const results: T[] = []
    const snapshotWork: Omit<SnapshotWork<T>, 'size'> = {
      parts: this.#parts,
      list: this.#list,
      resized: this.#size.set,
      steps: stepsOf(work),
      switched: (removal, value, finish) => {
        results.push(value)
        this.#unfinished = { removal, finish }
      },
    }
    const perform = async (): Promise<T> => {
      refuseUnsound(this.#parts)
      await this.finish()
      if (results.length === 0) {
        await settle(this.#parts)
        await run({ ...snapshotWork, size: this.#size.get() })
        // A leak at worst until it is tried again; see above.
        await this.finish().catch(() => undefined)
      }
      assert(results.length === 1, 'what succeeds has switched the header, once')
      return results[0] as T
    }
    return async () => {
      refuseDataFile(this.#parts, 'Internal snapshots')
      refuseUnsound(this.#parts)
      if (results.length === 0) {
        work.signal?.throwIfAborted()
        await first()
      }
      await this.#marks.set()
      return await alone(this.#parts, perform)
    }
  }

  /** Before anything is written for it: what is not there leaves the image as it is, to the autoclear bits. */
  async #mustFind(reference: SnapshotReference, first: 'id' | 'name'): Promise<void> {
    if (findSnapshot(await this.#load(), reference, first) !== undefined) return
    throw snapshotNotFound(this.#parts.backend.path, reference)
  }

  /** A bitmap says what has changed on the disk since a time; after going back to a snapshot it would be wrong. As QEMU. */
  #refuseBitmaps(): void {
    if (this.#bitmaps.count === 0) return
    throw notSupported('Device has active dirty bitmaps', { path: this.#parts.backend.path })
  }
}
