import { stat } from 'node:fs/promises'
import { Qcow2Error } from '../base/errors.js'
import { escapeName } from '../qcow2/header-extensions.js'
import type { BlockBackend } from '../queue/backend.js'
import { BlockQueue } from '../queue/block-queue.js'
import { describeErrno, errnoOf, systemError } from '../queue/system-error.js'
import type { CacheSettings } from './cache-modes.js'
import type { ImageLocation } from './location.js'

/** Which file it is, whatever its name: two names of one file are alike. */
export type FileIdentity = string

/**
 * Look at a path before it is opened: opening a pipe would wait for ever, and reading a directory gives no good message.
 * @throws ERR_NOT_FOUND, ERR_PERMISSION, ERR_IS_A_DIRECTORY, ERR_NOT_SUPPORTED
 */
export async function identifyFile(path: string): Promise<FileIdentity> {
  // As bigint: inode numbers may need all 64 bits.
  const stats = await stat(path, { bigint: true }).catch((cause: NodeJS.ErrnoException) => {
    const errno = errnoOf(cause)
    throw errno === undefined ? cause : couldNotOpen(systemError(errno, 'stat', { path, cause }))
  })
  if (stats.isDirectory()) {
    throw new Qcow2Error('ERR_IS_A_DIRECTORY', `Could not open '${escapeName(path)}': Is a directory`, {
      path,
    })
  }
  if (!stats.isFile() && !stats.isBlockDevice()) {
    throw new Qcow2Error(
      'ERR_NOT_SUPPORTED',
      `Could not open '${escapeName(path)}': Not a regular file or block device`,
      { path },
    )
  }
  return `${stats.dev}:${stats.ino}`
}

/** Open an image's file, without looking at what it holds. No locks are taken. */
export async function openFile(
  path: ImageLocation,
  options: { readonly readOnly: boolean; readonly cache: CacheSettings },
): Promise<BlockBackend> {
  const { readOnly, cache } = options
  if (typeof path !== 'string') return path.openBackend({ ...cache, readOnly })
  return BlockQueue.open(path, { readOnly, ...cache }).catch((error: unknown) => {
    throw couldNotOpen(error)
  })
}

/** The operating system's refusals in the words that qemu-img's users know; other failures say more by themselves. */
export function couldNotOpen(error: unknown, what: 'open' | 'create' = 'open'): unknown {
  if (!(error instanceof Qcow2Error) || error.errno === undefined || error.path === undefined) return error
  const { name, text } = describeErrno(error.errno) ?? { name: '', text: '' }
  if (!['ENOENT', 'ENOTDIR', 'EACCES', 'EPERM', 'EROFS', 'ETXTBSY', 'ELOOP', 'ENAMETOOLONG'].includes(name))
    return error
  const { code, path, errno } = error
  const reason = text.charAt(0).toUpperCase() + text.slice(1)
  return new Qcow2Error(code, `Could not ${what} '${escapeName(path)}': ${reason}`, {
    path,
    errno,
    cause: error,
  })
}
