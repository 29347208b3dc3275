import { notSupported, passphraseRequired, Qcow2Error } from '../base/errors.js'
import { findKey } from '../luks/key-slots.js'
import { type Passphrase, withPassphrase } from '../luks/passphrase.js'
import { SectorCipher } from '../luks/sector-cipher.js'
import type { BlockBackend } from '../queue/backend.js'
import { EncryptedData } from './encrypted-data.js'
import { lockedVolume, readEncryptionHeader } from './encryption-header.js'
import type { GuestData } from './guest-data.js'
import type { Header } from './header.js'

/** What opens encrypted images. */
export type Encryption = {
  /** Of every encrypted image of a chain; a function is asked for each of them, with its path. */
  readonly passphrase: Passphrase
  /** Iterations of PBKDF2 that a LUKS header may ask for; default 67,108,864, about half a minute. */
  readonly maxIterations?: number
}

/** Said by whatever would combine them, in QEMU's words. */
export const compressionAndEncryption = 'Compression and encryption not supported at the same time'

export const cryptMethods = { none: 0, aes: 1, luks: 2 } as const

/** Bytes of the key of the legacy AES: of the passphrase, what is missing are zeros. */
const aesKeyBytes = 16

/**
 * Put an image's encryption between its guest and its clusters.
 * @throws ERR_PASSPHRASE_REQUIRED, ERR_WRONG_PASSPHRASE
 * @throws ERR_NOT_SUPPORTED        the legacy AES, to be written
 * @throws as readEncryptionHeader and findKey
 */
export async function openEncryption(
  backend: BlockBackend,
  header: Header,
  below: GuestData,
  { encryption, readOnly }: { encryption?: Encryption | undefined; readOnly: boolean },
): Promise<GuestData> {
  if (header.cryptMethod === cryptMethods.none) return below
  const { path } = backend
  if (header.cryptMethod === cryptMethods.aes && !readOnly) {
    throw notSupported('Images with the legacy AES encryption are opened read-only: convert them', { path })
  }
  const luks =
    header.cryptMethod === cryptMethods.luks ? await readEncryptionHeader(backend, header) : undefined
  if (encryption === undefined) {
    throw new Qcow2Error('ERR_PASSPHRASE_REQUIRED', passphraseRequired, { path })
  }
  return withPassphrase(encryption.passphrase, { path, depth: 0 }, async (passphrase) => {
    if (luks === undefined) return new EncryptedData(below, legacyCipher(passphrase), 'guest')
    const volume = lockedVolume(backend, luks, encryption.maxIterations)
    const { masterKey } = await findKey(volume, passphrase)
    try {
      return new EncryptedData(below, new SectorCipher(luks.header.cipher, masterKey), 'host')
    } finally {
      masterKey.fill(0)
    }
  })
}

function legacyCipher(passphrase: Uint8Array): SectorCipher {
  const key = new Uint8Array(aesKeyBytes)
  key.set(passphrase.subarray(0, aesKeyBytes))
  try {
    const spec = {
      cipherAlg: 'aes-128',
      cipherMode: 'cbc',
      ivgenAlg: 'plain64',
      ivgenHashAlg: undefined,
    } as const
    return new SectorCipher(spec, key)
  } finally {
    key.fill(0)
  }
}

/** The same for an image that stands so many levels below the one that was named: its passphrase is asked for by that. */
export function belowTop(encryption: Encryption, levels: number): Encryption {
  const { passphrase } = encryption
  if (typeof passphrase !== 'function' || levels === 0) return encryption
  return { ...encryption, passphrase: ({ path, depth }) => passphrase({ path, depth: depth + levels }) }
}
