/** What the addon exports. The functions refuse what would crash them with a TypeError; good messages are TypeScript's work. */
export type NativeAddon = {
  readonly abi: number
  readonly RequestQueue: new (
    policy: number,
    idleLimitMs: number,
    memoryAlignment: number,
  ) => NativeRequestQueue
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
