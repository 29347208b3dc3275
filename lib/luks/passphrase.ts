import { invalid } from '../base/errors.js'
import type { OptionCheck } from '../base/options.js'

/** Text, or bytes. */
export type PassphraseValue = string | Uint8Array

/** The image that a passphrase is for. `depth`: 0 is the image that was named, 1 its backing file, ... */
export type PassphraseFor = { readonly path: string; readonly depth: number }

/**
 * What unlocks a disk: text (as UTF-8), bytes, or a function that is asked for it when it is needed, so that it need not be kept.
 * Copies made here are wiped after use; text cannot be wiped, and bytes are their owner's to wipe.
 */
export type Passphrase =
  PassphraseValue | ((image: PassphraseFor) => PassphraseValue | Promise<PassphraseValue>)

/** Checks an option; what was given is never told. */
export const passphraseOption: OptionCheck<Passphrase> = (value, name) => {
  if (typeof value === 'string' || value instanceof Uint8Array || typeof value === 'function') {
    return value as Passphrase
  }
  throw invalid(`${name} must be a string, a Uint8Array or a function`, 'ERR_INVALID_OPTION')
}

/** Run `work` with the passphrase's bytes, which are gone afterwards. @param image  that it is for */
export async function withPassphrase<T>(
  passphrase: Passphrase,
  image: PassphraseFor,
  work: (bytes: Uint8Array) => Promise<T>,
): Promise<T> {
  const bytes = await passphraseBytes(passphrase, image)
  try {
    return await work(bytes)
  } finally {
    bytes.fill(0)
  }
}

/** The passphrase's bytes, asked for once. @returns a copy, for its owner to wipe */
export async function passphraseBytes(passphrase: Passphrase, image: PassphraseFor): Promise<Uint8Array> {
  const value: unknown = typeof passphrase === 'function' ? await passphrase(image) : passphrase
  if (typeof value === 'string') return new TextEncoder().encode(value)
  if (value instanceof Uint8Array) return Uint8Array.from(value)
  throw invalid('A passphrase must be a string or a Uint8Array', 'ERR_INVALID_ARGUMENT')
}
