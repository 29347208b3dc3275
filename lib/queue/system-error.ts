import { constants } from 'node:os'
import { getSystemErrorMap } from 'node:util'
import { Qcow2Error, type ErrorCode } from '../base/errors.js'

/** What the operating system's own names for failures mean to a caller. All others are ERR_IO. */
const codes: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: 'ERR_NO_SPACE',
  EDQUOT: 'ERR_NO_SPACE',
  ENOMEM: 'ERR_OUT_OF_MEMORY',
  ENOENT: 'ERR_NOT_FOUND',
  ENOTDIR: 'ERR_NOT_FOUND',
  EACCES: 'ERR_PERMISSION',
  EPERM: 'ERR_PERMISSION',
  EROFS: 'ERR_READ_ONLY',
  EISDIR: 'ERR_IS_A_DIRECTORY',
  EEXIST: 'ERR_EXISTS',
  EOPNOTSUPP: 'ERR_NOT_SUPPORTED',
  ENOTSUP: 'ERR_NOT_SUPPORTED',
}

/** What Node's table lacks. */
const extraDescriptions = { EDQUOT: 'disk quota exceeded' }

const descriptions = new Map<string, string>([
  ...Object.entries(extraDescriptions),
  ...getSystemErrorMap().values(),
])

/** By the number that this system gives the failure: Node's own table has other numbers on Windows. */
const names = new Map<number, string>()
for (const [name, number] of Object.entries(constants.errno)) {
  // Of two names for one number that which can be described.
  if (descriptions.has(name)) names.set(number, name)
}

/** The number of a failure of Node's own file functions, as this system has it. @returns undefined where it is none of the system's */
export function errnoOf({ code, errno }: NodeJS.ErrnoException): number | undefined {
  if (errno === undefined) return undefined
  return constants.errno[code as keyof typeof constants.errno] ?? -errno
}

/** @returns its name and what it means, undefined for a number that the system does not have */
export function describeErrno(errno: number): { name: string; text: string } | undefined {
  const name = names.get(errno)
  return name === undefined ? undefined : { name, text: descriptions.get(name) ?? '' }
}

/**
 * A failure of the operating system, in Node's words: 'ENOSPC: no space left on device, write'.
 * @param errno      positive
 * @param operation  what failed: 'open', 'read', 'write', 'sync', ...
 */
export function systemError(
  errno: number,
  operation: string,
  context: { readonly path?: string; readonly offset?: number; readonly cause?: unknown } = {},
): Qcow2Error {
  const name = names.get(errno) ?? `errno ${errno}`
  const where = context.path === undefined ? '' : ` '${context.path}'`
  return new Qcow2Error(
    codes[name] ?? 'ERR_IO',
    `${name}: ${descriptions.get(name) ?? 'unknown error'}, ${operation}${where}`,
    {
      ...context,
      errno,
    },
  )
}

/** What the addon throws where it has no memory, in our words; all else as it is. @param operation  as of `systemError` */
export function errorOfAddon(thrown: unknown, operation: string, path: string): unknown {
  const isOutOfMemory = thrown instanceof Error && 'code' in thrown && thrown.code === 'ERR_OUT_OF_MEMORY'
  return isOutOfMemory ? systemError(constants.errno.ENOMEM, operation, { path, cause: thrown }) : thrown
}

/** Every request after the first failure. @param first  that failure: of a write or sync of the queue */
export function poisonedError(first: Qcow2Error, path: string): Qcow2Error {
  return new Qcow2Error(
    'ERR_POISONED',
    `An earlier write or sync of '${path}' failed (${first.message}): what the disk holds is not known. Close it and open it again`,
    { path, cause: first, ...(first.errno === undefined ? {} : { errno: first.errno }) },
  )
}

/** Every request after the closing. */
export function closedError(path: string): Qcow2Error {
  return new Qcow2Error('ERR_CLOSED', `'${path}' is closed`, { path })
}

/** An io_uring was asked for by its name. */
export function noRingError(path: string): Qcow2Error {
  return new Qcow2Error(
    'ERR_NOT_SUPPORTED',
    `'${path}' cannot be opened with the cache option aio 'io_uring': it needs Linux 6.1 or later, and a process that may use it`,
    { path },
  )
}

/**
 * Why a file could not be opened, in words that help.
 * @param options  how it was to be opened
 */
export function openError(errno: number, path: string, options: { readonly direct: boolean }): Qcow2Error {
  const error = systemError(errno, 'open', { path })
  if (error.message.startsWith('EINVAL') && options.direct) {
    return new Qcow2Error(
      'ERR_NOT_SUPPORTED',
      `'${path}' cannot be opened past the page cache (cache modes none, directsync, unsafe-direct): its file system does not support O_DIRECT`,
      { path, errno, cause: error },
    )
  }
  // Windows: a program that lets nobody else open what it has open.
  if (error.message.startsWith('EBUSY')) {
    return new Qcow2Error('ERR_IMAGE_LOCKED', `'${path}' is kept from others by a program that has it open`, {
      path,
      errno,
      cause: error,
    })
  }
  if (error.message.startsWith('ENODEV')) {
    return new Qcow2Error('ERR_NOT_SUPPORTED', `'${path}' is neither a regular file nor a block device`, {
      path,
      errno,
    })
  }
  return error
}
