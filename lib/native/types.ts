/**
 * What the addon exports. The functions refuse what would crash them with a TypeError; good messages are TypeScript's work. Without
 * memory they throw an Error with the code ERR_OUT_OF_MEMORY, and have done nothing.
 */
export type NativeAddon = {
  readonly abi: number
  readonly constants: NativeConstants
  readonly RequestQueue: new (
    policy: number,
    idleLimitMs: number,
    memoryAlignment: number,
  ) => NativeRequestQueue
  readonly BlockQueue: new (
    path: string,
    flags: number,
    policy: number,
    idleLimitMs: number,
    state: Float64Array,
  ) => NativeBlockQueue

  /** Whether the process, or for zstd the system, has a library for the operations of that name. */
  readonly codecs: Readonly<Record<'zlib' | 'zstd', () => boolean>>

  /**
   * Once in each environment, before `submit`. `deliver` is called when that many completions and numbers of files whose state
   * has changed stand in the two arrays; a completion is { request, errno or 0, value }.
   */
  start(
    deliver: (completionCount: number, fileCount: number) => void,
    completions: Float64Array,
    files: Float64Array,
  ): void
  /**
   * Hand over a batch of requests, each { file, operation, request, offset, length }; `buffers[i]` is the memory of the i-th, if
   * its operation has any: it has to stay alive, and where it is, until the request is over.
   * @returns how many were over at once: their completions stand in the array of `start`, and are not delivered again
   */
  submit(requests: Float64Array, buffers: readonly (NativeMemory | undefined)[], count: number): number
  /** The process or the thread ends: finish what has begun, carry on for two seconds at most, drop the rest. */
  shutDown(): void
  /** How many bytes the memory begins behind a multiple of `alignment`. */
  misalignment(bytes: Uint8Array, alignment: number): number
  /** Ask the system to back memory that nobody has touched yet with pages of 2 MiB, where it has such and `bytes` cover them. */
  useLargePages(bytes: Uint8Array): void
  /** How many of the `most` big-endian words of 64 bits from byte `at` on, the first one included, are each `step` more than the one before. */
  wordRun(bytes: Uint8Array, at: number, most: number, step: number): number
}

/** What a request reads or writes; of what packs: where to, and what. */
export type NativeMemory = Uint8Array | readonly [to: Uint8Array, from: Uint8Array]

export type NativeOperation =
  | 'open'
  | 'close'
  | 'read'
  | 'readQueued'
  | 'readZlib'
  | 'readZstd'
  | 'packZlib'
  | 'packZstd'
  | 'write'
  | 'writeDurably'
  | 'writeZeroes'
  | 'unmapZeroes'
  | 'punch'
  | 'allocate'
  | 'truncate'
  | 'extent'
  | 'flush'
  | 'durable'

/** The numbers that go over the boundary; they are defined in C++ (native/addon.cc). */
export type NativeConstants = {
  readonly operations: Readonly<Record<NativeOperation, number>>
  readonly policies: Readonly<Record<'never' | 'flush' | 'write', number>>
  readonly flags: Readonly<
    Record<'readOnly' | 'direct' | 'create' | 'record' | 'ring' | 'inlineWaits' | 'inlineWrites', number>
  >
  /** Where what stands in the state of a BlockQueue. */
  readonly state: Readonly<
    Record<'durableSection' | 'queuedBytes' | 'queuedNodes' | 'poisoned' | 'stalled' | 'length', number>
  >
  readonly numbersPerRequest: number
  readonly numbersPerCompletion: number
  /** Also of requests in one batch. */
  readonly mostCompletions: number
  readonly mostFiles: number
  /** Requests that may be done on this thread before the event loop has a turn. */
  readonly mostAtOnce: number
  /** What is longer than this is not done on this thread. Bytes. */
  readonly longestAtOnce: number
}

/** One file and its queue. Opened and closed by requests, like all that may take time. */
export type NativeBlockQueue = {
  readonly number: number
  /** Whether data requests go by an io_uring where they can. */
  readonly usesRing: boolean
  /** Bytes. */
  geometry(): {
    readonly memoryAlignment: number
    readonly offsetAlignment: number
    readonly length: number
    /** A block device, whose length cannot change. */
    readonly isDevice: boolean
  }
  /** Read without the queue, on this thread, if that takes no waiting. @returns whether it is done */
  readAtOnce(bytes: Uint8Array, offset: number): boolean
  /** Write on this thread; it waits where the host makes writers wait. @returns whether it is done: if not, a request tells why */
  writeAtOnce(bytes: Uint8Array, offset: number): boolean
  /** Copies. @returns the section. Without memory the queue is poisoned: others may have been queued with this node in mind */
  enqueue(bytes: Uint8Array, offset: number, earliest: number): number
  sectionAfterData(): number
  pendingSection(offset: number, length: number): number
  /** Write what is queued: somebody needs room. Throws as without memory if the system has no thread for it. */
  drain(): void
  /** @returns undefined, or the first byte that somebody else holds, or -errno; then nothing has changed */
  lock(held: readonly number[], tested: readonly number[]): number | undefined
  unlock(held: readonly number[]): void
  /** Each sync of this file is one of another first, by its number; both only where something has changed. Before that one is changed. */
  syncWith(number: number): void
  /** Mark a place in the log. */
  note(id: number): void
  /** What has been logged since the last time, if that was asked for at open. */
  takeLog(): NativeIoEvent[]
  counters(): NativeCounters
}

/** As QueueStats of lib/queue/backend.ts names them. */
/** IoEvent of native/io_log.h; `type` and `kind` are its numbers. */
export type NativeIoEvent = {
  readonly type: number
  readonly id: number
  readonly error: number
  readonly kind?: number
  readonly offset?: number
  readonly length?: number
  readonly section?: number
  readonly bytes?: Uint8Array
}

export type NativeCounters = {
  readonly nodesQueued: number
  readonly nodesCoalesced: number
  readonly nodesMerged: number
  readonly nodeBytesWritten: number
  readonly barriersIssued: number
  readonly flushesAsked: number
  readonly syncsIssued: number
  readonly queuedBytesPeak: number
  readonly queuedNodesPeak: number
  readonly syncMicrosecondsHistogram: number[]
}

/** A waiter of the pure queue that is over: `error` is 0 or an errno. */
export type FinishedWaiter = { readonly id: number; readonly error: number }

/** One version of one byte range. */
export type QueuedNode = { readonly offset: number; readonly bytes: Uint8Array; readonly section: number }

/** The pure queue (native/request_queue.h says what each function does), for a device that is simulated in JavaScript. */
export type NativeRequestQueue = {
  enqueue(bytes: Uint8Array, offset: number, earliest: number, nowMs: number): number
  sectionAfterData(): number
  dataWritten(): void
  /** @param errno  why */
  giveUp(errno: number): FinishedWaiter[]
  flush(id: number): FinishedWaiter[]
  awaitDurable(id: number, section: number): FinishedWaiter[]
  drain(): void
  next(nowMs: number): { readonly kind: 'idle' | 'write' | 'sync'; readonly nodes: readonly QueuedNode[] }
  deadlineMs(): number | undefined
  written(errno: number): FinishedWaiter[]
  synced(errno: number): FinishedWaiter[]
  overlay(bytes: Uint8Array, offset: number): void
  overlaps(offset: number, length: number): boolean
  pendingSection(offset: number, length: number): number
  durableSection(): number
  state(): NativeRequestQueueState
}

export type NativeRequestQueueState = {
  /** errno, 0 if sound. */
  readonly poisoned: number
  /** errno of a full disk since which nothing was asked for, or 0. */
  readonly stalled: number
  readonly outstanding: 'idle' | 'write' | 'sync'
  readonly durableSection: number
  readonly highestSection: number
  readonly queuedBytes: number
  readonly queuedNodes: number
  readonly nodesQueued: number
  readonly nodesCoalesced: number
  readonly nodeBytesWritten: number
  readonly barriersIssued: number
  readonly flushesAsked: number
  readonly syncsIssued: number
  readonly queuedBytesPeak: number
  readonly queuedNodesPeak: number
}
