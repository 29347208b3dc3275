export type { LongWork, Progress, ProgressListener } from './base/abort.js'
export { type ErrorCode, type ErrorContext, Qcow2Error } from './base/errors.js'
export type { AddBitmapOptions, DiskBitmaps, ForeignBitmap } from './image/bitmaps.js'
export type { BackingAnswer, BackingGate, BackingReference } from './image/backing-gate.js'
export type { CacheMode, CacheOptions, CacheTuning } from './image/cache-modes.js'
export type { DataFileGate, DataFileReference } from './image/data-file-gate.js'
export type { AddKeyOptions, DiskEncryption, RemoveKeyOptions } from './image/disk-encryption.js'
export { DiskImage, type DiskRange } from './image/disk-image.js'
export type { EncryptOptions } from './image/encrypt-option.js'
export type { ImageEvent, OnError } from './image/failure-policy.js'
export type { Extent } from './image/layers.js'
export type { ImageLocation } from './image/location.js'
export { openImage, type OpenOptions } from './image/open.js'
export type { OverlayOptions } from './image/overlay.js'
export type { ImageFormat } from './image/probe.js'
export type { DiskSnapshots, SnapshotOptions } from './image/snapshots.js'
export type { ReadStreamOptions, WriteStreamOptions } from './image/streams.js'
export { alignedBytes } from './native/aligned-memory.js'
export { amendImage, type AmendOptions } from './operations/amend.js'
export { benchImage, type BenchOptions } from './operations/bench.js'
export type { CipherSpec } from './luks/algorithms.js'
export type { CipherAlg, CipherMode, HashAlg, IvgenAlg } from './luks/names.js'
export type { Passphrase, PassphraseFor, PassphraseValue } from './luks/passphrase.js'
export type { AmendEncryption } from './operations/amend-encryption.js'
export type { ChainWorkOptions } from './operations/chain-work.js'
export { checkImage, type CheckImageOptions, type NothingToCheck } from './operations/check.js'
export { type CommitOptions, commitImage, type CommittedImage } from './operations/commit.js'
export { type CompactedImage, compactImage, type CompactOptions } from './operations/compact.js'
export { compareImages, type CompareOptions, type Comparison } from './operations/compare.js'
export { convertImage, type ConvertedImage, type ConvertOptions } from './operations/convert.js'
export { type CreatedImage, createImage, type CreateOptions, type ImageShape } from './operations/create.js'
export type { LostRun } from './operations/salvage.js'
export { ddImage, type DdOptions, type DdResult } from './operations/dd.js'
export type { EncryptInfo, KeySlotInfo } from './operations/encrypt-info.js'
export type { BitmapInfo } from './operations/info-tables.js'
export {
  type ImageInfo,
  imageInfo,
  imageInfoChain,
  type InfoChainOptions,
  type InfoOptions,
  type Qcow2Info,
} from './operations/info.js'
export { type DrawnMap, drawMap } from './operations/draw-map.js'
export { type InspectedImage, inspectImage, type InspectImageOptions } from './operations/inspect.js'
export { type MapEntry, mapImage, type MapOptions } from './operations/map.js'
export { type Measurement, measureImage, type MeasureOptions } from './operations/measure.js'
export {
  flattenImage,
  type FlattenOptions,
  type RebasedImage,
  rebaseImage,
  type RebaseOptions,
} from './operations/rebase.js'
export { resizeImage, type ResizeOptions } from './operations/resize.js'
export type { CheckResult, Finding, FindingKind } from './qcow2/check-result.js'
export type { Encryption } from './qcow2/encryption.js'
export type { ImageStructure } from './qcow2/inspect-structure.js'
export type { ReservationPreallocation } from './qcow2/reservation.js'
export type { Section } from './base/units.js'
export type {
  BackendCodec,
  BlockBackend,
  CompressionType,
  FileExtent,
  QueueStats,
  SyncPolicy,
} from './queue/backend.js'
export type { Aio } from './queue/block-queue.js'
export { MemoryFile } from './queue/memory-file.js'
export type {
  DirtyBitmap,
  DirtyRange,
  PreallocationMode,
  Snapshot,
  SnapshotReference,
  SnapshotSpace,
} from './queue/format-image.js'
