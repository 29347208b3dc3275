import { invalid } from '../base/errors.js'
import { booleanOption, checkOptions, enumOption, functionOption, signalOption } from '../base/options.js'
import type { Encryption } from '../qcow2/encryption.js'
import type { BlockBackend } from '../queue/backend.js'
import type { SnapshotReference } from '../queue/format-image.js'
import { type BackingGate, backingOption } from './backing-gate.js'
import {
  cacheOption,
  type CacheMode,
  type CacheOptions,
  type CacheSettings,
  defaultCache,
} from './cache-modes.js'
import { openChain } from './chain.js'
import { type DataFileGate, dataFileOption } from './data-file-gate.js'
import { DiskImage } from './disk-image.js'
import { encryptionOption } from './encryption-option.js'
import { FailurePolicy, type ImageEvent, type OnError } from './failure-policy.js'
import {
  checkLocation,
  dataGateOfMemory,
  gateOfMemory,
  type ImageLocation,
  isInMemory,
  nameOf,
} from './location.js'
import { openFailure } from './open-failure.js'
import { type ImageFormat, imageFormats } from './probe.js'
import { snapshotOption } from './snapshots.js'

export type OpenOptions = {
  /** Default: probed; a file without qcow2's magic is raw. Give it for files that a guest has written. */
  readonly format?: ImageFormat
  readonly readOnly?: boolean
  /** Open although somebody writes to the image: what is read may be inconsistent. With readOnly only. */
  readonly forceShare?: boolean
  readonly cache?: CacheMode | CacheOptions
  /** Which backing files may be opened. Default 'same-directory'. */
  readonly backing?: BackingGate
  /** Show the disk as it is in this internal snapshot: an id or a name, or an object that says which of them. With readOnly only. */
  readonly snapshot?: SnapshotReference
  /** What opens it, and what it stands on, where they are encrypted. */
  readonly encryption?: Encryption
  /** Whether an external data file may be opened, of the image or of one that it stands on. Default 'deny'. */
  readonly dataFile?: DataFileGate
  /** 'off' takes no locks and respects none: two writers destroy an image. */
  readonly locking?: 'auto' | 'off'
  /** What a failed write does: see OnError. Default 'report'. */
  readonly onError?: OnError
  /** Told of damage, of a full host and of a file that can no longer be believed. */
  readonly onEvent?: (event: ImageEvent) => void
  /** Abandons opening; has no effect afterwards. */
  readonly signal?: AbortSignal
}

export const openSchema = {
  format: enumOption(imageFormats),
  readOnly: booleanOption,
  forceShare: booleanOption,
  cache: cacheOption,
  backing: backingOption,
  snapshot: snapshotOption,
  encryption: encryptionOption,
  dataFile: dataFileOption,
  locking: enumOption(['auto', 'off']),
  onError: enumOption(['report', 'stop', 'enospc']),
  onEvent: functionOption<(event: ImageEvent) => void>(),
  signal: signalOption,
}

/**
 * Open a disk image with its backing files. It is locked against other users, QEMU among them, until it is closed.
 *
 * An image that was not closed cleanly by a writer of lazy refcounts is repaired before it is opened for writing.
 * @param source  a path or a file in memory; or a file that is open already, which belongs to the image from here on
 * @throws ERR_NOT_FOUND, ERR_PERMISSION, ERR_READ_ONLY (the file), ERR_IS_A_DIRECTORY, ERR_IO
 * @throws ERR_NOT_AN_IMAGE, ERR_CORRUPT, ERR_UNSUPPORTED_FEATURE
 * @throws ERR_IMAGE_LOCKED     somebody else uses it
 * @throws ERR_BACKING_DENIED, ERR_BACKING_LOOP, ERR_DATA_FILE_DENIED
 * @throws ERR_PASSPHRASE_REQUIRED, ERR_WRONG_PASSPHRASE
 */
export async function openImage(
  source: ImageLocation | BlockBackend,
  options?: OpenOptions,
): Promise<DiskImage> {
  return open(source, checkOptions('openImage', options, openSchema), { salvaging: false })
}

/**
 * Open an image for reading what can be read of it: as openImage, but a file that was cut short opens, if it has its L1 table. What is lost
 * fails when it is read.
 */
export async function openToSalvage(
  source: ImageLocation,
  options: OpenOptions & { readonly readOnly: true },
): Promise<DiskImage> {
  return open(source, checkOptions('openImage', options, openSchema), { salvaging: true })
}

async function open(
  source: ImageLocation | BlockBackend,
  given: OpenOptions & { readonly cache?: CacheSettings },
  { salvaging }: { readonly salvaging: boolean },
): Promise<DiskImage> {
  const path = isBackend(source) ? source.path : nameOf(checkLocation('openImage', source))
  const {
    readOnly = false,
    forceShare = false,
    backing: gate = 'same-directory',
    onError = 'report',
    signal,
  } = given
  if (forceShare && !readOnly) {
    throw invalid('openImage: forceShare needs readOnly: two writers destroy an image', 'ERR_INVALID_OPTION')
  }
  if (given.snapshot !== undefined && !readOnly) {
    throw invalid('openImage: snapshot needs readOnly: what was frozen does not change', 'ERR_INVALID_OPTION')
  }
  signal?.throwIfAborted()
  const inMemory = isInMemory(source)
  const { dataFile: dataGate = 'deny' } = given
  const settings = {
    readOnly,
    forceShare,
    salvaging,
    gate: inMemory ? gateOfMemory(gate) : gate,
    dataGate: inMemory ? dataGateOfMemory(dataGate) : dataGate,
    signal,
    snapshot: given.snapshot,
    encryption: given.encryption,
    locking: given.locking !== 'off',
    cache: given.cache ?? defaultCache,
  }
  const file = inMemory ? source.openBackend({ ...settings.cache, readOnly }) : source
  const chain = await openChain(file, given.format, settings).catch((error: unknown) => {
    throw openFailure(path, error)
  })
  const watched = onError !== 'report' || given.onEvent !== undefined
  const failurePolicy = watched ? new FailurePolicy(onError, given.onEvent) : undefined
  failurePolicy?.watch(chain.layers[0].backend)
  return new DiskImage({
    path,
    readOnly,
    ...chain,
    failurePolicy,
    ...(typeof source !== 'string' ? {} : { opening: { cache: settings.cache, locking: settings.locking } }),
  })
}

/** Else whatever an untyped caller passes for a path would fail where nothing tells of it. */
function isBackend(source: ImageLocation | BlockBackend): source is BlockBackend {
  return typeof source === 'object' && source !== null && 'close' in source
}
