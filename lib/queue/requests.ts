import { addon } from '../native/addon.js'
import type { NativeAddon, NativeMemory, NativeOperation } from '../native/types.js'

/** Whose requests they are. */
export type Requester = {
  /** Of its file, in the addon. */
  readonly number: number
  /** What a request that failed rejects with. @param errno positive */
  failure(errno: number, operation: NativeOperation, offset: number): Error
  /** One of its requests is over. */
  settled(): void
  /** The state of the queue has changed. */
  progressed(): void
}

type Request = {
  readonly requester: Requester
  readonly operation: NativeOperation
  readonly offset: number
  /** Kept here so that the memory lives until the addon is through with it. */
  readonly memory: NativeMemory | undefined
  readonly resolve: (value: number) => void
  readonly reject: (error: Error) => void
}

/** How many wait for what one file does. */
type Kept = { count: number; readonly over: () => void }

/**
 * The requests of all files of this thread on their way to the addon and back. Those of one turn of the event loop go over as
 * one batch, rung in by process.nextTick; results come back as one batch for each wake-up. Small ones that the page cache serves are done on
 * this thread, so many in a turn; then the next batch is rung in by setImmediate, which lets the event loop go round.
 */
class Requests {
  readonly #addon: NativeAddon
  readonly #operations: NativeAddon['constants']['operations']
  readonly #numbersPerRequest: number
  readonly #numbersPerCompletion: number
  /** By number. */
  readonly #out: (Request | undefined)[] = []
  readonly #freeNumbers: number[] = []
  /** The batch being collected. */
  readonly #batch: Float64Array
  readonly #buffers: (NativeMemory | undefined)[]
  #collected = 0
  readonly #completions: Float64Array
  readonly #files: Float64Array
  /**
   * Weak: a file that nobody uses any more is closed by the garbage collector. Whoever waits for a request uses it: see #out, and
   * `keep` for those who wait for something else.
   */
  readonly #requesters = new Map<number, WeakRef<Requester>>()
  readonly #kept = new Map<Requester, Kept>()
  readonly #forgotten = new FinalizationRegistry<number>((number) => this.#requesters.delete(number))
  /** What may still be done on this thread before the event loop has a turn. */
  #atOnceLeft: number
  readonly #mostAtOnce: number
  #moment = 0
  #momentEnds = false
  #hasWritten = false
  readonly #ring = (): void => this.#submit()
  readonly #goOn = (): void => {
    this.#hasWritten = false
  }
  readonly #endMoment = (): void => {
    this.#moment++
    this.#momentEnds = false
  }
  readonly #ringAfterTurn = (): void => {
    this.#atOnceLeft = this.#mostAtOnce
    this.#submit()
  }

  constructor(native: NativeAddon) {
    const { operations, numbersPerRequest, numbersPerCompletion, mostCompletions, mostFiles, mostAtOnce } =
      native.constants
    this.#addon = native
    this.#operations = operations
    this.#numbersPerRequest = numbersPerRequest
    this.#numbersPerCompletion = numbersPerCompletion
    this.#batch = new Float64Array(mostCompletions * numbersPerRequest)
    this.#buffers = new Array<NativeMemory | undefined>(mostCompletions).fill(undefined)
    this.#completions = new Float64Array(mostCompletions * numbersPerCompletion)
    this.#files = new Float64Array(mostFiles)
    this.#mostAtOnce = mostAtOnce
    this.#atOnceLeft = mostAtOnce
    native.start((completions, files) => this.#deliver(completions, files), this.#completions, this.#files)
    // Ends the addon's threads in order: a process that is told to exit does not run the environment's clean-up hooks.
    process.on('exit', () => native.shutDown())
  }

  add(requester: Requester): void {
    this.#requesters.set(requester.number, new WeakRef(requester))
    this.#forgotten.register(requester, requester.number, requester)
  }

  remove(requester: Requester): void {
    this.#requesters.delete(requester.number)
    this.#forgotten.unregister(requester)
  }

  /**
   * Keep a file that somebody waits for, until he need not any more. He himself may be known to nobody but the file that he waits for,
   * and would be collected with it.
   */
  keep(requester: Requester, until: Promise<void>): void {
    let kept = this.#kept.get(requester)
    if (kept === undefined) {
      const waits: Kept = {
        count: 0,
        over: () => {
          if (--waits.count === 0) this.#kept.delete(requester)
        },
      }
      this.#kept.set(requester, (kept = waits))
    }
    kept.count++
    until.then(kept.over, kept.over)
  }

  /** Whether a request may be done on this thread: doing so for ever would starve all that waits for the event loop. */
  get mayRunAtOnce(): boolean {
    return this.#atOnceLeft > 0
  }

  /** One was. */
  ranAtOnce(): void {
    this.#atOnceLeft--
  }

  /**
   * Whether a write may be made on this thread: also not if another was before promises went on, for then there are several writers, and
   * theirs are made together, which takes less. Who waits for each of his writes is alone.
   */
  get mayWriteAtOnce(): boolean {
    return this.#atOnceLeft > 0 && !this.#hasWritten && this.#collected === 0
  }

  /** One was. */
  wroteAtOnce(): void {
    this.#atOnceLeft--
    this.#moment++
    this.#hasWritten = true
    queueMicrotask(this.#goOn)
  }

  /**
   * Another number as soon as anybody on this thread may know of a change of any file that came after `beginMoment`: when something was written on
   * this thread, or promises no longer go on from one to the next. All else that is over is told in a later turn of the event loop.
   */
  get moment(): number {
    return this.#moment
  }

  beginMoment(): number {
    if (!this.#momentEnds) {
      this.#momentEnds = true
      process.nextTick(this.#endMoment)
    }
    return this.#moment
  }

  /**
   * @param offset  bytes; of 'truncate' the new length, of 'durable' the section
   * @param length  bytes
   */
  send(
    requester: Requester,
    operation: NativeOperation,
    offset: number,
    length: number,
    bytes?: Uint8Array,
  ): Promise<void> {
    return this.#send(requester, operation, offset, length, bytes) as Promise<unknown> as Promise<void>
  }

  /** @returns bytes to where the file is stored differently, negative for a hole */
  askExtent(requester: Requester, offset: number): Promise<number> {
    return this.#send(requester, 'extent', offset, 0, undefined)
  }

  /** @returns bytes that came out, or -1 for what is damaged or has no room */
  askCodec(
    requester: Requester,
    operation: 'readZlib' | 'readZstd' | 'packZlib' | 'packZstd',
    offset: number,
    length: number,
    memory: NativeMemory,
  ): Promise<number> {
    return this.#send(requester, operation, offset, length, memory)
  }

  #send(
    requester: Requester,
    operation: NativeOperation,
    offset: number,
    length: number,
    memory: NativeMemory | undefined,
  ): Promise<number> {
    return new Promise((resolve, reject) => {
      const number = this.#freeNumbers.pop() ?? this.#out.length
      this.#out[number] = { requester, operation, offset, memory, resolve, reject }
      const index = this.#collected++
      const at = index * this.#numbersPerRequest
      const batch = this.#batch
      batch[at] = requester.number
      batch[at + 1] = this.#operations[operation]
      batch[at + 2] = number
      batch[at + 3] = offset
      batch[at + 4] = length
      this.#buffers[index] = memory
      if (this.#collected === this.#buffers.length) this.#submit()
      else if (index > 0) return
      else if (this.#atOnceLeft > 0) process.nextTick(this.#ring)
      else setImmediate(this.#ringAfterTurn)
    })
  }

  #submit(): void {
    const count = this.#collected
    if (count === 0) return
    this.#collected = 0
    const over = this.#addon.submit(this.#batch, this.#buffers, count)
    this.#buffers.fill(undefined, 0, count)
    if (over === 0) return
    this.#atOnceLeft -= over
    this.#moment++
    this.#settle(over)
  }

  #deliver(completionCount: number, fileCount: number): void {
    this.#atOnceLeft = this.#mostAtOnce
    // First what stands in the array: a listener may send a request, and with it a batch, whose results go to the same place.
    // Nobody who waits goes on before all have been told: promises run their continuations later.
    this.#settle(completionCount)
    for (let i = 0; i < fileCount; i++)
      this.#requesters
        .get(this.#files[i] as number)
        ?.deref()
        ?.progressed()
  }

  #settle(count: number): void {
    const completions = this.#completions
    for (let i = 0, at = 0; i < count; i++, at += this.#numbersPerCompletion) {
      const number = completions[at] as number
      const errno = completions[at + 1] as number
      const request = this.#out[number]
      if (request === undefined) continue
      this.#out[number] = undefined
      this.#freeNumbers.push(number)
      request.requester.settled()
      if (errno === 0) request.resolve(completions[at + 2] as number)
      else request.reject(request.requester.failure(errno, request.operation, request.offset))
    }
  }
}

let ofThisThread: Requests | undefined

export function requests(): Requests {
  ofThisThread ??= new Requests(addon())
  return ofThisThread
}
