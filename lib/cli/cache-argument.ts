import type { CacheMode } from '../image/cache-modes.js'
import { UsageError } from './usage-error.js'

const modes: Readonly<Record<string, CacheMode>> = {
  none: 'none',
  off: 'none',
  writeback: 'writeback',
  writethrough: 'writethrough',
  directsync: 'directsync',
  unsafe: 'unsafe',
  // Ours alone: QEMU has no name for it.
  'unsafe-direct': 'unsafe-direct',
}

/**
 * The argument of -t or -T.
 * @param what  'cache' or 'source cache'
 * @throws UsageError  no mode has that name
 */
export function cacheArgument(what: string, text: string | undefined): { cache?: CacheMode } {
  if (text === undefined) return {}
  const mode = Object.hasOwn(modes, text) ? modes[text] : undefined
  if (mode === undefined) throw new UsageError(`Invalid ${what} option: ${text}`)
  return { cache: mode }
}

/** The argument of -T where both are given. */
export function sourceCacheArgument(text: string | undefined): { sourceCache?: CacheMode } {
  const { cache } = cacheArgument('source cache', text)
  return cache === undefined ? {} : { sourceCache: cache }
}
