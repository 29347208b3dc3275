import type { LongWork } from '../base/abort.js'
import { invalid, notSupported, outOfRange } from '../base/errors.js'
import { checkOptions, longWorkSchema, type OptionCheck } from '../base/options.js'
import type { FormatSnapshots, Snapshot, SnapshotReference, SnapshotSpace } from '../queue/format-image.js'
import type { Layer } from './layers.js'

/** Aborting leaves the image as it was. Once the operation is on its way to the disk it can no longer be aborted, and ends. */
export type SnapshotOptions = LongWork

/** What the disk lets its snapshots do. */
export type SnapshotAccess = {
  readonly checkOpen: () => void
  readonly checkWritable: () => void
  /** Run a change by the disk's rules for failures. */
  readonly change: (request: () => Promise<void>) => Promise<void>
}

/** Longer names are cut off by QEMU. Bytes of UTF-8. */
const longestName = 255

/**
 * The internal snapshots of an open image: its disk as it was, kept in the image's own file. While one is made, applied or deleted all requests to the
 * disk wait. Each is durable when it resolves, and atomic: a crash shows the state before or after it.
 *
 * Where a name is asked for, it may be an id as well. Names need not be unique; of several with one name the first in the list is meant. To be
 * exact, say `{ id }`.
 *
 * Every method rejects as those of DiskImage do, and with
 * - Qcow2Error ERR_NOT_SUPPORTED       the format has no snapshots, or the image has no room for another one
 * - Qcow2Error ERR_SNAPSHOT_NOT_FOUND  there is none that is called so
 * - the signal's reason
 * Of a rejection with ERR_NO_SPACE or ERR_IO `list()` tells whether it has happened all the same: what was queued is written by a later flush.
 */
export class DiskSnapshots {
  readonly #top: () => Layer
  readonly #access: SnapshotAccess

  /** @param top  of the disk: an overlay may take its place, but not while a change runs */
  constructor(top: () => Layer, access: SnapshotAccess) {
    this.#top = top
    this.#access = access
  }

  /** All of them, in the order in which they were made. Of a format without snapshots: none. */
  async list(): Promise<Snapshot[]> {
    this.#access.checkOpen()
    return (await this.#top().format.snapshots?.list()) ?? []
  }

  /**
   * What each of them takes in the file, in the order of `list`: how much is freed when one is deleted. All tables of all snapshots are read for
   * it. Of a format without snapshots: none.
   */
  async space(options?: SnapshotOptions): Promise<SnapshotSpace[]> {
    this.#access.checkOpen()
    const work = checkOptions('snapshots.space', options, longWorkSchema)
    return (await this.#top().format.snapshots?.space(work)) ?? []
  }

  /**
   * Freeze the disk as it is, without VM state.
   * @param name  at most 255 bytes of UTF-8
   * @returns the new snapshot; ids are "1", "2", ...
   */
  async create(name: string, options?: SnapshotOptions): Promise<Snapshot> {
    this.#access.checkWritable()
    const work = checkOptions('snapshots.create', options, longWorkSchema)
    if (typeof name !== 'string') throw invalid('snapshots.create: the name must be a string')
    if (name.includes('\0')) throw invalid('snapshots.create: the name must not contain NUL')
    if (Buffer.byteLength(name) > longestName) {
      throw outOfRange(`snapshots.create: the name must have at most ${longestName} bytes of UTF-8`)
    }
    let create: (() => Promise<Snapshot>) | undefined
    const created: Snapshot[] = []
    await this.#access.change(async () => {
      // Once, also if the request runs again after a failure.
      create ??= this.#snapshots().creating(name, work)
      created.push(await create())
    })
    return created[0] as Snapshot
  }

  /**
   * Make the disk what it was: its contents and its size. What it is now is lost, if no snapshot has it.
   * @param nameOrId  an id, or else a name
   */
  async apply(nameOrId: SnapshotReference, options?: SnapshotOptions): Promise<void> {
    this.#access.checkWritable()
    const work = checkOptions('snapshots.apply', options, longWorkSchema)
    const reference = checkReference('snapshots.apply', nameOrId)
    let apply: (() => Promise<void>) | undefined
    await this.#access.change(() => (apply ??= this.#snapshots().applying(reference, work))())
  }

  /**
   * Delete a snapshot, and free what only it has.
   * @param nameOrId  a name, or else an id: as the stock tool deletes by name alone
   */
  async delete(nameOrId: SnapshotReference, options?: SnapshotOptions): Promise<void> {
    this.#access.checkWritable()
    const work = checkOptions('snapshots.delete', options, longWorkSchema)
    const reference = checkReference('snapshots.delete', nameOrId)
    let remove: (() => Promise<void>) | undefined
    await this.#access.change(() => (remove ??= this.#snapshots().deleting(reference, work))())
  }

  #snapshots(): FormatSnapshots {
    const { format, backend } = this.#top()
    if (format.snapshots !== undefined) return format.snapshots
    throw notSupported(`A ${format.format} image cannot hold snapshots`, { path: backend.path })
  }
}

/** @throws TypeError  neither a string nor an object that says an id or a name */
function checkReference(where: string, reference: unknown): SnapshotReference {
  if (typeof reference === 'string') return reference
  if (typeof reference === 'object' && reference !== null) {
    const { id, name, ...others } = reference as { id?: unknown; name?: unknown }
    const isText = (value: unknown): boolean => value === undefined || typeof value === 'string'
    const isOne = id !== undefined || name !== undefined
    if (isOne && isText(id) && isText(name) && Object.keys(others).length === 0) {
      return reference
    }
  }
  throw invalid(`${where}: a snapshot is meant by a name or an id: a string, { id } or { name }`)
}

/** The option `snapshot` of what reads a snapshot directly. */
export const snapshotOption: OptionCheck<SnapshotReference> = (value, name) => {
  try {
    return checkReference(name, value)
  } catch (error) {
    throw invalid((error as Error).message, 'ERR_INVALID_OPTION')
  }
}
