import { notSupported } from '../base/errors.js'
import { alignUp } from '../base/integers.js'
import { Pending } from '../base/pending.js'
import { sectorSize } from '../base/units.js'
import type { BlockBackend, QueueStats } from '../queue/backend.js'
import type { FormatImage, GrowOptions, Mapping } from '../queue/format-image.js'
import { preallocateRaw } from './create.js'

/**
 * A raw image: guest offsets are file offsets. Holes of the file are zeros that take no space.
 *
 * The size is that of the file, rounded up to whole sectors as QEMU does; the missing bytes of the last one read as zeros.
 */
export class RawImage implements FormatImage {
  readonly format = 'raw'
  readonly clusterSize = 1
  readonly #backend: BlockBackend
  readonly #syncsWrites: boolean
  #size: number
  /** Bytes of the file, whose last sector need not be whole. */
  #length: number
  /** The changes that began between two resizes, so that the second one can wait for them. */
  #changes = new Pending()
  /** The end of the last resize that was asked for: they run one after the other. */
  #resized: Promise<void> = Promise.resolve()

  /** @param backend  owned from here on: close() closes it */
  constructor(backend: BlockBackend) {
    this.#backend = backend
    this.#syncsWrites = backend.syncPolicy === 'write'
    this.#length = backend.length
    this.#size = alignUp(this.#length, sectorSize)
  }

  get size(): number {
    return this.#size
  }

  read(bytes: Uint8Array, offset: number): Promise<void> {
    return this.#backend.read(bytes, offset)
  }

  write(bytes: Uint8Array, offset: number, fua = false): Promise<void> {
    this.#reach(offset + bytes.length)
    const backend = this.#backend
    if (fua && backend.syncPolicy !== 'write') return this.#change(backend.writeDurably(bytes, offset))
    return this.#change(backend.write(bytes, offset))
  }

  writeZeroes(offset: number, length: number, options: { unmap: boolean }): Promise<void> {
    this.#reach(offset + length)
    return this.#change(this.#backend.writeZeroes(offset, length, options))
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#change(this.#backend.punch(offset, length))
  }

  flush(): Promise<void> {
    // With sync policy 'write' whatever has completed is durable already; but after a failed sync nobody is told that all is well.
    const isDone = this.#syncsWrites && this.#backend.poisoned === undefined
    return isDone ? Promise.resolve() : this.#backend.flush()
  }

  async mapping(offset: number, length: number): Promise<Mapping> {
    const extent = await this.#backend.extent(offset)
    // Past the end of the file are the missing bytes of its last sector.
    if (extent.length === 0) return { type: 'zero', length, hostOffset: offset }
    const inFile = Math.min(length, extent.length)
    return { type: extent.data ? 'data' : 'zero', length: inFile, hostOffset: offset }
  }

  /**
   * Callers see to it that a smaller size is meant.
   * @param size  bytes of the file; the disk's are whole sectors
   * @throws ERR_NOT_SUPPORTED  preallocation 'metadata'
   */
  resize(size: number, options: GrowOptions = {}): Promise<void> {
    const resized = this.#resized.then(() => this.#resizeNow(size, options))
    this.#resized = resized.catch(() => undefined)
    return resized
  }

  stats(): QueueStats {
    return this.#backend.stats()
  }

  async changesEnded(): Promise<void> {
    await this.#resized
    await this.#changes.ended()
  }

  /** A file has nothing of its own to finish: that no change comes is its owner's doing. */
  freeze(): Promise<void> {
    return this.#backend.flush()
  }

  async close(): Promise<void> {
    await this.changesEnded()
    await this.#backend.close()
  }

  async #resizeNow(size: number, options: GrowOptions): Promise<void> {
    const { preallocation = 'off', signal, onBytes } = options
    const [old, length] = [this.#size, this.#length]
    if (this.#backend.isDevice === true && size !== length) {
      throw notSupported('Cannot resize device files', { path: this.#backend.path })
    }
    if (preallocation === 'metadata') {
      throw notSupported("A raw image has no metadata: preallocation 'metadata' is for qcow2", {
        path: this.#backend.path,
      })
    }
    if (size < old) {
      // A write that is on its way beyond the new end would bring the old length back: no new ones, then wait for those.
      this.#size = alignUp(size, sectorSize)
      const begun = this.#changes
      this.#changes = new Pending()
      await begun.ended()
    }
    try {
      await this.#backend.truncate(size)
      let done = 0
      const onWritten = (bytes: number): void => onBytes?.((done += bytes))
      await preallocateRaw(this.#backend, { from: old, to: size, preallocation, signal, onWritten })
    } catch (error) {
      this.#size = old
      // What was grown for nothing is given back: most likely it was space that ran out.
      if (size > old) await this.#backend.truncate(Math.max(length, this.#length)).catch(() => undefined)
      throw error
    }
    this.#size = alignUp(size, sectorSize)
    this.#length = size
    if (this.#syncsWrites) await this.#backend.flush()
  }

  #reach(end: number): void {
    if (end > this.#length) this.#length = end
  }

  #change(change: Promise<void>): Promise<void> {
    const changes = this.#changes
    changes.begin()
    const done = this.#syncsWrites ? this.#synced(change) : change
    void done.then(changes.end, changes.end)
    return done
  }

  async #synced(change: Promise<void>): Promise<void> {
    await change
    await this.#backend.flush()
  }
}
