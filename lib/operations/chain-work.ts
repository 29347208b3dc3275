import type { LongWork } from '../base/abort.js'
import { enumOption, longWorkSchema } from '../base/options.js'
import { type BackingGate, backingOption } from '../image/backing-gate.js'
import {
  cacheOption,
  type CacheMode,
  type CacheOptions,
  cacheOptionsOf,
  type CacheSettings,
  defaultCache,
  withoutReservation,
} from '../image/cache-modes.js'
import { type DataFileGate, dataFileOption } from '../image/data-file-gate.js'
import type { DiskImage } from '../image/disk-image.js'
import { encryptionOption } from '../image/encryption-option.js'
import { openImage } from '../image/open.js'
import { type ImageFormat, imageFormats } from '../image/probe.js'
import type { Encryption } from '../qcow2/encryption.js'

/** What every operation takes that changes an image by its path. */
export type ChainWorkOptions = LongWork & {
  /** Default: probed. */
  readonly format?: ImageFormat
  /** Which backing files may be opened. Default 'same-directory'. */
  readonly backing?: BackingGate
  /** Whether external data files may be opened. Default 'deny'. */
  readonly dataFile?: DataFileGate
  readonly cache?: CacheMode | CacheOptions
  readonly locking?: 'auto' | 'off'
  /** What opens the images of the chain that are encrypted. */
  readonly encryption?: Encryption
}

export const chainWorkSchema = {
  format: enumOption(imageFormats),
  backing: backingOption,
  dataFile: dataFileOption,
  cache: cacheOption,
  locking: enumOption(['auto', 'off']),
  encryption: encryptionOption,
  ...longWorkSchema,
}

/** The same with all choices made. */
export type ChainWork = LongWork & {
  /** Undefined: probed. */
  readonly format: ImageFormat | undefined
  readonly signal: AbortSignal | undefined
  readonly gate: BackingGate
  readonly dataGate: DataFileGate
  readonly cache: CacheSettings
  readonly locking: boolean
  readonly encryption: Encryption | undefined
}

/** @param given  as `chainWorkSchema` has checked it */
export function chainWorkOf(
  given: LongWork & {
    readonly format?: ImageFormat | undefined
    readonly backing?: BackingGate | undefined
    readonly dataFile?: DataFileGate | undefined
    readonly cache?: CacheSettings | undefined
    readonly locking?: 'auto' | 'off' | undefined
    readonly encryption?: Encryption | undefined
  },
): ChainWork {
  return {
    signal: given.signal,
    onProgress: given.onProgress,
    format: given.format,
    gate: given.backing ?? 'same-directory',
    dataGate: given.dataFile ?? 'deny',
    cache: withoutReservation(given.cache ?? defaultCache),
    locking: given.locking !== 'off',
    encryption: given.encryption,
  }
}

/** Open the image that is worked on, for writing. @throws as openImage */
export function openForWork(path: string, work: ChainWork): Promise<DiskImage> {
  const { format, signal, encryption } = work
  return openImage(path, {
    ...(format === undefined ? {} : { format }),
    ...(signal === undefined ? {} : { signal }),
    ...(encryption === undefined ? {} : { encryption }),
    backing: work.gate,
    dataFile: work.dataGate,
    cache: cacheOptionsOf(work.cache),
    locking: work.locking ? 'auto' : 'off',
  })
}
