import { findKey } from '../../lib/luks/key-slots.js'
import { newVolumeHeader, volumeSpec } from '../../lib/luks/new-volume.js'
import { SectorCipher } from '../../lib/luks/sector-cipher.js'
import { lockedVolume, readEncryptionHeader } from '../../lib/qcow2/encryption-header.js'
import { readHeader } from '../../lib/qcow2/open-metadata.js'
import type { BlockBackend } from '../../lib/queue/backend.js'
import { passphrase } from '../support/encrypted.js'

/** The smallest that LUKS has: half a MiB of material. A try of its passphrase costs as little as can be. */
const spec = volumeSpec({ cipherAlg: 'aes-128', cipherMode: 'cbc', iterTime: 1 })

/** For an image that is to be made. */
export function newLuksHeader(): Promise<Uint8Array> {
  return newVolumeHeader(spec, Buffer.from(passphrase))
}

/** What encrypts the image in a file. */
export async function cipherOf(backend: BlockBackend): Promise<SectorCipher> {
  const { header } = await readHeader(backend)
  const volume = lockedVolume(backend, await readEncryptionHeader(backend, header))
  const { masterKey } = await findKey(volume, Buffer.from(passphrase))
  return new SectorCipher(volume.header.cipher, masterKey)
}
