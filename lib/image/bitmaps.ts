import { invalid, notSupported } from '../base/errors.js'
import { booleanOption, checkOptions, powerOfTwoOption } from '../base/options.js'
import type {
  BitmapChange,
  BitmapCut,
  DirtyBitmap,
  DirtyRange,
  FormatBitmaps,
} from '../queue/format-image.js'
import type { Layer } from './layers.js'
import type { SnapshotAccess } from './snapshots.js'

export type AddBitmapOptions = {
  /** Guest bytes for one bit, a power of two from 512 to 2 GiB. Default: the cluster size, but 4 KiB to 64 KiB. */
  readonly granularity?: number
  /** It does not follow the disk until it is enabled. */
  readonly disabled?: boolean
}

const addSchema = {
  granularity: powerOfTwoOption({ min: 512, max: 2 ** 31 }),
  disabled: booleanOption,
}

/** A bitmap of another image, which must be as large. */
export type ForeignBitmap = { readonly image: { readonly bitmaps: DiskBitmaps }; readonly name: string }

/**
 * The persistent dirty bitmaps of an open image: which parts of the disk have changed since a bitmap was added or cleared. They are the basis of
 * incremental backups, and QEMU's as well. Each change of bitmaps is durable when it resolves, and atomic: a crash shows the state before or after it.
 *
 * What guests change is marked as it happens, and stored when the image is closed. A crash before that leaves the bitmaps which follow the disk
 * inconsistent: they are listed so, and can only be removed.
 *
 * Every method rejects as those of DiskImage do, and with
 * - Qcow2Error ERR_NOT_SUPPORTED        the format or its version has no bitmaps, or there is no room for another one
 * - Qcow2Error ERR_BITMAP_NOT_FOUND     there is none of that name
 * - Qcow2Error ERR_BITMAP_EXISTS        there is one of that name already
 * - Qcow2Error ERR_BITMAP_INCONSISTENT  it says nothing any more
 */
export class DiskBitmaps {
  readonly #top: () => Layer
  readonly #access: SnapshotAccess

  /** @param top  of the disk: an overlay may take its place, but not while a change runs */
  constructor(top: () => Layer, access: SnapshotAccess) {
    this.#top = top
    this.#access = access
  }

  /** All of them, in the order in which they were added. Of a format without bitmaps: none. */
  async list(): Promise<DirtyBitmap[]> {
    this.#access.checkOpen()
    return (await this.#top().format.bitmaps?.list()) ?? []
  }

  /**
   * Add a bitmap in which nothing is marked.
   * @param name  1 to 1023 bytes of UTF-8
   */
  async add(name: string, options?: AddBitmapOptions): Promise<void> {
    this.#access.checkWritable()
    const given = checkOptions('bitmaps.add', options, addSchema)
    checkName('bitmaps.add', name)
    await this.#change({
      kind: 'add',
      name,
      granularity: given.granularity,
      enabled: given.disabled !== true,
    })
  }

  /** Remove a bitmap, whatever state it is in. */
  async remove(name: string): Promise<void> {
    await this.#changeOne('remove', name)
  }

  /** Nothing is marked in it any more. */
  async clear(name: string): Promise<void> {
    await this.#changeOne('clear', name)
  }

  /** It follows the disk from now on. */
  async enable(name: string): Promise<void> {
    await this.#changeOne('enable', name)
  }

  /** It stays as it is from now on. */
  async disable(name: string): Promise<void> {
    await this.#changeOne('disable', name)
  }

  /**
   * Mark in one bitmap whatever is marked in others; these stay as they are. Granularities may differ.
   * @param sources  names of bitmaps of this image, or bitmaps of others
   */
  async merge(target: string, sources: string | readonly (string | ForeignBitmap)[]): Promise<void> {
    this.#access.checkWritable()
    checkName('bitmaps.merge', target)
    const given: unknown = typeof sources === 'string' ? [sources] : sources
    if (!Array.isArray(given)) throw invalid('bitmaps.merge: the sources must be names, or { image, name }')
    const found: (string | BitmapCut)[] = []
    for (const source of given) {
      if (typeof source === 'string') found.push(source)
      else found.push(await cutOfOther(source))
    }
    await this.#change({ kind: 'merge', name: target, sources: found })
  }

  /**
   * The parts of the disk that are marked, in order, as they are when the iteration begins: all changes that have completed before are in it. Each begins and
   * ends at a multiple of the granularity, or at the end of the disk.
   *
   * For an incremental backup add the next bitmap before this one is disabled or cleared, so that no change falls in between.
   */
  async *ranges(name: string): AsyncGenerator<DirtyRange, void, undefined> {
    yield* (await this.#cut('bitmaps.ranges', name)).ranges()
  }

  async #cut(where: string, name: string): Promise<BitmapCut> {
    this.#access.checkOpen()
    checkName(where, name)
    return this.#bitmaps().cut(name)
  }

  /** What a bitmap says now, for what copies it into another image. */
  static cutOf(bitmaps: DiskBitmaps, name: string): Promise<BitmapCut> {
    return bitmaps.#cut('bitmaps.merge', name)
  }

  async #changeOne(kind: 'remove' | 'clear' | 'enable' | 'disable', name: string): Promise<void> {
    this.#access.checkWritable()
    checkName(`bitmaps.${kind}`, name)
    await this.#change({ kind, name })
  }

  async #change(change: BitmapChange): Promise<void> {
    let perform: (() => Promise<void>) | undefined
    // Once, also if the request runs again after a failure.
    await this.#access.change(() => (perform ??= this.#bitmaps().changing(change))())
  }

  #bitmaps(): FormatBitmaps {
    const { format, backend } = this.#top()
    if (format.bitmaps !== undefined) return format.bitmaps
    throw notSupported(`A ${format.format} image cannot hold bitmaps`, { path: backend.path })
  }
}

function cutOfOther(source: unknown): Promise<BitmapCut> {
  const { image, name } = (typeof source === 'object' && source !== null ? source : {}) as {
    image?: { bitmaps?: unknown }
    name?: unknown
  }
  if (typeof name === 'string' && image?.bitmaps instanceof DiskBitmaps) {
    return DiskBitmaps.cutOf(image.bitmaps, name)
  }
  throw invalid('bitmaps.merge: a source must be a name, or { image, name } with an open image')
}

function checkName(where: string, name: unknown): void {
  if (typeof name !== 'string') throw invalid(`${where}: the name must be a string`)
}
