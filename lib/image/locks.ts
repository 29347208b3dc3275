import { Qcow2Error } from '../base/errors.js'
import { escapeName } from '../qcow2/header-extensions.js'
import type { BlockBackend } from '../queue/backend.js'
import type { ImageFormat } from './probe.js'

/**
 * QEMU's image locks: shared locks on single bytes of the file. Byte 100 + i says "I use permission i", byte 200 + i
 * "I tolerate nobody else who uses it". Conflicts are found by testing whether somebody else holds the opposite byte.
 * The bits are QEMU's: docs of `BLK_PERM_*`; they never change, for any two versions may meet on one image.
 */
const permissions = ['consistent read', 'write', 'write unchanged', 'resize'] as const
type Permission = (typeof permissions)[number]

const usedBase = 100
const unsharedBase = 200

type LockRow = { readonly uses: readonly Permission[]; readonly unshared: readonly Permission[] }

/** Who takes which locks. */
const lockRows = {
  /** Owner of the metadata: nobody else may write, resize, or believe that the image stays as it is. */
  'qcow2 read-write': { uses: ['consistent read', 'write', 'resize'], unshared: ['write', 'resize'] },
  /** Readers of any format, backing files included: beside other readers, never beside a writer. */
  'read-only': { uses: ['consistent read'], unshared: ['write', 'resize'] },
  /** Beside a writer, at the caller's risk. */
  'force-share': { uses: ['consistent read'], unshared: [] },
  /** A guest's disk: one writer. Resizing by somebody else is tolerated, as QEMU's guest devices do. */
  'raw read-write': { uses: ['consistent read', 'write', 'resize'], unshared: ['write'] },
  /** The data file of such an owner, who alone gives it its size. */
  'data file read-write': { uses: ['consistent read', 'write', 'resize'], unshared: ['resize'] },
  'data file read-only': { uses: ['consistent read'], unshared: ['resize'] },
  /** The moment when a file is emptied or replaced. */
  creation: { uses: ['write', 'resize'], unshared: ['resize'] },
  /** Looks at metadata only. */
  'metadata only': { uses: [], unshared: ['write', 'resize'] },
} as const satisfies Record<string, LockRow>

export type LockUse = keyof typeof lockRows

/** What somebody who opens an image like this locks. */
export function lockUse(format: ImageFormat, access: { readOnly: boolean; forceShare: boolean }): LockUse {
  if (access.forceShare) return 'force-share'
  if (access.readOnly) return 'read-only'
  return format === 'qcow2' ? 'qcow2 read-write' : 'raw read-write'
}

const usedByte = (permission: Permission): number => usedBase + permissions.indexOf(permission)
const unsharedByte = (permission: Permission): number => unsharedBase + permissions.indexOf(permission)

/** The bytes to hold and the bytes that nobody else may hold, in QEMU's order. */
export function lockBytes(use: LockUse): { held: number[]; tested: number[] } {
  const { uses, unshared } = lockRows[use]
  return {
    held: [...uses.map(usedByte), ...unshared.map(unsharedByte)],
    tested: [...uses.map(unsharedByte), ...unshared.map(usedByte)],
  }
}

/**
 * Take the locks of a use, to be held until the file is closed. To be called before the header is read: what is read
 * without the lock may be stale.
 * @param name  what the image is called in messages
 * @throws ERR_IMAGE_LOCKED  somebody uses the image in a way that excludes this, and the words say which
 */
export function takeLocks(backend: BlockBackend, use: LockUse, name = backend.path): void {
  const { held, tested } = lockBytes(use)
  takeBytes(backend, held, tested, name)
}

/**
 * Use a file otherwise than so far, first half: hold what the new use takes beside what the old one holds, or leave all as it is.
 * @throws ERR_IMAGE_LOCKED  somebody else's use excludes the new one
 */
export function addLocks(backend: BlockBackend, from: LockUse, to: LockUse): void {
  const before = lockBytes(from).held
  const { held, tested } = lockBytes(to)
  takeBytes(
    backend,
    held.filter((byte) => !before.includes(byte)),
    tested,
    backend.path,
  )
}

/** Second half: let go of what the new use does not need. */
export function dropLocks(backend: BlockBackend, from: LockUse, to: LockUse): void {
  const after = lockBytes(to).held
  const dropped = lockBytes(from).held.filter((byte) => !after.includes(byte))
  if (dropped.length > 0) backend.unlock(dropped)
}

function takeBytes(
  backend: BlockBackend,
  held: readonly number[],
  tested: readonly number[],
  name: string,
): void {
  const conflict = lockWherePossible(backend, held, tested)
  if (conflict === undefined) return
  throw new Qcow2Error(
    'ERR_IMAGE_LOCKED',
    `Failed to get ${lockName(conflict)}lock\nIs another process using the image [${escapeName(name)}]?`,
    { path: name },
  )
}

/** Some file systems (and the servers of some) have no such locks. QEMU goes without them there, and so do we. */
function lockWherePossible(
  backend: BlockBackend,
  held: readonly number[],
  tested: readonly number[],
): number | undefined {
  try {
    const conflict = backend.lock(held, tested)
    if (conflict === undefined && held.some((byte) => byte >= unsharedBase)) backend.mayReadAhead?.()
    return conflict
  } catch (error) {
    if (error instanceof Qcow2Error && error.code === 'ERR_NOT_SUPPORTED') return undefined
    throw error
  }
}

/** QEMU's name of a lock byte with a blank behind it; nothing for a byte of its past or future. */
function lockName(byte: number): string {
  const unshared = byte >= unsharedBase
  const permission = permissions[byte - (unshared ? unsharedBase : usedBase)]
  if (permission === undefined) return ''
  return unshared ? `"${permission}" ` : `shared "${permission}" `
}
