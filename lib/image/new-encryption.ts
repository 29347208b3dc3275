import { newVolumeHeader } from '../luks/new-volume.js'
import { passphraseBytes } from '../luks/passphrase.js'
import type { Encryption } from '../qcow2/encryption.js'
import type { Encrypting } from './encrypt-option.js'

/** The encryption of an image that is being made. */
export type NewEncryption = {
  /** To be laid into the image. */
  readonly luksHeader: Uint8Array
  /** Opens it. */
  readonly encryption: Encryption
}

/**
 * Make a new key for an image, and run `work` with it. The passphrase is asked for once, and gone afterwards.
 * @param encrypting  undefined: the image is not encrypted
 * @param path        by which the image will be known
 */
export async function withNewEncryption<T>(
  encrypting: Encrypting | undefined,
  path: string,
  work: (made: NewEncryption | undefined) => Promise<T>,
): Promise<T> {
  if (encrypting === undefined) return work(undefined)
  const passphrase = await passphraseBytes(encrypting.passphrase, { path, depth: 0 })
  try {
    return await work({
      luksHeader: await newVolumeHeader(encrypting.spec, passphrase),
      encryption: { passphrase },
    })
  } finally {
    passphrase.fill(0)
  }
}
