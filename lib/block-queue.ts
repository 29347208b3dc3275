import { invalid, Qcow2Error } from './base/errors.js'
import { booleanOption, checkOptions, checkPath } from './base/options.js'
import { type CacheMode, type CacheOptions, cacheOption, defaultCache } from './image/cache-modes.js'
import type { QueueStats } from './queue/backend.js'
import { BlockQueue } from './queue/block-queue.js'
import { QueueContext, QueuedFile } from './queue/queued-file.js'

export type { CacheMode, CacheOptions, QueueStats }
export { Qcow2Error, QueueContext, QueuedFile }

export type OpenBlockQueueOptions = {
  /** Whether the host's page cache is used, and when things are made durable. Default 'writeback'. */
  readonly cache?: CacheMode | CacheOptions
  readonly readOnly?: boolean
  /** Make the file; it must not exist (ERR_EXISTS). */
  readonly create?: boolean
}

const schema = { cache: cacheOption, readOnly: booleanOption, create: booleanOption }

/**
 * Open any file with a queue for its ordered writes (QueuedFile has an example). No lock is taken.
 * @throws Qcow2Error  ERR_NOT_FOUND, ERR_PERMISSION, ERR_EXISTS, ERR_IS_A_DIRECTORY, ERR_NOT_SUPPORTED, ERR_IO
 * @throws TypeError   ERR_INVALID_OPTION: an unknown option, or a value of the wrong kind
 */
export async function openBlockQueue(path: string, options?: OpenBlockQueueOptions): Promise<QueuedFile> {
  const where = 'openBlockQueue'
  const { cache = defaultCache, readOnly = false, create = false } = checkOptions(where, options, schema)
  if (readOnly && create) {
    throw invalid(`${where}: options "readOnly" and "create" exclude one another`, 'ERR_INVALID_OPTION')
  }
  return new QueuedFile(await BlockQueue.open(checkPath(where, path), { ...cache, readOnly, create }))
}
