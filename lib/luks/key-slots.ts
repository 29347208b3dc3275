import { randomBytes, timingSafeEqual } from 'node:crypto'
import { Qcow2Error, unsupported } from '../base/errors.js'
import { keyBytesOf, unsupportedReason } from './algorithms.js'
import { mergeKey, splitKey } from './anti-forensic.js'
import { type KeySlot, type LuksHeader, materialBytes } from './header.js'
import { deriveKey, iterationsFor } from './pbkdf2.js'
import { SectorCipher } from './sector-cipher.js'
import { digestBytes, limits, saltBytes, stripes } from './spec.js'

/** Where the slots' material is read from. @param offset  from the start of the header, in bytes */
export type ReadMaterial = (offset: number, length: number) => Promise<Uint8Array>

/** What is needed to find a key: the header, its material, and how much that may cost. */
export type LockedVolume = {
  readonly header: LuksHeader
  readonly read: ReadMaterial
  /** Iterations of PBKDF2 that a header may ask for, for each key. */
  readonly maxIterations: number
  readonly path: string
}

/** A key that was found. Whoever holds it wipes it. */
export type FoundKey = { readonly slot: number; readonly masterKey: Uint8Array }

/**
 * Try a passphrase on the active slots, in order.
 * @param only  slots to look at; default: all
 * @throws ERR_WRONG_PASSPHRASE     it opens none
 * @throws ERR_UNSUPPORTED_FEATURE  a cipher or hash that node:crypto does not have, or more iterations than allowed
 */
export async function findKey(
  volume: LockedVolume,
  passphrase: Uint8Array,
  only?: readonly number[],
): Promise<FoundKey> {
  const { header, path } = volume
  refuseUnusable(header, path)
  for (const [slot, entry] of header.slots.entries()) {
    if (!entry.active || only?.includes(slot) === false) continue
    const masterKey = await openSlot(volume, slot, entry, passphrase)
    if (masterKey !== undefined) return { slot, masterKey }
  }
  throw new Qcow2Error('ERR_WRONG_PASSPHRASE', 'Invalid password, cannot unlock any keyslot', { path })
}

/** Every active slot that a passphrase opens. */
export async function slotsOpenedBy(volume: LockedVolume, passphrase: Uint8Array): Promise<number[]> {
  refuseUnusable(volume.header, volume.path)
  const found: number[] = []
  for (const [slot, entry] of volume.header.slots.entries()) {
    if (!entry.active) continue
    const masterKey = await openSlot(volume, slot, entry, passphrase)
    if (masterKey === undefined) continue
    masterKey.fill(0)
    found.push(slot)
  }
  return found
}

/** @throws ERR_UNSUPPORTED_FEATURE  a cipher or hash that is not to be had here */
export function refuseUnusable(header: LuksHeader, path: string): void {
  const reason = unsupportedReason(header.cipher, header.hash)
  if (reason !== undefined) throw unsupported(`LUKS encryption with ${reason}`, { path })
}

async function openSlot(
  volume: LockedVolume,
  slot: number,
  entry: KeySlot,
  passphrase: Uint8Array,
): Promise<Uint8Array | undefined> {
  const { header } = volume
  refuseCostly(volume, entry.iterations, `key slot ${slot}`)
  const keyBytes = keyBytesOf(header.cipher)
  const { salt, iterations } = entry
  const slotKey = await deriveKey(passphrase, { hash: header.hash, salt, iterations }, keyBytes)
  const material = await volume.read(entry.materialOffset, materialBytes(header.cipher))
  const cipher = new SectorCipher(header.cipher, slotKey)
  slotKey.fill(0)
  cipher.decrypt(material, material, 0)
  const masterKey = mergeKey(material.subarray(0, keyBytes * stripes), keyBytes, header.hash)
  material.fill(0)
  if (await isMasterKey(volume, masterKey)) return masterKey
  masterKey.fill(0)
  return undefined
}

/** The header has a digest of its key: so a wrong passphrase is told from a right one. */
async function isMasterKey(volume: LockedVolume, masterKey: Uint8Array): Promise<boolean> {
  const { header } = volume
  refuseCostly(volume, header.digestIterations, "the key's digest")
  return timingSafeEqual(await digestOf(masterKey, header), header.digest)
}

export function digestOf(
  masterKey: Uint8Array,
  { hash, digestSalt, digestIterations }: Pick<LuksHeader, 'hash' | 'digestSalt' | 'digestIterations'>,
): Promise<Uint8Array> {
  return deriveKey(masterKey, { hash, salt: digestSalt, iterations: digestIterations }, digestBytes)
}

function refuseCostly({ maxIterations, path }: LockedVolume, iterations: number, what: string): void {
  if (iterations <= maxIterations) return
  const text = `The LUKS header asks for ${iterations} iterations for ${what}; more than ${maxIterations} are not tried`
  throw unsupported(`${text} unless the option maxIterations allows them`, { path, structure: 'LUKS header' })
}

/** A slot that a passphrase opens, and the material to be written before the slot is made active. */
export type SealedSlot = { readonly slot: KeySlot; readonly material: Uint8Array }

/** Make a slot for a passphrase. @param iterTimeMs  how long deriving its key takes on this machine, in milliseconds */
export async function sealSlot(
  header: Pick<LuksHeader, 'cipher' | 'hash'>,
  masterKey: Uint8Array,
  passphrase: Uint8Array,
  options: { readonly materialOffset: number; readonly iterTimeMs: number },
): Promise<SealedSlot> {
  const { cipher, hash } = header
  const keyBytes = keyBytesOf(cipher)
  const salt = Uint8Array.from(randomBytes(saltBytes))
  // What is made here must be opened here, without being asked to.
  const iterations = Math.min(limits.iterations, await iterationsFor(options.iterTimeMs, hash, keyBytes))
  const slotKey = await deriveKey(passphrase, { hash, salt, iterations }, keyBytes)
  const material = new Uint8Array(materialBytes(cipher))
  const split = splitKey(masterKey, stripes, hash)
  material.set(split)
  split.fill(0)
  const sectors = new SectorCipher(cipher, slotKey)
  slotKey.fill(0)
  sectors.encrypt(material, material, 0)
  return { slot: { active: true, iterations, salt, materialOffset: options.materialOffset }, material }
}
