import {
  booleanOption,
  checkOptions,
  checkPath,
  enumOption,
  integerOption,
  signalOption,
} from '../base/options.js'
import { invalid } from '../base/errors.js'
import { type BackingGate, backingOption } from '../image/backing-gate.js'
import { type DataFileGate, dataFileOption } from '../image/data-file-gate.js'
import { cacheOption, type CacheMode, type CacheOptions, cacheOptionsOf } from '../image/cache-modes.js'
import type { DiskImage } from '../image/disk-image.js'
import { openImage } from '../image/open.js'
import { type ImageFormat, imageFormats } from '../image/probe.js'
import { alignedBytes } from '../native/aligned-memory.js'

/** The requests of a measurement, in the words of `qemu-img bench`. */
export type BenchOptions = {
  /** Default: probed. */
  readonly format?: ImageFormat
  /** Write instead of reading. What was there is lost. */
  readonly write?: boolean
  /** Requests. Default 75000. */
  readonly count?: number
  /** Requests in flight. Default 64. */
  readonly depth?: number
  /** Guest bytes of a request. Default 4096. */
  readonly bufferSize?: number
  /** Guest bytes from one request to the next; behind the disk's end it goes on from its beginning. 0, and the default: `bufferSize`. */
  readonly step?: number
  /** Guest bytes: where the first request is. */
  readonly offset?: number
  /** The byte that is written. Default 0. */
  readonly pattern?: number
  /** Writes between two flushes, at least `depth`; 0, and the default: none. */
  readonly flushInterval?: number
  /** Whether a flush begins when no write runs, and the next write when it is over. Default true. */
  readonly drain?: boolean
  readonly cache?: CacheMode | CacheOptions
  readonly backing?: BackingGate
  /** Whether external data files may be opened. Default 'deny'. */
  readonly dataFile?: DataFileGate
  readonly forceShare?: boolean
  readonly locking?: 'auto' | 'off'
  readonly signal?: AbortSignal
  /** Called when the image is open, before the first request. */
  readonly onStart?: () => void
}

const most = 2 ** 31 - 1

const benchSchema = {
  format: enumOption(imageFormats),
  write: booleanOption,
  count: integerOption({ min: 0, max: most }),
  depth: integerOption({ min: 1, max: most }),
  bufferSize: integerOption({ min: 0, max: most }),
  step: integerOption({ min: 0, max: most }),
  offset: integerOption({ min: 0 }),
  pattern: integerOption({ min: 0, max: 255 }),
  flushInterval: integerOption({ min: 0, max: most }),
  drain: booleanOption,
  cache: cacheOption,
  backing: backingOption,
  dataFile: dataFileOption,
  forceShare: booleanOption,
  locking: enumOption(['auto', 'off']),
  signal: signalOption,
  onStart: (value: unknown): (() => void) => value as () => void,
}

/** The requests, all choices made. */
type Requests = Required<
  Pick<
    BenchOptions,
    'write' | 'count' | 'depth' | 'bufferSize' | 'step' | 'offset' | 'flushInterval' | 'drain'
  >
> & { readonly pattern: number; readonly signal: AbortSignal | undefined }

/**
 * Measure how fast requests to a disk are. The image is opened before, and closed after, what is measured.
 * @throws as openImage; RangeError: a request that is not within the disk
 */
export async function benchImage(path: string, options?: BenchOptions): Promise<{ milliseconds: number }> {
  checkPath('benchImage', path)
  const given = checkOptions('benchImage', options, benchSchema)
  const { write = false, bufferSize = 4096, flushInterval = 0, depth = 64 } = given
  if (flushInterval > 0 && flushInterval < depth)
    throw invalid('benchImage: flushInterval must not be smaller than depth', 'ERR_INVALID_OPTION')
  const requests: Requests = {
    write,
    bufferSize,
    flushInterval: write ? flushInterval : 0,
    depth,
    count: given.count ?? 75000,
    step: given.step === undefined || given.step === 0 ? bufferSize : given.step,
    offset: given.offset ?? 0,
    pattern: given.pattern ?? 0,
    drain: given.drain ?? true,
    signal: given.signal,
  }
  const { format, cache, backing, dataFile, forceShare, locking, signal } = given
  const image = await openImage(path, {
    readOnly: !write,
    ...(format === undefined ? {} : { format }),
    ...(cache === undefined ? {} : { cache: cacheOptionsOf(cache) }),
    ...(backing === undefined ? {} : { backing }),
    ...(dataFile === undefined ? {} : { dataFile }),
    ...(forceShare === undefined ? {} : { forceShare }),
    ...(locking === undefined ? {} : { locking }),
    ...(signal === undefined ? {} : { signal }),
  })
  try {
    const run = new Run(image, requests)
    given.onStart?.()
    const started = performance.now()
    await run.all()
    return { milliseconds: performance.now() - started }
  } finally {
    await image.close()
  }
}

/** One measurement: workers take requests in turn. */
class Run {
  readonly #image: DiskImage
  readonly #requests: Requests
  /** Of each worker: there before the first request, as making it takes as long as a request or longer. */
  readonly #memory: readonly Uint8Array[]
  #next = 0
  #offset: number
  #running = 0
  #flush: Promise<void> | undefined
  #idle: (() => void) | undefined
  #failed = false

  constructor(image: DiskImage, requests: Requests) {
    this.#image = image
    this.#requests = requests
    this.#offset = requests.offset
    const { depth, count, bufferSize, pattern } = requests
    this.#memory = Array.from({ length: Math.min(depth, count) }, () =>
      alignedBytes(bufferSize).fill(pattern),
    )
  }

  /** @throws the first failure, when nothing runs any more */
  async all(): Promise<void> {
    const workers = this.#memory.map((bytes) => this.#work(bytes))
    const outcomes = await Promise.allSettled(workers)
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
    await this.#flush
  }

  async #work(bytes: Uint8Array): Promise<void> {
    const { count, write, flushInterval, drain, signal } = this.#requests
    while (this.#next < count && !this.#failed) {
      signal?.throwIfAborted()
      if (drain && this.#flush !== undefined) {
        await this.#flush
        continue
      }
      const offset = this.#take()
      const isLastBeforeFlush = flushInterval > 0 && this.#next % flushInterval === 0
      this.#running++
      try {
        // A flush is asked for when its writes have been; it waits for them where it is to be drained.
        const request = write ? this.#image.write(bytes, offset) : this.#image.readInto(bytes, offset)
        if (isLastBeforeFlush) this.#flush = this.#flushAfter(this.#flush, drain)
        await request
      } catch (error) {
        this.#failed = true
        throw error
      } finally {
        if (--this.#running === 0) this.#idle?.()
      }
    }
  }

  #take(): number {
    const offset = this.#offset
    this.#next++
    this.#offset += this.#requests.step
    if (this.#offset >= this.#image.size) this.#offset %= this.#image.size
    return offset
  }

  async #flushAfter(before: Promise<void> | undefined, drain: boolean): Promise<void> {
    await before
    if (drain && this.#running > 0) await new Promise<void>((resolve) => (this.#idle = resolve))
    this.#idle = undefined
    await this.#image.flush()
    if (drain) this.#flush = undefined
  }
}
