import { type CipherSpec } from '../luks/algorithms.js'
import { type HashAlg } from '../luks/names.js'
import { stripes } from '../luks/spec.js'
import { cryptMethods } from '../qcow2/encryption.js'
import { readEncryptionHeader } from '../qcow2/encryption-header.js'
import type { Header } from '../qcow2/header.js'
import type { BlockBackend } from '../queue/backend.js'

export type KeySlotInfo = {
  readonly active: boolean
  /** Of PBKDF2; of active slots, as `stripes`. */
  readonly iterations?: number
  readonly stripes?: number
  /** Where its material stands, in bytes from the start of the LUKS header. */
  readonly keyOffset: number
}

/** How an image is encrypted. None of it is secret, and no key is needed to know it. */
export type EncryptInfo =
  | { readonly format: 'aes' }
  | ({ readonly format: 'luks' } & CipherSpec & {
        readonly hashAlg: HashAlg
        readonly uuid: string
        readonly slots: readonly KeySlotInfo[]
        /** Where the LUKS header and all material end, in bytes from its start. */
        readonly payloadOffset: number
        readonly masterKeyIterations: number
      })

/**
 * @returns undefined if the image is not encrypted
 * @throws as readEncryptionHeader
 */
export async function encryptInfo(backend: BlockBackend, header: Header): Promise<EncryptInfo | undefined> {
  if (header.cryptMethod === cryptMethods.none) return undefined
  if (header.cryptMethod === cryptMethods.aes) return { format: 'aes' }
  const { header: luks } = await readEncryptionHeader(backend, header)
  return {
    format: 'luks',
    ...luks.cipher,
    hashAlg: luks.hash,
    uuid: luks.uuid,
    slots: luks.slots.map(({ active, iterations, materialOffset }) => ({
      active,
      ...(active ? { iterations, stripes } : {}),
      keyOffset: materialOffset,
    })),
    payloadOffset: luks.payloadOffset,
    masterKeyIterations: luks.digestIterations,
  }
}
