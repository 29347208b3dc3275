import { UsageError } from './usage-error.js'

/** A size in bytes as the user wrote it. */
export type ParsedSize = { type: 'size'; bytes: bigint } | { type: 'malformed' } | { type: 'too large' }

const suffixes = 'BKMGTPE'
const largest = 2n ** 64n - 1n

/**
 * Read a size by qemu-img's rules: decimal or hexadecimal, then one of b k K m M g G t T p P e E (powers of 1024).
 * A decimal fraction is allowed where a suffix makes bytes of it, and rounded down.
 */
export function parseSize(text: string): ParsedSize {
  const match = /^\s*\+?(?:0x([0-9a-f]+)|(\d+)(?:\.(\d*))?)([bkmgtpe]?)$/i.exec(text)
  if (match === null) return { type: 'malformed' }
  const [, hexadecimal, decimal = '', fraction = '', suffix = ''] = match
  const unit = 1024n ** BigInt(Math.max(0, suffixes.indexOf(suffix.toUpperCase())))
  const part = Number(`0.${fraction === '' ? '0' : fraction}`)
  if (part !== 0 && unit === 1n) return { type: 'malformed' }
  const whole = BigInt(hexadecimal === undefined ? decimal : `0x${hexadecimal}`)
  // As a double, as the stock tool does it: 1.1G is the same number of bytes in both.
  const bytes = whole * unit + BigInt(Math.floor(part * Number(unit)))
  return bytes > largest ? { type: 'too large' } : { type: 'size', bytes }
}

/**
 * A size that the user gave for `what`.
 * @throws UsageError  in the words of qemu-img
 */
export function sizeArgument(what: string, text: string): number {
  const size = parseSize(text)
  if (size.type === 'size' && size.bytes < 2n ** 63n) return exactNumber(what, size.bytes)
  if (size.type !== 'malformed') {
    throw new UsageError(`Invalid ${what} specified. Must be between 0 and ${2n ** 63n - 1n}.`)
  }
  throw new UsageError([
    `Invalid ${what} specified. You may use k, M, G, T, P or E suffixes for`,
    'kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.',
  ])
}

/** The argument of -r of what copies: bytes a second. @throws UsageError  no size */
export function rateArgument(text: string | undefined): { rateLimit?: number } {
  return text === undefined ? {} : { rateLimit: sizeArgument('rate limit', text) }
}

/**
 * The size given for a key of an option list.
 * @throws UsageError  in the words of QEMU's option parser
 */
export function sizeParameter(key: string, text: string | undefined): bigint {
  const size = parseSize(text ?? '')
  if (size.type === 'size') return size.bytes
  if (size.type === 'too large') {
    throw new UsageError(`Value '${text ?? ''}' is out of range for parameter '${key}'`)
  }
  throw new UsageError(
    `Parameter '${key}' expects a non-negative number below 2^64\n` +
      'Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n' +
      'and exabytes, respectively.',
  )
}

/** Sizes beyond 2^53 bytes (8 PiB) are no image that this package can address exactly. */
export function exactNumber(what: string, bytes: bigint): number {
  if (bytes > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new UsageError(
      `Invalid ${what} specified: ${bytes} bytes is more than the 8 PiB that are supported`,
    )
  }
  return Number(bytes)
}
