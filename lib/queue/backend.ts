import type { Qcow2Error } from '../base/errors.js'
import type { Section } from '../base/units.js'

/** When data is made durable: never, when a flush asks for it, or after every write. */
export type SyncPolicy = 'never' | 'flush' | 'write'

/** The counters of one image file. Plain numbers; they only grow, but for the `...Now` ones. */
export type QueueStats = {
  /** Metadata writes handed to the queue. */
  nodesQueued: number
  /** Of these, folded into a node that was already waiting. */
  nodesCoalesced: number
  /** Node writes that shared a system call with a neighbour. */
  nodesMerged: number
  /** Bytes of metadata written to the file. */
  nodeBytesWritten: number
  /** Times that a context asked for a barrier. */
  barriersAsked: number
  /** Barriers that cost a sync, merged ones counted once. */
  barriersIssued: number
  /** Flushes that callers asked for. */
  flushesAsked: number
  /** fdatasync calls made, for barriers and flushes together. */
  syncsIssued: number
  /** Syncs by their time, in powers of two: [n] counts those below 2^n microseconds and not below 2^(n-1). */
  syncMicrosecondsHistogram: number[]
  queuedBytesNow: number
  queuedBytesPeak: number
  queuedNodesNow: number
  queuedNodesPeak: number
  /** Times that a request had to wait for room in the queue. */
  admissionWaits: number
  /** Guest data and file operations: requests and bytes. */
  dataReads: number
  dataReadBytes: number
  dataWrites: number
  dataWriteBytes: number
}

/** How clusters are compressed: raw deflate streams, or zstd's frames. */
export type CompressionType = 'zlib' | 'zstd'

/** Memory of pending requests belongs to the backend, as that of `read` and `write`. */
export type BackendCodec = {
  /**
   * Read `length` bytes, which begin with a compressed cluster and may end anywhere in it, and unpack that into `bytes`.
   * @returns the bytes that came out, or -1 where it is damaged or holds more than `bytes` does
   */
  read(bytes: Uint8Array, offset: number, length: number): Promise<number>
  /** Compress all of `from`. @returns the bytes that came out in `to`, or -1 where it has no room for them */
  pack(to: Uint8Array, from: Uint8Array): Promise<number>
}

/** A part of a file that is stored alike. */
export type FileExtent = { readonly length: number; readonly data: boolean }

/**
 * The port that the formats are written against: one file, its data path, and its queue of ordered metadata writes.
 * Two implementations: BlockQueue (a file, through the addon) and MemoryBackend (deterministic, in memory).
 *
 * All offsets are host offsets in bytes. All failures are Qcow2Error. `bytes` of a pending request belong to the backend until
 * its promise settles; transferring them meanwhile is misuse.
 */
export interface BlockBackend {
  /** For messages. */
  readonly path: string
  readonly readOnly: boolean
  /** Whether the host's page cache is bypassed. */
  readonly direct: boolean
  readonly syncPolicy: SyncPolicy
  /** Bytes; what nodes must be aligned to. Data requests may have any alignment. 1 where the page cache is used. */
  readonly alignment: number
  /** Bytes; no byte at or past this was ever submitted for writing, nor was there when the file was opened. */
  readonly length: number
  /**
   * A block device: it never gets another length. `length` is its own then, whatever of it is in use, nothing of it is known to be zeros, and what goes
   * beyond its end fails with ERR_NO_SPACE. Absent: a file.
   */
  readonly isDevice?: boolean

  /** Fill `bytes` from the file as it is; past its end are zeros. Does not look at the queue. */
  read(bytes: Uint8Array, offset: number): Promise<void>
  /** As `read`, if the host has it in memory and now is a good time: false says to `read`. Absent where nothing of the kind is there. */
  readonly readAtOnce?: ((bytes: Uint8Array, offset: number) => boolean) | undefined
  /** Fill `bytes` from the file with all queued and in-flight nodes applied, newest last. */
  readQueued(bytes: Uint8Array, offset: number): Promise<void>
  /** @returns what packs and unpacks clusters of that kind on the backend's own threads. Absent, or undefined, where nothing of the kind is there. */
  codec?(type: CompressionType): BackendCodec | undefined
  /** Write data. Resolves when written, not when durable. */
  write(bytes: Uint8Array, offset: number): Promise<void>
  /** As `write`, then `flush`. Where nothing else is under way it is quicker than the two: it goes over to the file's threads once. */
  writeDurably(bytes: Uint8Array, offset: number): Promise<void>
  /** Make the range read as zeros and, without `unmap`, keep it allocated. Extends the file as a write would. */
  writeZeroes(offset: number, length: number, options: { unmap: boolean }): Promise<void>
  /** Give the range back to the host; it reads as zeros where that is possible. Never changes the file's length. Advisory. */
  punch(offset: number, length: number): Promise<void>
  /** Reserve space for the range on the host, extending the file to its end. */
  allocate(offset: number, length: number): Promise<void>
  truncate(length: number): Promise<void>
  /** How the file stores what begins at `offset`; for holes. The whole rest counts as data where the host cannot tell. */
  extent(offset: number): Promise<FileExtent>

  /**
   * Queue a metadata write. Copies `bytes` at once.
   * @param earliest  the lowest section that may hold it; every node of a lower section is durable before this one is submitted
   * @returns the section that holds it: at least `earliest`, later if an older version of these bytes waits there
   */
  enqueue(bytes: Uint8Array, offset: number, earliest: Section): Section
  /** The lowest section in front of which a sync has yet to start: all data that is written now is durable before its nodes. */
  sectionAfterData(): Section
  /** Every node up to here is durable (written, where the policy is 'never'); as last heard on this thread. */
  readonly durableSection: Section
  /** The highest section that holds a node touching the range, or 0: for what copies these bytes. */
  pendingSection(offset: number, length: number): Section
  /** Called on this thread after durableSection or the room in the queue has grown, and after the queue failed. */
  onProgress(listener: () => void): void
  /** Count an order that a context asked for. */
  countBarrier(): void
  /** Set once the queue can no longer be believed (any failed sync, a failed node other than for lack of space). */
  readonly poisoned: Qcow2Error | undefined

  /**
   * Take room for the nodes that an operation will queue, before it writes data.
   * @returns undefined when there was room at once; else a promise that resolves when the room has been taken
   */
  admit(bytes: number): Promise<void> | undefined
  /** Give back what `admit` took, when the operation has queued its nodes. */
  release(bytes: number): void

  /**
   * Resolves when every node queued now and all data written so far are durable. Policy 'never': when the nodes are written.
   * Policy 'write': the nodes queued are durable, and a sync was made after the call.
   */
  flush(): Promise<void>
  /** Resolves when the nodes up to `section` are durable; costs a sync only if they are not. */
  durable(section: Section): Promise<void>

  /**
   * Take the byte range locks of QEMU's images (see image/locks.ts): shared locks on `held`, then nobody else may hold a lock
   * on any of `tested`. All or nothing.
   * @returns the first byte that somebody else holds, or undefined
   */
  lock(held: readonly number[], tested: readonly number[]): number | undefined
  unlock(held: readonly number[]): void
  /** The locks keep all others from changing the file: bytes may be read a little before they are asked for. Absent where nothing is gained by it. */
  mayReadAhead?(): void

  /**
   * This file's metadata maps data in another one: from now on each sync here is one of `data` first, and either file is synced only where
   * something has changed since its last sync. So `sectionAfterData`, `flush` and `durable` speak of both, and a failed sync of either poisons
   * both. To be called before `data` is changed; of `data` neither queue nor flush is used, and it is closed after this one.
   * Absent where there is nothing of the kind.
   * @throws ERR_NOT_SUPPORTED  `data` is of another kind
   */
  syncWith?(data: BlockBackend): void

  stats(): QueueStats
  /** Waits for all requests, drains the queue, flushes, and closes the file. Rejects if that failed; the file is closed all the same. */
  close(): Promise<void>
}
