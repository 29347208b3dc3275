import { assert } from '../base/assert.js'
import { isAligned } from '../base/integers.js'
import { NumberMap } from '../base/number-map.js'
import { type HostOffset, hostOffset } from '../base/units.js'
import type { BlockBackend } from '../queue/backend.js'

/** The canonical copy of one slice of a table: newest state, used by all reads and for all writes of it. */
export type Slice = {
  /** Changes only when the slice has left the cache and comes back as another. */
  host: HostOffset
  readonly bytes: Uint8Array
  readonly view: DataView
  /** Not evicted while above 0. */
  pins: number
  /** Looked at since the evictor last came by. */
  recent: boolean
  /** For whoever reads the tables: false when a slice comes into the cache. */
  trusted: boolean
  /** Where it stands in the evictor's round. */
  place: number
}

/** A read under way. `dropped`: nobody wants it any more. */
type Load = { dropped: boolean; done: Promise<void> }

/** Slices are cut from buffers of so many, so that a cache costs few objects outside the heap; the first ones are smaller, as most images need few. */
const slicesPerSlab = { least: 8, most: 64 }

/**
 * A bounded cache of table slices. What is changed here is queued in the same step, so that evicting a slice loses
 * nothing: a later load reads the file with the queue's nodes applied.
 *
 * A slice that is held across an await must be pinned, or looked up again after it.
 */
export class TableCache {
  readonly #backend: BlockBackend
  readonly #sliceSize: number
  readonly #maxSlices: number
  readonly #loaded: (host: number, length: number) => void
  readonly #slices = new NumberMap<Slice>()
  /** The evictor's round, which its hand goes: second chance for what was looked at since it last came by. */
  readonly #round: (Slice | undefined)[] = []
  readonly #freePlaces: number[] = []
  #hand = 0
  readonly #loads = new NumberMap<Load>()
  /** Slices that have left the cache, for re-use: a cache that turns over makes no garbage. */
  readonly #spare: Slice[] = []
  /** Slices cut so far. */
  #cut = 0

  /**
   * @param limitBytes  kept below this but for pinned slices and loads under way; at least 16 slices
   * @param loaded      called when a slice has been read; throws where it is not to be believed
   */
  constructor(
    backend: BlockBackend,
    sliceSize: number,
    limitBytes: number,
    loaded: (host: number, length: number) => void,
  ) {
    this.#backend = backend
    this.#sliceSize = sliceSize
    this.#loaded = loaded
    this.#maxSlices = Math.max(16, Math.floor(limitBytes / sliceSize))
  }

  /** The slice at `host` if it is here. */
  get(host: number): Slice | undefined {
    const slice = this.#slices.get(host)
    if (slice !== undefined) slice.recent = true
    return slice
  }

  /** Bring the slice at `host` in. It may be gone again, or the table be another, when the promise resolves: look it up anew. */
  load(host: HostOffset): Promise<void> {
    assert(isAligned(host, this.#sliceSize), 'slices are aligned')
    const running = this.#loads.get(host)
    if (running !== undefined) return running.done
    const load: Load = { dropped: false, done: Promise.resolve() }
    this.#loads.set(host, load)
    load.done = this.#read(host, load)
    return load.done
  }

  async #read(host: HostOffset, load: Load): Promise<void> {
    const slice = this.#takeSpare(host)
    try {
      await this.#backend.readQueued(slice.bytes, host)
      this.#loaded(host, this.#sliceSize)
    } catch (error) {
      this.#spare.push(slice)
      throw error
    } finally {
      if (!load.dropped) this.#loads.delete(host)
    }
    // Dropped: the table was freed or newly created meanwhile, and what was read is another table's past.
    if (load.dropped) this.#spare.push(slice)
    else this.#insert(slice)
  }

  /** A slice of a new table, all zeros as the file is there. */
  insertZeros(host: HostOffset): Slice {
    this.drop(host, this.#sliceSize)
    const slice = this.#takeSpare(host)
    slice.bytes.fill(0)
    this.#insert(slice)
    return slice
  }

  /** Forget the slices of a table that is no longer one. */
  drop(host: number, length: number): void {
    for (let at = host; at < host + length; at += this.#sliceSize) {
      const load = this.#loads.get(at)
      if (load !== undefined) {
        load.dropped = true
        this.#loads.delete(at)
      }
      const slice = this.#slices.get(at)
      if (slice === undefined) continue
      assert(slice.pins === 0, 'a table in use is not freed')
      this.#remove(slice)
    }
  }

  /** Forget all: which tables there are has changed. While no request runs. */
  clear(): void {
    for (const load of this.#loads.values()) load.dropped = true
    this.#loads.clear()
    for (const slice of this.#slices.values()) {
      assert(slice.pins === 0, 'a table in use is not forgotten')
      this.#remove(slice)
    }
  }

  #insert(slice: Slice): void {
    // More than one has to go after a time in which so much was pinned that the cache had to grow.
    while (this.#slices.size >= this.#maxSlices && this.#evict());
    slice.place = this.#freePlaces.pop() ?? this.#round.length
    this.#round[slice.place] = slice
    this.#slices.set(slice.host, slice)
  }

  #remove(slice: Slice): void {
    this.#slices.delete(slice.host)
    this.#round[slice.place] = undefined
    this.#freePlaces.push(slice.place)
    this.#spare.push(slice)
  }

  /** @returns false when all are pinned */
  #evict(): boolean {
    const places = this.#round.length
    for (let visits = 2 * places; visits > 0; visits--) {
      this.#hand = (this.#hand + 1) % places
      const slice = this.#round[this.#hand]
      if (slice === undefined || slice.pins > 0) continue
      if (!slice.recent) {
        this.#remove(slice)
        return true
      }
      slice.recent = false
    }
    return false
  }

  #takeSpare(host: HostOffset): Slice {
    if (this.#spare.length === 0) {
      const slices = Math.min(Math.max(slicesPerSlab.least, this.#cut), slicesPerSlab.most)
      const slab = new ArrayBuffer(slices * this.#sliceSize)
      this.#cut += slices
      for (let index = 0; index < slices; index++)
        this.#spare.push(newSlice(slab, index * this.#sliceSize, this.#sliceSize))
    }
    const slice = this.#spare.pop()
    assert(slice !== undefined, 'a slab was cut')
    slice.host = host
    slice.recent = true
    slice.trusted = false
    return slice
  }
}

function newSlice(slab: ArrayBuffer, offset: number, length: number): Slice {
  return {
    host: hostOffset(0),
    bytes: new Uint8Array(slab, offset, length),
    view: new DataView(slab, offset, length),
    pins: 0,
    recent: false,
    trusted: false,
    place: 0,
  }
}
