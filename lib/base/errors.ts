/** What a caller may branch on. Stable: a code is never renamed. */
export type ErrorCode =
  | 'ERR_ADDON_NOT_LOADED'
  | 'ERR_BACKING_DENIED'
  | 'ERR_BACKING_LOOP'
  | 'ERR_BITMAP_EXISTS'
  | 'ERR_BITMAP_INCONSISTENT'
  | 'ERR_BITMAP_NOT_FOUND'
  | 'ERR_CLOSED'
  | 'ERR_CORRUPT'
  | 'ERR_DATA_FILE_DENIED'
  | 'ERR_EXISTS'
  | 'ERR_IMAGE_LOCKED'
  | 'ERR_IO'
  | 'ERR_IS_A_DIRECTORY'
  | 'ERR_NOT_AN_IMAGE'
  | 'ERR_NOT_FOUND'
  | 'ERR_NOT_SUPPORTED'
  | 'ERR_NO_SPACE'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_PASSPHRASE_REQUIRED'
  | 'ERR_PERMISSION'
  | 'ERR_POISONED'
  | 'ERR_READ_ONLY'
  | 'ERR_SNAPSHOT_NOT_FOUND'
  | 'ERR_UNSUPPORTED_FEATURE'
  | 'ERR_WRONG_PASSPHRASE'

/** Where it happened, as far as known. */
export type ErrorContext = {
  /** The file. */
  readonly path?: string
  /** Byte offset in the file, or on the guest's disk where the message says so. */
  readonly offset?: number
  /** The on-disk structure, in the words of the qcow2 specification: 'L2 entry', 'refcount table', ... */
  readonly structure?: string
  /** The operating system's error number, positive. */
  readonly errno?: number
  readonly cause?: unknown
}

const brand = Symbol.for('qcow2.error')

/** Every failure of a file, a disk or an image. Misuse of the API is a TypeError or RangeError with a `code`. */
export class Qcow2Error extends Error {
  readonly code: ErrorCode
  readonly path: string | undefined
  readonly offset: number | undefined
  readonly structure: string | undefined
  readonly errno: number | undefined

  constructor(code: ErrorCode, message: string, context: ErrorContext = {}) {
    super(message, context.cause === undefined ? undefined : { cause: context.cause })
    this.code = code
    this.path = context.path
    this.offset = context.offset
    this.structure = context.structure
    this.errno = context.errno
    Object.defineProperty(this, brand, { value: true })
  }

  /** Works across copies of the package and across realms, where `instanceof` of a plain class does not. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && brand in value
  }
}
Object.defineProperty(Qcow2Error.prototype, 'name', {
  value: 'Qcow2Error',
  configurable: true,
  writable: true,
})

/** The message of ERR_PASSPHRASE_REQUIRED. A command line says it in other words. */
export const passphraseRequired = 'The image is encrypted: the option encryption must say its passphrase'

export function corrupt(structure: string, offset: number, what: string): Qcow2Error {
  return new Qcow2Error('ERR_CORRUPT', `Image is corrupt: ${structure} at offset ${offset}: ${what}`, {
    structure,
    offset,
  })
}

export function unsupported(what: string, context: ErrorContext = {}): Qcow2Error {
  return new Qcow2Error('ERR_UNSUPPORTED_FEATURE', what, context)
}

export function notSupported(what: string, context: ErrorContext = {}): Qcow2Error {
  return new Qcow2Error('ERR_NOT_SUPPORTED', what, context)
}

export function readOnly(what: string, context: ErrorContext): Qcow2Error {
  return new Qcow2Error('ERR_READ_ONLY', what, context)
}

type MisuseCode = 'ERR_INVALID_OPTION' | 'ERR_INVALID_ARGUMENT' | 'ERR_OUT_OF_RANGE'

/** A caller passed something of the wrong kind. */
export function invalid(message: string, code: MisuseCode = 'ERR_INVALID_ARGUMENT'): TypeError {
  return Object.assign(new TypeError(message), { code })
}

/** A caller passed a number that no image or request can have. */
export function outOfRange(message: string): RangeError {
  return Object.assign(new RangeError(message), { code: 'ERR_OUT_OF_RANGE' satisfies MisuseCode })
}

/**
 * Say in which file it was, where what failed does not know: an entry of a table has an offset, no name.
 * @returns the error to throw instead; what is not ours, and what names a file, as it is
 */
export function namingFile(error: unknown, path: string): unknown {
  if (!(error instanceof Qcow2Error) || error.path !== undefined) return error
  const { code, message, offset, structure, errno, cause } = error
  return new Qcow2Error(code, `${message} ('${path}')`, {
    path,
    ...(offset === undefined ? {} : { offset }),
    ...(structure === undefined ? {} : { structure }),
    ...(errno === undefined ? {} : { errno }),
    cause,
  })
}
