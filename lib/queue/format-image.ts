import type { LongWork } from '../base/abort.js'
import type { QueueStats } from './backend.js'

/** 'metadata' maps all clusters, qcow2 only; 'falloc' also reserves their space on the host; 'full' writes zeros. */
export type PreallocationMode = 'off' | 'metadata' | 'falloc' | 'full'

/** What is done for the guest bytes that growing adds. */
export type GrowOptions = {
  /** Default 'off'. */
  readonly preallocation?: PreallocationMode | undefined
  /** Stops preallocating. */
  readonly signal?: AbortSignal | undefined
  /** Told how many bytes have been preallocated so far. */
  readonly onBytes?: ((done: number) => void) | undefined
}

/** What one layer stores at a run of guest bytes. */
export type Mapping =
  /** Nothing here: the backing file shows, or zeros. `hostOffset`: a cluster is kept for it, or used by what is beside it. */
  | { readonly type: 'unallocated'; readonly length: number; readonly hostOffset?: number }
  /** Reads as zeros whatever the backing file holds. `hostOffset`: a cluster is kept for it. */
  | { readonly type: 'zero'; readonly length: number; readonly hostOffset: number | undefined }
  /** `encrypted`: what stands in the file is not what the guest sees. */
  | {
      readonly type: 'data'
      readonly length: number
      readonly hostOffset: number
      readonly encrypted?: boolean
    }
  | { readonly type: 'compressed'; readonly length: number }

/** Where the bytes of unallocated clusters come from. */
export interface BackingSource {
  /** Bytes; reads past it are zeros. */
  readonly size: number
  read(bytes: Uint8Array, offset: number): Promise<void>
  /** Whether the range is known to read as zeros without looking at data: spares copies. */
  readsAsZeros?(offset: number, length: number): Promise<boolean>
}

/** An internal snapshot: the disk as it was, kept in the image's own file. */
export type Snapshot = {
  /** A number in digits, for what QEMU and this package write. */
  readonly id: string
  readonly name: string
  /** Bytes. */
  readonly vmStateSize: number
  /** Since 1970. */
  readonly dateSeconds: number
  readonly dateNanoseconds: number
  /** Of the guest's clock. */
  readonly vmClockNanoseconds: bigint
  /** Guest instructions, if recorded. */
  readonly icount?: bigint
  /** Guest bytes at the time, if recorded. */
  readonly diskSize?: bigint
}

/** Which snapshot is meant: by what it is called, or by exactly its id, its name, or both. */
export type SnapshotReference = string | { readonly id?: string; readonly name?: string }

/** What a snapshot takes. Host bytes, whole clusters; its entry in the table of snapshots is left out. */
export type SnapshotSpace = {
  readonly id: string
  readonly name: string
  /** Of all that it refers to: the disk as it was, its tables, VM state. */
  readonly referencedBytes: number
  /** Of these, what nothing else refers to: deleting it frees so much. What two snapshots share is freed with the second. */
  readonly exclusiveBytes: number
}

/** Where a format keeps snapshots. Operations are handed out to be run, and may be run again after a failure. */
export interface FormatSnapshots {
  list(): Promise<Snapshot[]>
  space(work: LongWork): Promise<SnapshotSpace[]>
  creating(name: string, work: LongWork): () => Promise<Snapshot>
  applying(reference: SnapshotReference, work: LongWork): () => Promise<void>
  deleting(reference: SnapshotReference, work: LongWork): () => Promise<void>
}

/** A bitmap kept in the image's file: which parts of the disk have changed since it was added or cleared. */
export type DirtyBitmap = {
  readonly name: string
  /** Guest bytes for one bit: ranges begin and end at multiples of it. */
  readonly granularity: number
  /** Follows the changes of the disk; otherwise it stays as it is. */
  readonly enabled: boolean
  /** Its last writer has not stored it. It says nothing any more, and can only be removed. */
  readonly inconsistent: boolean
}

/** Bytes of the guest's disk. */
export type DirtyRange = { readonly offset: number; readonly length: number }

/** A bitmap as it was at one time. */
export type BitmapCut = {
  readonly name: string
  readonly granularity: number
  /** Guest bytes of the disk. */
  readonly size: number
  /** In order; none touches the next. */
  ranges(): Iterable<DirtyRange>
}

/** What can be done to a bitmap, or to several: all of it takes place, or nothing. */
export type BitmapChange =
  | {
      readonly kind: 'add'
      readonly name: string
      /** Bytes, a power of two from 512 to 2 GiB. Default: the cluster size, but 4 KiB to 64 KiB. */
      readonly granularity?: number | undefined
      readonly enabled: boolean
    }
  | { readonly kind: 'remove' | 'clear' | 'enable' | 'disable'; readonly name: string }
  /** Mark in it what is marked in the others: those of the image by their names. */
  | { readonly kind: 'merge'; readonly name: string; readonly sources: readonly (string | BitmapCut)[] }

/** Where a format keeps bitmaps. Changes are handed out to be run, and may be run again after a failure. */
export interface FormatBitmaps {
  list(): Promise<DirtyBitmap[]>
  changing(change: BitmapChange): () => Promise<void>
  cut(name: string): Promise<BitmapCut>
}

/**
 * What the guest's view (image/) asks of a format. Callers have checked types and bounds, and that the image is open and,
 * for changes, writable; offsets and lengths are guest bytes.
 */
export interface FormatImage {
  readonly format: 'qcow2' | 'raw'
  /** Guest bytes. */
  readonly size: number
  /** Bytes; for raw 1. */
  readonly clusterSize: number
  /** Bytes that are allocated by themselves, if that is not a whole cluster. */
  readonly subclusterSize?: number
  /** Absent where the format has none. */
  readonly snapshots?: FormatSnapshots
  /** Absent where the format has none. */
  readonly bitmaps?: FormatBitmaps
  /** Fill `bytes` with what the guest sees. */
  read(bytes: Uint8Array, offset: number): Promise<void>
  /** Resolves when a guest's write would complete in this cache mode; with `fua` when it is durable. */
  write(bytes: Uint8Array, offset: number, fua?: boolean): Promise<void>
  /** Whole clusters, each compressed by itself. Absent where the format has no such thing. */
  writeCompressed?(bytes: Uint8Array, offset: number): Promise<void>
  writeZeroes(offset: number, length: number, options: { unmap: boolean }): Promise<void>
  discard(offset: number, length: number): Promise<void>
  /** All requests that completed before are durable. */
  flush(): Promise<void>
  /** The longest run at `offset`, at most `length` bytes, that is stored alike in this layer. */
  mapping(offset: number, length: number): Promise<Mapping>
  /** When it fails to preallocate what growing adds, or is stopped there, the size is the old one again, if that can be had. */
  resize(size: number, options: { readonly shrink: boolean } & GrowOptions): Promise<void>
  stats(): QueueStats
  /** Resolves when all changes that were asked for have ended. The caller lets none begin meanwhile. */
  changesEnded(): Promise<void>
  /**
   * Make the file what it is after a close, durably, and go on as a read-only image: another one is about to stand on it. No change
   * is under way, and none comes any more. If it fails, the image can be changed as before.
   */
  freeze(): Promise<void>
  /** Finishes all requests, flushes, frees the file and its lock also on failure. */
  close(): Promise<void>
}
