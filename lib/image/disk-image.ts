import type { Readable, Writable } from 'node:stream'
import { type LongWork, ProgressReporter } from '../base/abort.js'
import { invalid, notSupported, outOfRange, Qcow2Error, readOnly } from '../base/errors.js'
import { alignUp, isCount } from '../base/integers.js'
import {
  booleanOption,
  type Checked,
  checkOptions,
  checkPath,
  enumOption,
  longWorkSchema,
} from '../base/options.js'
import { sectorSize } from '../base/units.js'
import type { QueueStats } from '../queue/backend.js'
import type { FormatImage, PreallocationMode } from '../queue/format-image.js'
import { DiskBitmaps } from './bitmaps.js'
import { DiskEncryption } from './disk-encryption.js'
import type { DiskParts } from './disk-parts.js'
import { extentsOf } from './extents.js'
import type { FailurePolicy } from './failure-policy.js'
import { freezeTop } from './freeze-top.js'
import { checkBytes, newBytes } from './guest-bytes.js'
import { type Extent, isWholeClusters, type Layer, writeCompressedOn } from './layers.js'
import type { Opening, OverlayOptions } from './overlay.js'
import { hasMagic } from './probe.js'
import { DiskSnapshots } from './snapshots.js'
import {
  createReadStream,
  createWriteStream,
  type ReadStreamOptions,
  type WriteStreamOptions,
} from './streams.js'

/** Bytes of the guest's disk. */
export type DiskRange = { readonly offset: number; readonly length: number }

/** Where the magic stands that probing looks at. */
const magicBytes = 4

/** A misspelt or vague wish for durability must not pass for none. */
const writeSchema = { fua: booleanOption }

/** Checked as a range of the disk. */
const ofRange = (value: unknown): unknown => value

const rangeSchema = { offset: ofRange, length: ofRange }
const zeroesSchema = { ...rangeSchema, ...writeSchema, unmap: booleanOption }

const resizeSchema = {
  shrink: booleanOption,
  preallocation: enumOption(['off', 'metadata', 'falloc', 'full']),
  ...longWorkSchema,
}

/**
 * A disk as its guest sees it. Offsets and lengths are bytes and may have any alignment; requests may run at the same time, in any
 * number. A request overlapping another that has not completed sees its bytes in part, in whole, or not at all, as on any disk.
 *
 * Every method rejects with
 * - TypeError ERR_INVALID_ARGUMENT / ERR_INVALID_OPTION, RangeError ERR_OUT_OF_RANGE  misuse; nothing was done
 * - Qcow2Error ERR_CLOSED, ERR_READ_ONLY  nothing was done
 * - Qcow2Error ERR_IO, ERR_NO_SPACE, ERR_CORRUPT, ERR_POISONED  the file, the host or the image
 */
export class DiskImage implements AsyncDisposable {
  readonly readOnly: boolean
  /** The passphrases of an encrypted image. */
  readonly encryption: DiskEncryption
  #path: string
  #layers: readonly [Layer, ...Layer[]]
  #owned: readonly Layer[]
  #top: FormatImage
  #rawWasGuessed: boolean
  readonly #opening: Opening | undefined
  readonly #failurePolicy: FailurePolicy | undefined
  /** Set while an overlay takes the place of the top: changes wait for it. */
  #replacing: Promise<void> | undefined
  /** The end of the last resize or overlay that was asked for: they run one after the other. */
  #reshaped: Promise<void> = Promise.resolve()
  /** Requests of several steps: closing waits for the last one. The format itself waits for what it was handed. */
  readonly #stepping = new Set<Promise<void>>()
  #closed: Promise<void> | undefined
  /** The internal snapshots of the image. */
  readonly snapshots: DiskSnapshots
  /** The persistent dirty bitmaps of the image. */
  readonly bitmaps: DiskBitmaps

  /** The layers of a disk, for what stands another disk on it and for what copies it. @internal */
  static layersOf: (image: DiskImage) => readonly [Layer, ...Layer[]]

  /** Put a layer that stands on those of a disk in the place of its top, as `createOverlay` does. @internal */
  static putOnTop: (image: DiskImage, layer: Layer, path: string, locking: boolean) => Promise<void>

  static {
    DiskImage.layersOf = (image) => image.#layers
    DiskImage.putOnTop = (image, layer, path, locking) => image.#putOnTop(layer, path, locking)
  }

  /** Use `openImage`. @internal */
  constructor(parts: DiskParts) {
    this.#path = parts.path
    this.readOnly = parts.readOnly
    this.#layers = parts.layers
    this.#owned = parts.owned
    this.#top = parts.layers[0].format
    this.#rawWasGuessed = parts.rawWasGuessed
    this.#opening = parts.opening
    this.#failurePolicy = parts.failurePolicy
    const access = {
      checkOpen: () => this.#checkOpen(),
      checkWritable: () => this.#checkWritable(),
      // Of the top that it began on: no overlay takes its place meanwhile.
      change: (request: () => Promise<void>) => this.#reshape(() => this.#change(request, false)),
    }
    this.snapshots = new DiskSnapshots(() => this.#layers[0], access)
    this.bitmaps = new DiskBitmaps(() => this.#layers[0], access)
    this.encryption = new DiskEncryption(() => this.#layers[0], access)
  }

  /** Of the image that is written to: `createOverlay` changes it. */
  get path(): string {
    return this.#path
  }

  get format(): 'qcow2' | 'raw' {
    return this.#top.format
  }

  /** Bytes of the guest's disk. */
  get size(): number {
    return this.#top.size
  }

  /** Bytes; 1 for raw. */
  get clusterSize(): number {
    return this.#top.clusterSize
  }

  /**
   * Whether the host's page cache is bypassed. False also where cache 'none' was asked for, but the image's clusters are
   * smaller than the units of the host's disk.
   */
  get direct(): boolean {
    return this.#layers[0].backend.direct
  }

  /** Read into new memory. */
  async read(range: DiskRange): Promise<Uint8Array> {
    this.#checkOpen()
    this.#checkRange(range)
    const bytes = newBytes(range.length, this.direct)
    await this.readInto(bytes, range.offset)
    return bytes
  }

  /** Fill `bytes`, which belong to this disk until the promise settles. */
  readInto(bytes: Uint8Array, offset: number): Promise<void> {
    try {
      this.#checkOpen()
      checkBytes(bytes)
      this.#checkSpan(offset, bytes.length)
    } catch (error) {
      return Promise.reject(error)
    }
    if (bytes.length === 0) return Promise.resolve()
    const policy = this.#failurePolicy
    if (policy === undefined) return this.#top.read(bytes, offset)
    return this.#track(policy.run(() => this.#top.read(bytes, offset), 'read'))
  }

  /**
   * Resolves when a guest's write would complete in this cache mode. `bytes` belong to this disk until then.
   * @param options.fua  the write is durable when the promise resolves
   */
  write(bytes: Uint8Array, offset: number, options?: { readonly fua?: boolean }): Promise<void> {
    let fua = false
    try {
      this.#checkWritable()
      checkBytes(bytes)
      this.#checkSpan(offset, bytes.length)
      if (options !== undefined) fua = checkOptions('write', options, writeSchema).fua === true
    } catch (error) {
      return Promise.reject(error)
    }
    if (bytes.length === 0) return Promise.resolve()
    if (this.#rawWasGuessed && offset < magicBytes) {
      return this.#change(() => this.#writeFirstBytes(bytes, offset), fua)
    }
    if (this.#failurePolicy !== undefined || this.#replacing !== undefined)
      return this.#change(() => this.#top.write(bytes, offset), fua)
    return this.#top.write(bytes, offset, fua)
  }

  /**
   * Write whole clusters, each compressed by itself and packed behind the others; what does not get smaller is written as it is.
   * @param bytes   as many as whole clusters have, or up to the end of the disk
   * @param offset  aligned to clusters
   * @throws ERR_NOT_SUPPORTED  a raw image
   */
  writeCompressed(bytes: Uint8Array, offset: number): Promise<void> {
    try {
      this.#checkWritable()
      checkBytes(bytes)
      this.#checkSpan(offset, bytes.length)
      const top = this.#top
      if (top.writeCompressed === undefined) {
        throw notSupported(`A ${top.format} image cannot hold compressed clusters`, { path: this.path })
      }
      if (!isWholeClusters(top, offset, bytes.length)) {
        throw outOfRange(
          `writeCompressed: bytes ${offset} to ${offset + bytes.length} are not whole clusters of ${top.clusterSize} bytes`,
        )
      }
    } catch (error) {
      return Promise.reject(error)
    }
    if (bytes.length === 0) return Promise.resolve()
    return this.#change(() => writeCompressedOn(this.#top, bytes, offset), false)
  }

  /**
   * Make a range read as zeros.
   * @param request.unmap  give the space back to the host where possible; otherwise it stays allocated where it is
   * @param request.fua    durable when the promise resolves
   */
  writeZeroes(request: DiskRange & { readonly unmap?: boolean; readonly fua?: boolean }): Promise<void> {
    let checked: Checked<typeof zeroesSchema>
    try {
      this.#checkWritable()
      this.#checkRange(request)
      checked = checkOptions('writeZeroes', request, zeroesSchema)
    } catch (error) {
      return Promise.reject(error)
    }
    const { offset, length } = request
    const { unmap = false, fua = false } = checked
    if (length === 0) return Promise.resolve()
    return this.#change(() => this.#top.writeZeroes(offset, length, { unmap }), fua)
  }

  /** Tell that the guest no longer needs a range. Whole clusters read as zeros afterwards; for parts of clusters it does nothing. */
  discard(range: DiskRange): Promise<void> {
    try {
      this.#checkWritable()
      this.#checkRange(range)
    } catch (error) {
      return Promise.reject(error)
    }
    if (range.length === 0) return Promise.resolve()
    return this.#change(() => this.#top.discard(range.offset, range.length), false)
  }

  /** All requests that completed before the call are durable when it resolves. Allowed, and nothing, on a read-only image. */
  flush(): Promise<void> {
    try {
      this.#checkOpen()
    } catch (error) {
      return Promise.reject(error)
    }
    if (this.readOnly) return Promise.resolve()
    const policy = this.#failurePolicy
    if (policy === undefined) return this.#top.flush()
    return this.#track(policy.run(() => this.#top.flush(), 'change'))
  }

  /** How a range is stored, through all backing files: runs in order, without gaps. Default: the whole disk. */
  async *extents(
    range: { readonly offset?: number; readonly length?: number } = {},
  ): AsyncGenerator<Extent, void, undefined> {
    this.#checkOpen()
    if (typeof range !== 'object' || range === null)
      throw invalid('a range must be an object { offset, length }')
    checkOptions('extents', range, rangeSchema)
    const { offset = 0 } = range
    const length = range.length ?? Math.max(0, this.size - offset)
    this.#checkSpan(offset, length)
    yield* extentsOf(this.#layers, { offset, length }, () => this.#checkOpen())
  }

  /**
   * Change the size of the guest's disk. New bytes read as zeros.
   * @param size                   bytes; of qcow2 rounded up to whole sectors of 512, of raw the file's length, whose last sector may be a part
   * @param options.shrink         must be true to make it smaller: the bytes beyond are lost
   * @param options.preallocation  of what it grows by. Default 'off'
   * @param options.signal         stops preallocating; rejects with its reason, and the size is the old one again
   * @param options.onProgress     told how far preallocating is
   */
  async resize(
    size: number,
    options?: LongWork & { readonly shrink?: boolean; readonly preallocation?: PreallocationMode },
  ): Promise<void> {
    this.#checkWritable()
    const { shrink = false, preallocation = 'off', ...work } = checkOptions('resize', options, resizeSchema)
    if (typeof size !== 'number') throw invalid('resize: the size must be a number of bytes')
    if (!isCount(size)) throw outOfRange(`resize: ${size} is no size in bytes`)
    const wanted = this.format === 'raw' ? size : alignUp(size, sectorSize)
    if (wanted < this.size && !shrink) {
      throw outOfRange(
        `resize: ${wanted} bytes are less than the ${this.size} of the disk, the rest would be lost; pass shrink: true if that is meant`,
      )
    }
    if (preallocation !== 'off' && wanted <= this.size) {
      throw invalid('resize: preallocation is for disks that grow', 'ERR_INVALID_OPTION')
    }
    work.signal?.throwIfAborted()
    const added = preallocation === 'off' ? 0 : wanted - this.size
    const resized = async (): Promise<void> => {
      const progress = new ProgressReporter(work.onProgress, 'resize', added)
      const onBytes = (done: number): void => progress.reach(done)
      await this.#top.resize(wanted, { shrink, preallocation, signal: work.signal, onBytes })
    }
    await this.#reshape(() => this.#change(resized, false))
  }

  /**
   * Freeze the disk as it is under a new image, which takes all changes from now on: an external snapshot. Guests may go on reading and
   * writing meanwhile; for a moment changes are held until those under way have ended, where they began, and are durable.
   * When it resolves, this image is the new one (`path`, `stats()`), and the former one is a backing file: read-only, durable, and lockable
   * by other readers. If it fails, everything is as before.
   * @param path  of the new image, which must be in no use
   * @throws ERR_EXISTS, ERR_NO_SPACE and others of createImage
   * @throws ERR_NOT_SUPPORTED  the image was not opened by its path
   */
  async createOverlay(path: string, options?: OverlayOptions): Promise<void> {
    checkPath('createOverlay', path)
    this.#checkWritable()
    const opening = this.#opening
    if (opening === undefined) {
      const why = 'createOverlay: only an image that was opened by its path can be named by another one'
      throw notSupported(why, { path: this.path })
    }
    await this.#reshape(async () => {
      // Loaded when it is needed, which is seldom: opening must be quick.
      const { makeOverlay, overlaySchema } = await import('./overlay.js')
      const given = checkOptions('createOverlay', options, overlaySchema)
      this.#checkWritable()
      const { layer, abandon, keep } = await makeOverlay(path, this.#layers, given, opening)
      try {
        // What can be durable already need not be waited for while changes are held.
        await this.#top.flush()
        await this.#putOnTop(layer, path, opening.locking)
      } catch (error) {
        await abandon()
        throw error
      }
      await keep()
    })
  }

  /** The bytes of the disk in order, as a stream of Node's. */
  createReadStream(options?: ReadStreamOptions): Readable {
    this.#checkOpen()
    return createReadStream(this, options)
  }

  /** Writes to the disk in order; has finished when everything is durable. */
  createWriteStream(options?: WriteStreamOptions): Writable {
    this.#checkWritable()
    return createWriteStream(this, options)
  }

  /** Run again what was held back with onError 'stop' or 'enospc', and what waits behind it, in the order of the requests. */
  resume(): void {
    this.#failurePolicy?.resume()
  }

  /** The counters of the image's file: plain numbers. */
  stats(): QueueStats {
    return this.#top.stats()
  }

  /**
   * Waits for all requests, flushes, frees the descriptors and the locks; also when it rejects because something was not written.
   * Further calls wait for the first one and do nothing.
   */
  close(): Promise<void> {
    if (this.#closed !== undefined) return this.#closed
    const closing = this.#closeNow()
    this.#closed = closing.catch(() => undefined)
    return closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #closeNow(): Promise<void> {
    this.#failurePolicy?.close()
    await Promise.allSettled(this.#stepping)
    const failures: unknown[] = []
    // From the top: an image reads its backing file until it is closed itself.
    for (const { format } of this.#owned) await format.close().catch((error: unknown) => failures.push(error))
    if (failures.length > 0) throw failures[0]
  }

  /** Let changes end, make them durable, and switch; in between, others wait. */
  async #putOnTop(layer: Layer, path: string, locking: boolean): Promise<void> {
    let release = (): void => undefined
    this.#replacing = new Promise((resolve) => {
      release = resolve
    })
    try {
      const letGo = await freezeTop(this.#layers[0], locking)
      // From here on nothing can fail.
      this.#layers = [layer, ...this.#layers]
      this.#owned = [layer, ...this.#owned]
      this.#top = layer.format
      this.#path = path
      this.#rawWasGuessed = false
      this.#failurePolicy?.watch(layer.backend)
      letGo()
    } finally {
      this.#replacing = undefined
      release()
    }
  }

  /** Run what changes the disk's size or its layers, one after the other. */
  #reshape(work: () => Promise<void>): Promise<void> {
    const done = this.#track(this.#reshaped.then(work))
    this.#reshaped = done.catch(() => undefined)
    return done
  }

  /** Run a change, then a flush if it is to be durable. */
  #change(request: () => Promise<void>, fua: boolean): Promise<void> {
    return this.#track(this.#changeInSteps(() => this.#onTop(request), fua))
  }

  /** Run a change on the top that it then finds there. */
  async #onTop(request: () => Promise<void>): Promise<void> {
    while (this.#replacing !== undefined) await this.#replacing
    await request()
  }

  async #changeInSteps(request: () => Promise<void>, fua: boolean): Promise<void> {
    const policy = this.#failurePolicy
    if (policy === undefined) await request()
    else await policy.run(request, 'change')
    if (!fua) return
    if (policy === undefined) await this.#top.flush()
    else await policy.run(() => this.#top.flush(), 'change')
  }

  #track(steps: Promise<void>): Promise<void> {
    this.#stepping.add(steps)
    const ended = (): void => void this.#stepping.delete(steps)
    void steps.then(ended, ended)
    return steps
  }

  /**
   * A file that was taken for raw only because it does not look like anything else must not be made to look like qcow2 by its
   * guest: whoever probes it next would follow the references in the guest's header. CVE-2022-47951 is of this kind.
   */
  async #writeFirstBytes(bytes: Uint8Array, offset: number): Promise<void> {
    const start = new Uint8Array(magicBytes)
    await this.#top.read(start, 0)
    start.set(bytes.subarray(0, magicBytes - offset), offset)
    if (hasMagic(start)) {
      throw new Qcow2Error(
        'ERR_PERMISSION',
        `Writing a qcow2 header to '${this.path}' is refused, since its format was guessed as raw; open it with format: 'raw'`,
        { path: this.path, offset },
      )
    }
    await this.#onTop(() => this.#top.write(bytes, offset))
  }

  #checkOpen(): void {
    if (this.#closed !== undefined) {
      throw new Qcow2Error('ERR_CLOSED', `The image '${this.path}' is closed`, { path: this.path })
    }
  }

  #checkWritable(): void {
    this.#checkOpen()
    if (this.readOnly) throw readOnly(`The image '${this.path}' was opened read-only`, { path: this.path })
  }

  #checkRange(range: DiskRange): void {
    if (typeof range !== 'object' || range === null)
      throw invalid('a range must be an object { offset, length }')
    this.#checkSpan(range.offset, range.length)
  }

  #checkSpan(offset: number, length: number): void {
    const { size } = this.#top
    if (isCount(offset) && isCount(length) && offset + length <= size) return
    if (typeof offset !== 'number') throw invalid('the offset must be a number of bytes')
    if (typeof length !== 'number') throw invalid('the length must be a number of bytes')
    throw outOfRange(`offset ${offset}, length ${length}: not within the disk of ${size} bytes`)
  }
}
