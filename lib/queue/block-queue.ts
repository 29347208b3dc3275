import { notSupported, Qcow2Error } from '../base/errors.js'
import { section, type Section } from '../base/units.js'
import { addon } from '../native/addon.js'
import type { NativeBlockQueue, NativeCounters, NativeOperation } from '../native/types.js'
import { Admission } from './admission.js'
import type {
  BackendCodec,
  BlockBackend,
  CompressionType,
  FileExtent,
  QueueStats,
  SyncPolicy,
} from './backend.js'
import { FileLog } from './file-log.js'
import { QueueState } from './queue-state.js'
import { ReadAhead } from './read-ahead.js'
import { type Requester, requests } from './requests.js'
import {
  closedError,
  errorOfAddon,
  noRingError,
  openError,
  poisonedError,
  systemError,
} from './system-error.js'

export type BlockQueueOptions = {
  readonly readOnly: boolean
  /** Bypass the host's page cache. */
  readonly direct: boolean
  readonly syncPolicy: SyncPolicy
  /** Make the file; it must not exist. */
  readonly create?: boolean
  /** Most bytes of metadata that may wait. */
  readonly queueBytes?: number
  /** Most metadata writes that may wait. */
  readonly queueNodes?: number
  /** Nodes older than this are written without being asked for. Milliseconds; 0 is never. */
  readonly idleMs?: number
  /** Write what is small, where the page cache takes it, on this thread. */
  readonly inlineWrites?: boolean
  /** How data requests are made where the page cache is bypassed; what keeps a log uses threads. Default 'threads'. */
  readonly aio?: Aio
  /** Wait on this thread for a small data request by the io_uring that is alone under way. */
  readonly inlineWaits?: boolean
  /** Keep a log of all that changes the file, in memory: for looking at what a crash could leave. */
  readonly record?: boolean
}

/** By threads that wait for each request, or by Linux's io_uring; the names are QEMU's. */
export const aioNames = ['threads', 'io_uring'] as const
/** @useDeclaredType */
export type Aio = (typeof aioNames)[number]

/** Some 1000 nodes of 4 KiB: enough for one sync to serve hundreds of requests, little enough to be written within a blink. */
const defaultQueueBytes = 4 * 1024 ** 2
const defaultQueueNodes = 4096

/** What a crash may cost a guest that never flushes. */
const defaultIdleMs = 5000

/** What the messages of failures call the operations of the addon. */
const verbs: Readonly<Record<NativeOperation, string>> = {
  open: 'open',
  close: 'close',
  read: 'read',
  readQueued: 'read',
  readZlib: 'read',
  readZstd: 'read',
  packZlib: 'compress',
  packZstd: 'compress',
  write: 'write',
  writeDurably: 'write',
  writeZeroes: 'write zeroes',
  unmapZeroes: 'write zeroes',
  punch: 'punch hole',
  allocate: 'allocate',
  truncate: 'truncate',
  extent: 'seek',
  flush: 'flush',
  durable: 'flush',
}

const over = Promise.resolve()

/** One file and its queue, on the addon. */
export class BlockQueue implements BlockBackend, Requester {
  readonly path: string
  readonly readOnly: boolean
  readonly direct: boolean
  readonly syncPolicy: SyncPolicy
  /** How its data requests are made. */
  readonly aio: Aio
  /** Of this file, in the addon. */
  readonly number: number
  /** What has happened to the file, if that is recorded. */
  readonly log: FileLog | undefined
  readonly #native: NativeBlockQueue
  readonly #requests = requests()
  readonly #state: QueueState
  readonly #admission: Admission
  readonly #listeners: (() => void)[] = []
  readonly readAtOnce: BlockBackend['readAtOnce']
  /** Longest reads and writes that are tried on this thread; 0: none. Bytes. */
  readonly #longestReadAtOnce: number
  readonly #longestWriteAtOnce: number
  /** Undefined: others may change the file meanwhile. */
  #ahead: ReadAhead | undefined
  #alignment = 1
  #length = 0
  #isDevice = false
  #closing: Promise<void> | undefined
  /** The file whose syncs are this one's too. */
  #syncedBy: BlockQueue | undefined
  /** As of the closing, when the addon does not tell any more. */
  #lastCounters: NativeCounters | undefined
  #requestsOut = 0
  #allSettled: (() => void) | undefined
  #barriersAsked = 0
  #dataReads = 0
  #dataReadBytes = 0
  #dataWrites = 0
  #dataWriteBytes = 0

  /**
   * Open a file; nothing of it is read.
   * @throws ERR_NOT_FOUND, ERR_PERMISSION, ERR_READ_ONLY, ERR_IS_A_DIRECTORY, ERR_EXISTS, ERR_IO, ERR_OUT_OF_MEMORY
   * @throws ERR_NOT_SUPPORTED  neither a regular file nor a block device; `direct` where the file system cannot; or an io_uring that cannot be had
   */
  static async open(path: string, options: BlockQueueOptions): Promise<BlockQueue> {
    const queue = new BlockQueue(path, options)
    await queue.#open()
    return queue
  }

  private constructor(path: string, options: BlockQueueOptions) {
    const { BlockQueue: Native, constants } = addon()
    this.path = path
    this.readOnly = options.readOnly
    this.direct = options.direct
    this.syncPolicy = options.syncPolicy
    this.#state = new QueueState(path, constants.state)
    const flags =
      (options.readOnly ? constants.flags.readOnly : 0) +
      (options.direct ? constants.flags.direct : 0) +
      (options.create === true ? constants.flags.create : 0) +
      (options.record === true ? constants.flags.record : 0) +
      (options.aio === 'io_uring' ? constants.flags.ring : 0) +
      (options.inlineWaits === true ? constants.flags.inlineWaits : 0) +
      (options.inlineWrites === true ? constants.flags.inlineWrites : 0)
    const policy = constants.policies[options.syncPolicy]
    this.#native = this.#inWords(
      'open',
      () => new Native(path, flags, policy, options.idleMs ?? defaultIdleMs, this.#state.numbers),
    )
    this.number = this.#native.number
    this.aio = this.#native.usesRing ? 'io_uring' : 'threads'
    const needsRing = options.aio === 'io_uring' && options.direct && options.record !== true
    if (needsRing && this.aio === 'threads') throw noRingError(path)
    this.#longestReadAtOnce = options.direct ? 0 : constants.longestAtOnce
    if (!options.direct) this.readAtOnce = (bytes, offset) => this.#readAtOnce(bytes, offset)
    this.#longestWriteAtOnce = options.inlineWrites === true ? this.#longestReadAtOnce : 0
    if (options.record === true) this.log = new FileLog(this.#native)
    this.#admission = new Admission(
      { bytes: options.queueBytes ?? defaultQueueBytes, nodes: options.queueNodes ?? defaultQueueNodes },
      {
        queued: () => this.#state.queued,
        failure: () => this.#state.failure,
        drain: () => {
          if (this.#lastCounters === undefined) this.#inWords('flush', () => this.#native.drain())
        },
      },
    )
    this.#requests.add(this)
  }

  async #open(): Promise<void> {
    try {
      await this.#send('open', 0, 0)
    } catch (error) {
      this.#requests.remove(this)
      throw error
    }
    const { offsetAlignment, length, isDevice } = this.#native.geometry()
    this.#isDevice = isDevice
    this.#alignment = offsetAlignment
    this.#length = length
  }

  /** The memory that spares requests a copy where the page cache is bypassed. Bytes, a power of two. */
  get memoryAlignment(): number {
    return this.#native.geometry().memoryAlignment
  }

  get alignment(): number {
    return this.#alignment
  }

  get length(): number {
    return this.#length
  }

  get isDevice(): boolean {
    return this.#isDevice
  }

  get durableSection(): Section {
    return this.#state.durableSection
  }

  get poisoned(): Qcow2Error | undefined {
    return this.#syncedBy?.poisoned ?? this.#state.poisoned
  }

  read(bytes: Uint8Array, offset: number): Promise<void> {
    if (bytes.length === 0 || this.#readAtOnce(bytes, offset)) return over
    if (this.#closing === undefined) {
      this.#dataReads++
      this.#dataReadBytes += bytes.length
    }
    return this.#send('read', offset, bytes.length, bytes)
  }

  #readAtOnce(bytes: Uint8Array, offset: number): boolean {
    const mayBe = bytes.length <= this.#longestReadAtOnce && this.#requests.mayRunAtOnce
    if (!mayBe || this.#closing !== undefined) return false
    const isAhead = this.#ahead?.read(bytes, offset, this.#length, this.#requests) === true
    if (!isAhead && !this.#native.readAtOnce(bytes, offset)) return false
    this.#requests.ranAtOnce()
    this.#dataReads++
    this.#dataReadBytes += bytes.length
    return true
  }

  readQueued(bytes: Uint8Array, offset: number): Promise<void> {
    if (bytes.length === 0) return Promise.resolve()
    return this.#send('readQueued', offset, bytes.length, bytes)
  }

  codec(type: CompressionType): BackendCodec | undefined {
    if (!addon().codecs[type]()) return undefined
    const [read, pack] =
      type === 'zlib' ? (['readZlib', 'packZlib'] as const) : (['readZstd', 'packZstd'] as const)
    return {
      read: (bytes, offset, length) => {
        if (this.#closing !== undefined) return Promise.reject(closedError(this.path))
        this.#dataReads++
        this.#dataReadBytes += length
        this.#requestsOut++
        return this.#requests.askCodec(this, read, offset, length, bytes)
      },
      pack: (to, from) => {
        if (this.#closing !== undefined) return Promise.reject(closedError(this.path))
        this.#requestsOut++
        return this.#requests.askCodec(this, pack, 0, from.byteLength, [to, from])
      },
    }
  }

  write(bytes: Uint8Array, offset: number): Promise<void> {
    return this.#change('write', offset, bytes.length, bytes)
  }

  writeDurably(bytes: Uint8Array, offset: number): Promise<void> {
    const { length } = bytes
    const isLone = this.#requestsOut === 0 && this.syncPolicy === 'flush'
    if (isLone && length > this.#longestWriteAtOnce)
      return this.#change('writeDurably', offset, length, bytes)
    return this.write(bytes, offset).then(() => this.flush())
  }

  writeZeroes(offset: number, length: number, options: { unmap: boolean }): Promise<void> {
    return this.#change(options.unmap ? 'unmapZeroes' : 'writeZeroes', offset, length)
  }

  punch(offset: number, length: number): Promise<void> {
    return this.#change('punch', offset, length)
  }

  allocate(offset: number, length: number): Promise<void> {
    return this.#change('allocate', offset, length)
  }

  truncate(length: number): Promise<void> {
    return this.#change('truncate', length, 0)
  }

  async extent(offset: number): Promise<FileExtent> {
    if (this.#closing !== undefined) throw closedError(this.path)
    this.#requestsOut++
    const answer = await this.#requests.askExtent(this, offset)
    return { length: Math.abs(answer), data: answer > 0 }
  }

  enqueue(bytes: Uint8Array, offset: number, earliest: Section): Section {
    const refused = this.#refusal('write')
    if (refused !== undefined) throw refused
    try {
      const placed = section(this.#native.enqueue(bytes, offset, earliest))
      this.#reach(offset + bytes.length)
      return placed
    } catch (error) {
      throw errorOfAddon(error, 'metadata write', this.path)
    }
  }

  sectionAfterData(): Section {
    if (this.#lastCounters !== undefined) throw closedError(this.path)
    return section(this.#native.sectionAfterData())
  }

  pendingSection(offset: number, length: number): Section {
    if (this.#lastCounters !== undefined) throw closedError(this.path)
    return section(this.#native.pendingSection(offset, length))
  }

  onProgress(listener: () => void): void {
    this.#listeners.push(listener)
  }

  countBarrier(): void {
    this.#barriersAsked++
  }

  admit(bytes: number): Promise<void> | undefined {
    const room = this.#admission.admit(bytes)
    if (room !== undefined) this.#requests.keep(this, room)
    return room
  }

  release(bytes: number): void {
    this.#admission.release(bytes)
  }

  flush(): Promise<void> {
    return this.#send('flush', 0, 0)
  }

  durable(section: Section): Promise<void> {
    if (section <= this.durableSection && this.poisoned === undefined) return Promise.resolve()
    return this.#send('durable', section, 0)
  }

  lock(held: readonly number[], tested: readonly number[]): number | undefined {
    if (this.#closing !== undefined) throw closedError(this.path)
    const answer = this.#inWords('lock', () => this.#native.lock(held, tested))
    if (answer === undefined || answer >= 0) return answer
    throw systemError(-answer, 'lock', { path: this.path })
  }

  mayReadAhead(): void {
    this.#ahead ??= new ReadAhead((bytes, offset) => this.#native.readAtOnce(bytes, offset))
  }

  unlock(held: readonly number[]): void {
    if (this.#lastCounters === undefined) this.#native.unlock(held)
  }

  syncWith(data: BlockBackend): void {
    if (!(data instanceof BlockQueue)) throw notSupported('Both files must be opened by their paths')
    this.#native.syncWith(data.number)
    data.#syncedBy = this
  }

  stats(): QueueStats {
    const { bytes, nodes } = this.#state.queued
    return {
      ...(this.#lastCounters ?? this.#native.counters()),
      barriersAsked: this.#barriersAsked,
      queuedBytesNow: bytes,
      queuedNodesNow: nodes,
      admissionWaits: this.#admission.waits,
      dataReads: this.#dataReads,
      dataReadBytes: this.#dataReadBytes,
      dataWrites: this.#dataWrites,
      dataWriteBytes: this.#dataWriteBytes,
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    if (this.#requestsOut > 0) {
      await new Promise<void>((resolve) => {
        this.#allSettled = resolve
      })
    }
    try {
      if (!this.readOnly && this.#syncedBy === undefined) await this.#request('flush', 0, 0)
    } finally {
      this.#lastCounters = this.#native.counters()
      await this.#request('close', 0, 0)
      this.#requests.remove(this)
    }
  }

  // What the requests of this thread ask of whoever sends them.

  failure(errno: number, operation: NativeOperation, offset: number): Error {
    const isOfQueue = operation === 'flush' || operation === 'durable'
    if ((isOfQueue || operation === 'writeDurably') && this.poisoned !== undefined)
      return poisonedError(this.poisoned, this.path)
    if (operation === 'open') return openError(errno, this.path, { direct: this.direct })
    const place = isOfQueue || operation === 'close' ? {} : { offset }
    return systemError(errno, verbs[operation], { path: this.path, ...place })
  }

  settled(): void {
    if (--this.#requestsOut === 0) this.#allSettled?.()
  }

  progressed(): void {
    this.#admission.progressed()
    for (const listener of this.#listeners) listener()
  }

  #change(operation: NativeOperation, offset: number, length: number, bytes?: Uint8Array): Promise<void> {
    const refused = this.#refusal(verbs[operation])
    if (refused !== undefined) return Promise.reject(refused)
    if (length === 0 && operation !== 'truncate') return Promise.resolve()
    if (operation !== 'punch') this.#reach(offset + length)
    if (operation === 'write' || operation === 'writeDurably') {
      this.#dataWrites++
      this.#dataWriteBytes += length
      const mayBeNow = length <= this.#longestWriteAtOnce && this.#requests.mayWriteAtOnce
      if (bytes !== undefined && mayBeNow && this.#native.writeAtOnce(bytes, offset)) {
        this.#requests.wroteAtOnce()
        return over
      }
    }
    return this.#send(operation, offset, length, bytes)
  }

  /** What the addon throws, in our words. */
  #inWords<T>(operation: string, call: () => T): T {
    try {
      return call()
    } catch (error) {
      throw errorOfAddon(error, operation, this.path)
    }
  }

  /** Why the file cannot be changed, if it cannot. */
  #refusal(verb: string): Qcow2Error | undefined {
    if (this.#closing !== undefined) return closedError(this.path)
    if (this.readOnly) {
      const what = `'${this.path}' was opened read-only: cannot ${verb}`
      return new Qcow2Error('ERR_READ_ONLY', what, { path: this.path })
    }
    return this.poisoned === undefined ? undefined : poisonedError(this.poisoned, this.path)
  }

  #reach(end: number): void {
    if (end > this.#length && !this.#isDevice) this.#length = end
  }

  #send(operation: NativeOperation, offset: number, length: number, bytes?: Uint8Array): Promise<void> {
    if (this.#closing !== undefined) return Promise.reject(closedError(this.path))
    return this.#request(operation, offset, length, bytes)
  }

  #request(operation: NativeOperation, offset: number, length: number, bytes?: Uint8Array): Promise<void> {
    this.#requestsOut++
    return this.#requests.send(this, operation, offset, length, bytes)
  }
}
