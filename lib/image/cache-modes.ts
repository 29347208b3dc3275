import { booleanOption, checkOptions, enumOption, integerOption } from '../base/options.js'
import { invalid } from '../base/errors.js'
import type { SyncPolicy } from '../queue/backend.js'
import { type Aio, aioNames } from '../queue/block-queue.js'
import type { ReservationPreallocation } from '../qcow2/reservation.js'

/**
 * Two independent choices: whether the host's page cache is used, and when things are made durable.
 * The names are QEMU's; 'unsafe-direct' is the sixth, which it has no name for.
 */
export type CacheMode = 'writeback' | 'none' | 'writethrough' | 'directsync' | 'unsafe' | 'unsafe-direct'

const cacheModes: Readonly<Record<CacheMode, { readonly direct: boolean; readonly syncPolicy: SyncPolicy }>> =
  {
    writeback: { direct: false, syncPolicy: 'flush' },
    none: { direct: true, syncPolicy: 'flush' },
    writethrough: { direct: false, syncPolicy: 'write' },
    directsync: { direct: true, syncPolicy: 'write' },
    unsafe: { direct: false, syncPolicy: 'never' },
    'unsafe-direct': { direct: true, syncPolicy: 'never' },
  }

export const cacheModeNames = Object.keys(cacheModes) as CacheMode[]

/** Every figure has a default that suits most disks. */
export type CacheTuning = {
  /** Most bytes of metadata that may wait in the queue. */
  readonly queueBytes?: number
  /** Most metadata writes that may wait in the queue. */
  readonly queueNodes?: number
  /** Metadata older than this is written without being asked for. Milliseconds; 0 is never. */
  readonly idleMs?: number
  /** Bytes of L2 tables kept in memory. */
  readonly l2CacheBytes?: number
  /** Bytes of refcount blocks kept in memory. */
  readonly refcountCacheBytes?: number
  /** Clusters at the end of the file that are counted ahead of need, so that an allocating write costs one sync; 0: none. */
  readonly reservation?: number
  /**
   * How their space is kept ready, in QEMU's words. 'full': the host writes zeros there, so that a durable write into a new cluster changes nothing that the
   * host's file system has to write down. Only while writes are flushed about one by one; where several are flushed together it is as 'falloc', which has the host allocate the space.
   * Default 'falloc'.
   */
  readonly preallocation?: ReservationPreallocation
  /**
   * Make small writes into the host's page cache on the calling thread, without a detour over another one: fastest for few writers who each
   * wait for their write. Where the host throttles writers, the event loop waits as well. Without effect where the page cache is bypassed. Default false.
   */
  readonly inlineWrites?: boolean
  /**
   * How data requests are made where the host's page cache is bypassed; without effect where it is used. 'io_uring' is an error where it cannot be had: it takes Linux 6.1
   * and a process that may use it. Default 'threads'.
   */
  readonly aio?: Aio
  /**
   * With `aio: 'io_uring'`, wait on the calling thread for a read or write of at most 64 KiB while nothing else is under way on it: the event loop waits as well, a
   * millisecond or one request before it has a turn. A request that takes longer is followed by twenty times as long without. Default false.
   */
  readonly inlineWaits?: boolean
}

export type CacheOptions = CacheTuning & {
  /** One of the six names; `direct` and `sync` override what it stands for. Default 'writeback'. */
  readonly mode?: CacheMode
  /** Bypass the host's page cache (O_DIRECT). An error where the file system cannot. */
  readonly direct?: boolean
  /** When data is made durable: 'never', on 'flush', or after every 'write'. */
  readonly sync?: SyncPolicy
}

/** A cache option as used inside: every choice made, tuning only where the caller gave it. */
export type CacheSettings = CacheTuning & {
  readonly direct: boolean
  readonly syncPolicy: SyncPolicy
}

const cacheSchema = {
  mode: enumOption(cacheModeNames),
  direct: booleanOption,
  sync: enumOption(['never', 'flush', 'write']),
  queueBytes: integerOption({ min: 64 * 1024, max: 2 ** 30 }),
  queueNodes: integerOption({ min: 16, max: 2 ** 20 }),
  idleMs: integerOption({ min: 0, max: 2 ** 31 - 1 }),
  l2CacheBytes: integerOption({ min: 0, max: 2 ** 40 }),
  refcountCacheBytes: integerOption({ min: 0, max: 2 ** 40 }),
  reservation: integerOption({ min: 0, max: 4096 }),
  preallocation: enumOption(['falloc', 'full']),
  inlineWrites: booleanOption,
  aio: enumOption(aioNames),
  inlineWaits: booleanOption,
}

/** The option `cache` of everything that opens an image. */
export function cacheOption(value: unknown, name: string): CacheSettings {
  if (typeof value === 'string') return cacheModes[enumOption(cacheModeNames)(value, name)]
  if (typeof value !== 'object' || value === null) {
    throw invalid(
      `${name} must be a cache mode (${cacheModeNames.join(', ')}) or an object`,
      'ERR_INVALID_OPTION',
    )
  }
  const { mode = 'writeback', direct, sync, ...tuning } = checkOptions(name, value, cacheSchema)
  const named = cacheModes[mode]
  return { direct: direct ?? named.direct, syncPolicy: sync ?? named.syncPolicy, ...tuning }
}

export const defaultCache: CacheSettings = cacheModes.writeback

/** Settings as the option that stands for them, for a function that passes its own option on. */
export function cacheOptionsOf({ syncPolicy, ...rest }: CacheSettings): CacheOptions {
  return { sync: syncPolicy, ...rest }
}

/** For work that copies much and syncs at its end: clusters reserved ahead would only spread what it writes, and spare it no sync. */
export function withoutReservation(settings: CacheSettings): CacheSettings {
  return { reservation: 0, ...settings }
}
