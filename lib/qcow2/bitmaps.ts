import { assert } from '../base/assert.js'
import { notSupported } from '../base/errors.js'
import type { BitmapChange, BitmapCut, DirtyBitmap, FormatBitmaps } from '../queue/format-image.js'
import { changedList } from './bitmap-changes.js'
import { cutOf } from './bitmap-cut.js'
import { markEntriesInUse } from './bitmap-directory.js'
import {
  type Bitmap,
  bitmapOf,
  findBitmap,
  isForeign,
  isRunning,
  refuseUnusable,
  resizeBitmap,
} from './bitmap-state.js'
import { type BitmapSet, storeBitmaps } from './bitmap-store.js'
import { readBitmaps, type StoredBitmaps } from './bitmap-table.js'
import type { Header } from './header.js'
import { alone, type Parts, refuseUnsound } from './parts.js'
import type { SessionMarks } from './session-marks.js'
import { settle } from './snapshot-work.js'

/** How far the file says of the running bitmaps that they are in use. */
type InUse = 'no' | 'perhaps' | 'durably'

/**
 * The persistent dirty bitmaps of an open image.
 *
 * Before the first change of a session the directory says, durably, that the bitmaps which follow the disk are in use (E19): from then on what the
 * file holds of them is out of date, and a crash leaves them inconsistent, never silently short of a change. In memory every change marks what
 * it touches as it begins. Closing stores them (E20). Operations on bitmaps are durable when they resolve.
 */
export class Bitmaps implements FormatBitmaps {
  readonly #parts: Parts
  readonly #marks: SessionMarks
  readonly #header: Header
  readonly #image: { readonly size: () => number; readonly readOnly: () => boolean }
  #set: BitmapSet
  #running: Bitmap[] = []
  #inUse: InUse = 'no'

  /** @param stored  as found at open; of an image that is read-only none, they are read when they are asked for */
  constructor(
    parts: Parts,
    stored: StoredBitmaps,
    marks: SessionMarks,
    header: Header,
    image: { readonly size: () => number; readonly readOnly: () => boolean },
  ) {
    this.#parts = parts
    this.#marks = marks
    this.#header = header
    this.#image = image
    const list = stored.bitmaps.map((bitmap) => bitmapOf(bitmap, parts.geometry))
    this.#set = { list, directory: stored.directory }
    this.#follow()
  }

  get count(): number {
    return this.#set.list.length
  }

  /** Whether the first change has to wait for `announce`. */
  get due(): boolean {
    return (
      this.#inUse !== 'durably' &&
      this.#set.list.some(({ enabled, isInconsistent }) => enabled && !isInconsistent)
    )
  }

  /** A change of the guest's begins: from here on these bytes may be others. */
  mark(offset: number, length: number): void {
    for (const { changes, granularityBits } of this.#running) {
      const unit = 2 ** granularityBits
      changes.set(Math.floor(offset / unit), Math.floor((offset + length - 1) / unit))
    }
  }

  /**
   * Say in the file that the running bitmaps are in use, durably, before the disk changes (E19). The caller has the image for itself.
   * @param which  'all': those that do not follow the disk as well, because the disk gets another size
   * @throws ERR_NO_SPACE, ERR_IO
   */
  async announce(which: 'running' | 'all' = 'running'): Promise<void> {
    const { list, directory } = this.#set
    if (list.length === 0 || (which === 'running' && !this.due) || this.#image.readOnly()) return
    const isMeant = ({ enabled }: Bitmap): boolean => enabled || which === 'all'
    markEntriesInUse(directory.bytes, (index) => isMeant(list[index] as Bitmap))
    this.#inUse = 'perhaps'
    await this.#parts.backend.write(directory.bytes, directory.host)
    await this.#parts.ordering.bitmapsInUse()
    // What somebody else's data say of such a bitmap is not kept up: it stays in use for good.
    this.#set = {
      directory,
      list: list.map((bitmap) =>
        isMeant(bitmap) && isForeign(bitmap) ? { ...bitmap, isInconsistent: true } : bitmap,
      ),
    }
    this.#follow()
    this.#inUse = 'durably'
  }

  /** Store what guests have changed. The caller has the image for itself, and no guest changes it any more, or `announce` comes first. */
  async finish(): Promise<void> {
    if (this.#inUse === 'no') return
    await settle(this.#parts)
    await this.#store(this.#set.list, false)
  }

  async list(): Promise<DirtyBitmap[]> {
    return (await this.#load()).list.map((bitmap) => ({
      name: bitmap.name,
      granularity: 2 ** bitmap.granularityBits,
      enabled: bitmap.enabled,
      inconsistent: bitmap.isInconsistent || isForeign(bitmap),
    }))
  }

  /** What a bitmap says at this moment: all changes that have completed are in it, and perhaps some that are under way. */
  async cut(name: string): Promise<BitmapCut> {
    const { active, backend, frees } = this.#parts
    while (active.gate !== undefined) await active.gate
    // The ticket keeps the clusters of its pages where they are.
    const ticket = active.begin()
    try {
      const bitmap = findBitmap((await this.#load()).list, name, backend.path)
      refuseUnusable(bitmap, backend.path)
      return await cutOf(this.#parts, bitmap, this.#image.size())
    } finally {
      active.end(ticket)
      if (frees.pending) frees.release()
    }
  }

  changing(change: BitmapChange): () => Promise<void> {
    let isSwitched = false
    const context = { parts: this.#parts, header: this.#header, size: this.#image.size }
    const perform = async (): Promise<void> => {
      const { backend } = this.#parts
      refuseUnsound(this.#parts)
      assert(!this.#image.readOnly(), 'the caller has seen to that')
      if (isSwitched) {
        await backend.flush()
        return
      }
      const list = await changedList(context, this.#set.list, change)
      if (list === this.#set.list) return
      await settle(this.#parts)
      await this.#store(list, this.#inUse === 'durably', () => {
        isSwitched = true
      })
    }
    return async () => {
      // What is refused leaves the file as it is, to the autoclear bits.
      if (!isSwitched) await changedList(context, this.#set.list, change, { isTrial: true })
      await this.#marks.set()
      await alone(this.#parts, perform)
    }
  }

  /** @throws ERR_BITMAP_INCONSISTENT, ERR_NOT_SUPPORTED  the disk cannot get this size while there are such bitmaps */
  refuseResize(size: number): void {
    const { path } = this.#parts.backend
    for (const bitmap of this.#set.list) refuseUnusable(bitmap, path)
    if (this.count === 0 || size > 0) return
    throw notSupported('A disk of 0 bytes cannot have bitmaps: remove them first', { path })
  }

  /** The disk has another size from now on: `announce('all')` went before. */
  resized(from: number, to: number): void {
    for (const bitmap of this.#set.list) resizeBitmap(bitmap, this.#parts.geometry, from, to)
  }

  /** After `resized`: those that do not follow the disk are stored as they are now. */
  async storeResized(): Promise<void> {
    if (this.count === 0) return
    await settle(this.#parts)
    await this.#store(this.#set.list, true)
  }

  async #store(list: readonly Bitmap[], inUse: boolean, switched?: () => void): Promise<void> {
    const options = { inUse, size: this.#image.size() }
    await storeBitmaps(this.#parts, this.#set, list, options, (stored) => {
      this.#set = stored
      this.#follow()
      if (!inUse) this.#inUse = 'no'
      switched?.()
    })
  }

  #follow(): void {
    this.#running = this.#set.list.filter(isRunning)
  }

  /** Those of an image that is read-only from the file: its writer may have been another program meanwhile. */
  async #load(): Promise<BitmapSet> {
    if (!this.#isReadFromFile) return this.#set
    const { bitmaps, directory } = await readBitmaps(this.#parts.backend, this.#header)
    return { list: bitmaps.map((bitmap) => bitmapOf(bitmap, this.#parts.geometry)), directory }
  }

  get #isReadFromFile(): boolean {
    return this.#parts.backend.readOnly
  }
}
