import { randomBytes } from 'node:crypto'
import { link, open, readlink, realpath, rename, stat, unlink } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { Qcow2Error } from '../base/errors.js'
import { escapeName } from '../qcow2/header-extensions.js'
import type { BlockBackend } from '../queue/backend.js'
import { errnoOf, systemError } from '../queue/system-error.js'
import { defaultCache } from './cache-modes.js'
import { couldNotOpen, openFile } from './image-file.js'
import { takeLocks } from './locks.js'
import { isWindows } from './path-names.js'

/** Longest file name of the usual file systems, in bytes. */
const longestName = 255

export type TargetOptions = {
  /** Replace a file that exists. Otherwise that is an error. */
  readonly overwrite: boolean
  /** Respect the locks of those who use a file that is replaced. */
  readonly locking: boolean
  readonly signal: AbortSignal | undefined
}

/**
 * Make a file that appears under its name complete and durable, or not at all: it is written under a temporary name in the same folder,
 * synced, and renamed; then the folder is synced. Whatever fails, the temporary file is removed and a file that was there stays. Only a block device is
 * written in place: what fails leaves it half written.
 * @param write  fills the file of the given name, which exists and is empty or a device, and closes it
 * @throws ERR_EXISTS, ERR_IMAGE_LOCKED (the file to be replaced is in use), ERR_IS_A_DIRECTORY, the signal's reason
 */
export async function writeTarget<T>(
  path: string,
  options: TargetOptions,
  write: (temporaryPath: string) => Promise<T>,
): Promise<T> {
  const target = await realpath(path).catch(() => behindLink(path))
  const replaced = await lookAtTarget(path, target, options)
  if (replaced?.backend.isDevice === true) return writeDevice(path, target, replaced.backend, options, write)
  try {
    const temporary = temporaryName(target)
    await createEmpty(temporary, replaced?.mode ?? 0o644, path)
    try {
      const result = await write(temporary)
      await makeDurable(temporary)
      options.signal?.throwIfAborted()
      if (replaced === undefined) {
        await renameNew(temporary, target)
      } else {
        // There an open file cannot be replaced. Nor can one that somebody opens now: then the rename fails.
        if (isWindows) await replaced.backend.close()
        await rename(temporary, target)
      }
      await makeNamesDurable(dirname(target))
      return result
    } catch (error) {
      await unlink(temporary).catch(() => undefined)
      throw renamedIn(error, temporary, path)
    }
  } finally {
    await replaced?.backend.close()
  }
}

/** @param looked  open, and locked: nobody uses the device. From here on it is locked by whoever opens it as an image. */
async function writeDevice<T>(
  path: string,
  target: string,
  looked: BlockBackend,
  options: TargetOptions,
  write: (temporaryPath: string) => Promise<T>,
): Promise<T> {
  await looked.close()
  try {
    const result = await write(target)
    await makeDurable(target)
    options.signal?.throwIfAborted()
    return result
  } catch (error) {
    throw renamedIn(error, target, path)
  }
}

/** Where a link that leads to nothing yet points to; another path as it is. */
async function behindLink(path: string): Promise<string> {
  return readlink(path).then(
    (pointsTo) => resolve(dirname(path), pointsTo),
    () => path,
  )
}

/** @returns the file that is to be replaced, locked; undefined if there is none */
async function lookAtTarget(
  path: string,
  target: string,
  options: TargetOptions,
): Promise<{ backend: BlockBackend; mode: number } | undefined> {
  const stats = await stat(target).catch(() => undefined)
  if (stats === undefined) return undefined
  if (stats.isDirectory()) {
    throw new Qcow2Error('ERR_IS_A_DIRECTORY', `Could not create '${path}': Is a directory`, {
      path,
    })
  }
  if (!options.overwrite) throw exists(path)
  if (!stats.isFile() && !stats.isBlockDevice()) {
    const message = `Could not create '${path}': only regular files and block devices can be replaced`
    throw new Qcow2Error('ERR_NOT_SUPPORTED', message, { path })
  }
  const backend = await openFile(target, { readOnly: false, cache: defaultCache })
  try {
    if (options.locking) takeLocks(backend, 'creation', path)
  } catch (error) {
    await backend.close()
    throw error
  }
  return { backend, mode: stats.mode & 0o7777 }
}

/** Beside the target, hidden, and not to be guessed: nobody can have put a link there. */
export function temporaryName(target: string): string {
  const suffix = `.${randomBytes(6).toString('hex')}.tmp`
  const name = Buffer.from(basename(target)).subarray(0, longestName - suffix.length - 1)
  return join(dirname(target), `.${name.toString('utf8').replace(/\uFFFD+$/u, '')}${suffix}`)
}

/** Nobody has heard of the temporary name: what failed is told of the file that was asked for. */
function renamedIn(error: unknown, temporary: string, path: string): unknown {
  if (!(error instanceof Qcow2Error) || error.path !== temporary) return error
  const { code, offset, structure, errno } = error
  const message = error.message
    .replaceAll(escapeName(temporary), escapeName(path))
    .replaceAll(temporary, path)
  return new Qcow2Error(code, message, {
    path,
    ...(offset === undefined ? {} : { offset }),
    ...(structure === undefined ? {} : { structure }),
    ...(errno === undefined ? {} : { errno }),
    cause: error,
  })
}

async function createEmpty(temporary: string, mode: number, path: string): Promise<void> {
  const file = await open(temporary, 'wx', mode).catch((cause: NodeJS.ErrnoException) => {
    const errno = errnoOf(cause)
    if (errno === undefined) throw cause
    throw couldNotOpen(systemError(errno, 'create', { path, cause }), 'create')
  })
  try {
    // The mode of a file that is replaced counts, whatever the umask is.
    if (mode !== 0o644) await file.chmod(mode)
  } finally {
    await file.close()
  }
}

/** What a folder says of its files. Windows has no call for this: NTFS writes it to its journal first, as part of what it does. */
export async function makeNamesDurable(folder: string): Promise<void> {
  if (!isWindows) await makeDurable(folder)
}

/** fsync of a file or a folder. */
export async function makeDurable(path: string): Promise<void> {
  // Windows asks for the right to write.
  const file = await open(path, isWindows ? 'r+' : 'r')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}

/** Give a new file its name, unless somebody has taken it meanwhile. */
async function renameNew(temporary: string, target: string): Promise<void> {
  try {
    await link(temporary, target)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') throw exists(target)
    // Not every file system has hard links; there the name is taken without the last look.
    await rename(temporary, target)
    return
  }
  await unlink(temporary)
}

/** A target that is there already. */
export function exists(path: string): Qcow2Error {
  return new Qcow2Error(
    'ERR_EXISTS',
    `Could not create '${path}': it exists; pass overwrite: true to replace it`,
    { path },
  )
}
