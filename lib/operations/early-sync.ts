import { open } from 'node:fs/promises'
import { isWindows } from '../image/path-names.js'
import { errnoOf, systemError } from '../queue/system-error.js'

/** Bytes written between two syncs: many enough that what a sync costs by itself does not count. */
const syncedBytes = 64 * 1024 * 1024

/**
 * Copy into a file that is synced meanwhile, again and again, so that the sync at the end has little left to do: the disk works while the processors do.
 * Nothing relies on it. What fails must end the copy all the same: a host tells of a failed write once, and would not tell the sync at the end.
 * @param path  undefined: there is nothing to sync
 * @param copy  calls `wrote` with the bytes of each write that has ended
 * @throws ERR_IO, ERR_NO_SPACE  a sync has failed; what `copy` throws
 */
export async function syncEarly<T>(
  path: string | undefined,
  copy: (wrote: (bytes: number) => void) => Promise<T>,
): Promise<T> {
  if (path === undefined) return copy(() => undefined)
  // Windows asks for the right to write.
  const file = await open(path, isWindows ? 'r+' : 'r')
  const sync = (): Promise<void> =>
    file.datasync().catch((cause: NodeJS.ErrnoException) => {
      const errno = errnoOf(cause)
      throw errno === undefined ? cause : systemError(errno, 'flush', { path, cause })
    })
  const syncs = new EarlySyncs(sync)
  try {
    const result = await copy((bytes) => syncs.wrote(bytes))
    await syncs.ended()
    return result
  } finally {
    await syncs.ended().catch(() => undefined)
    await file.close()
  }
}

/** One sync at a time, each after so many bytes. */
export class EarlySyncs {
  readonly #sync: () => Promise<void>
  readonly #every: number
  #unsynced = 0
  #running: Promise<void> | undefined
  #failure: { readonly reason: unknown } | undefined

  constructor(sync: () => Promise<void>, every = syncedBytes) {
    this.#sync = sync
    this.#every = every
  }

  /** @throws why a sync has failed */
  wrote(bytes: number): void {
    this.#throwFailure()
    this.#unsynced += bytes
    if (this.#running !== undefined || this.#unsynced < this.#every) return
    this.#unsynced = 0
    this.#running = this.#sync()
      .catch((reason: unknown) => {
        this.#failure = { reason }
      })
      .finally(() => {
        this.#running = undefined
      })
  }

  /** Wait for the one that runs. @throws why a sync has failed */
  async ended(): Promise<void> {
    await this.#running
    this.#throwFailure()
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.reason
  }
}
