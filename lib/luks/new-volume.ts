import { randomBytes, randomUUID } from 'node:crypto'
import { notSupported } from '../base/errors.js'
import { type CipherSpec, essivName, keyBytesOf, unsupportedReason } from './algorithms.js'
import { type CipherAlg, type CipherMode, type HashAlg, type IvgenAlg } from './names.js'
import { defaultMaterialOffset, encodeLuksHeader, type KeySlot, materialBytes } from './header.js'
import { digestOf, sealSlot } from './key-slots.js'
import { iterationsFor } from './pbkdf2.js'
import { digestBytes, limits, luksSector, saltBytes, slotCount, stripes } from './spec.js'

/** How a new volume is encrypted: QEMU's options, with its defaults. */
export type VolumeOptions = {
  readonly cipherAlg?: CipherAlg | undefined
  readonly cipherMode?: CipherMode | undefined
  readonly ivgenAlg?: IvgenAlg | undefined
  readonly ivgenHashAlg?: HashAlg | undefined
  readonly hashAlg?: HashAlg | undefined
  /** Milliseconds that it takes on this machine to try a passphrase. */
  readonly iterTime?: number | undefined
}

export const defaultIterTimeMs = 2000

/** The digest of the key costs an eighth of what a passphrase costs: it is tried for each slot. */
const digestShare = 8

export type VolumeSpec = { readonly cipher: CipherSpec; readonly hash: HashAlg; readonly iterTimeMs: number }

/** @throws ERR_NOT_SUPPORTED  what cannot be done here, or not be opened by QEMU; ERR_INVALID_OPTION */
export function volumeSpec(options: VolumeOptions): VolumeSpec {
  const { cipherAlg = 'aes-256', cipherMode = 'xts', ivgenAlg = 'plain64', hashAlg = 'sha256' } = options
  const ivgenHashAlg = ivgenAlg === 'essiv' ? (options.ivgenHashAlg ?? 'sha256') : undefined
  const cipher = { cipherAlg, cipherMode, ivgenAlg, ivgenHashAlg }
  if (ivgenHashAlg !== undefined && essivName(ivgenHashAlg) === undefined) {
    throw notSupported(`essiv with ${ivgenHashAlg}: no AES has a key of that length`)
  }
  const reason = unsupportedReason(cipher, hashAlg)
  if (reason !== undefined) throw notSupported(`LUKS encryption with ${reason}`)
  if ((keyBytesOf(cipher) * stripes) % luksSector !== 0) {
    throw notSupported(`${cipherAlg} with ${cipherMode}: QEMU cannot open key slots that end within a sector`)
  }
  return { cipher, hash: hashAlg, iterTimeMs: options.iterTime ?? defaultIterTimeMs }
}

/** Bytes of the header and the material of all slots. */
export function volumeHeaderBytes({ cipher }: Pick<VolumeSpec, 'cipher'>): number {
  return defaultMaterialOffset(cipher, slotCount)
}

/**
 * Make the header of a new volume, with a new key in slot 0.
 * @returns `volumeHeaderBytes` bytes: the header, and the material of its slots
 */
export async function newVolumeHeader(spec: VolumeSpec, passphrase: Uint8Array): Promise<Uint8Array> {
  const { cipher, hash, iterTimeMs } = spec
  const masterKey = Uint8Array.from(randomBytes(keyBytesOf(cipher)))
  try {
    const first = await sealSlot(spec, masterKey, passphrase, {
      materialOffset: defaultMaterialOffset(cipher, 0),
      iterTimeMs,
    })
    const digestSalt = Uint8Array.from(randomBytes(saltBytes))
    const digestIterations = Math.min(
      limits.iterations,
      await iterationsFor(iterTimeMs / digestShare, hash, digestBytes),
    )
    const digest = await digestOf(masterKey, { hash, digestSalt, digestIterations })
    const slots = Array.from({ length: slotCount }, (_, slot) =>
      slot === 0 ? first.slot : emptySlot(defaultMaterialOffset(cipher, slot)),
    )
    const payloadOffset = volumeHeaderBytes(spec)
    const bytes = new Uint8Array(payloadOffset)
    bytes.set(
      encodeLuksHeader({
        cipher,
        hash,
        payloadOffset,
        digest,
        digestSalt,
        digestIterations,
        uuid: randomUUID(),
        slots,
      }),
    )
    bytes.set(first.material.subarray(0, materialBytes(cipher)), first.slot.materialOffset)
    return bytes
  } finally {
    masterKey.fill(0)
  }
}

export function emptySlot(materialOffset: number): KeySlot {
  return { active: false, iterations: 0, salt: new Uint8Array(saltBytes), materialOffset }
}
