import { randomBytes } from 'node:crypto'
import { invalid, notSupported, outOfRange, passphraseRequired, Qcow2Error } from '../base/errors.js'
import { materialBytes } from '../luks/header.js'
import { findKey, sealSlot, slotsOpenedBy } from '../luks/key-slots.js'
import { defaultIterTimeMs } from '../luks/new-volume.js'
import { type Passphrase, withPassphrase } from '../luks/passphrase.js'
import { slotCount } from '../luks/spec.js'
import type { BlockBackend } from '../queue/backend.js'
import { cryptMethods, type Encryption } from './encryption.js'
import { type FoundLuks, lockedVolume, readEncryptionHeader } from './encryption-header.js'
import type { Header } from './header.js'
import { KeySlotOrdering } from './key-slot-ordering.js'

export type NewKey = {
  /** What opens the image from now on, too. */
  readonly passphrase: Passphrase
  /** Default: the first that is free. */
  readonly keySlot?: number | undefined
  /** Milliseconds that trying the passphrase takes on this machine; default 2000. */
  readonly iterTime?: number | undefined
}

/** Which key slots: that one, those that a passphrase opens, or that one if the passphrase opens it. */
export type OldKey = { readonly passphrase?: Passphrase | undefined; readonly keySlot?: number | undefined }

/**
 * Give an image another passphrase. Durable when it resolves. The words of what is refused are QEMU's.
 * @param encryption  what opens it now
 * @returns the slot that was taken
 * @throws ERR_NOT_SUPPORTED     not encrypted with LUKS, no slot is free, or the slot is in use
 * @throws ERR_WRONG_PASSPHRASE  `encryption` does not open it
 */
export async function addKey(
  backend: BlockBackend,
  header: Header,
  encryption: Encryption | undefined,
  added: NewKey,
): Promise<number> {
  const { path } = backend
  const luks = await readLuks(backend, header)
  const slot = freeSlot(luks, added.keySlot, path)
  if (encryption === undefined) throw new Qcow2Error('ERR_PASSPHRASE_REQUIRED', passphraseRequired, { path })
  const volume = lockedVolume(backend, luks, encryption.maxIterations)
  const image = { path, depth: 0 }
  const { masterKey } = await withPassphrase(encryption.passphrase, image, (bytes) => findKey(volume, bytes))
  try {
    const materialOffset = luks.header.slots[slot]?.materialOffset ?? 0
    const sealed = await withPassphrase(added.passphrase, image, (bytes) =>
      sealSlot(luks.header, masterKey, bytes, {
        materialOffset,
        iterTimeMs: added.iterTime ?? defaultIterTimeMs,
      }),
    )
    await wipeUnfinished(backend, luks)
    const place = { area: luks.area.offset, slot }
    await new KeySlotOrdering(backend).activate(place, sealed.slot, sealed.material)
    return slot
  } finally {
    masterKey.fill(0)
  }
}

/**
 * Take passphrases from an image: what is in their slots is overwritten. Durable when it resolves. The last slot stays, since nobody could open the
 * image any more. An old copy of the file, or of its header, is opened by them all the same.
 * @returns the slots that were freed
 * @throws ERR_NOT_SUPPORTED     not encrypted with LUKS, the slot is free, or no slot would be left
 * @throws ERR_WRONG_PASSPHRASE  it opens no slot, or not the one that is named
 */
export async function removeKey(
  backend: BlockBackend,
  header: Header,
  removed: OldKey,
  maxIterations?: number,
): Promise<number[]> {
  const { path } = backend
  const luks = await readLuks(backend, header)
  const slots = await slotsToRemove(backend, luks, removed, maxIterations)
  await wipeUnfinished(backend, luks)
  for (const slot of slots) await erase(backend, luks, slot)
  if (slots.length === 0) throw new Qcow2Error('ERR_WRONG_PASSPHRASE', noSlotMatches, { path })
  return slots
}

const noSlotMatches = 'No keyslots match given (old) password for erase operation'

async function readLuks(backend: BlockBackend, header: Header): Promise<FoundLuks> {
  const { path } = backend
  if (header.cryptMethod === cryptMethods.none)
    throw notSupported("Can't amend encryption options - encryption not present", { path })
  if (header.cryptMethod !== cryptMethods.luks)
    throw notSupported('Only LUKS encryption options can be amended for qcow2', { path })
  return readEncryptionHeader(backend, header)
}

/** @throws ERR_OUT_OF_RANGE */
function checkSlotNumber(keySlot: number): void {
  if (Number.isInteger(keySlot) && keySlot >= 0 && keySlot < slotCount) return
  throw outOfRange(`Invalid keyslot ${keySlot} specified, must be between 0 and ${slotCount - 1}`)
}

function freeSlot({ header }: FoundLuks, keySlot: number | undefined, path: string): number {
  if (keySlot === undefined) {
    const free = header.slots.findIndex(({ active }) => !active)
    if (free < 0) throw notSupported("Can't add a keyslot - all keyslots are in use", { path })
    return free
  }
  checkSlotNumber(keySlot)
  if (header.slots[keySlot]?.active !== true) return keySlot
  const what = `Refusing to overwrite active keyslot ${keySlot} - please erase it first`
  throw notSupported(what, { path })
}

async function slotsToRemove(
  backend: BlockBackend,
  luks: FoundLuks,
  { passphrase, keySlot }: OldKey,
  maxIterations: number | undefined,
): Promise<number[]> {
  const { path } = backend
  const active = luks.header.slots.flatMap((slot, index) => (slot.active ? [index] : []))
  if (keySlot === undefined && passphrase === undefined) {
    throw invalid(
      'To erase keyslot(s), either explicit keyslot index or the password currently contained in them must be given',
      'ERR_INVALID_OPTION',
    )
  }
  if (keySlot !== undefined) {
    checkSlotNumber(keySlot)
    if (!active.includes(keySlot))
      throw notSupported(`Given keyslot ${keySlot} is already erased (inactive) `, { path })
  }
  const volume = lockedVolume(backend, luks, maxIterations)
  const opened =
    passphrase === undefined
      ? undefined
      : await withPassphrase(passphrase, { path, depth: 0 }, (bytes) => slotsOpenedBy(volume, bytes))
  if (keySlot !== undefined && opened?.includes(keySlot) === false) {
    const what = `Given keyslot ${keySlot} doesn't contain the given old password for erase operation`
    throw new Qcow2Error('ERR_WRONG_PASSPHRASE', what, { path })
  }
  const slots = keySlot === undefined ? (opened ?? []) : [keySlot]
  if (slots.length < active.length) return slots
  const which =
    keySlot === undefined
      ? 'All the active keyslots match the (old) password that was given and erasing them'
      : `Attempt to erase the only active keyslot ${keySlot} which`
  throw notSupported(`${which} will erase all the data in the image irreversibly - refusing operation`, {
    path,
  })
}

/** A slot that is not in use and not empty was being made or removed when the power went: what it holds may be a key that was to go. */
async function wipeUnfinished(backend: BlockBackend, luks: FoundLuks): Promise<void> {
  for (const [slot, { active, iterations, salt }] of luks.header.slots.entries()) {
    if (!active && (iterations !== 0 || salt.some((byte) => byte !== 0))) await erase(backend, luks, slot)
  }
}

async function erase(backend: BlockBackend, { area, header }: FoundLuks, slot: number): Promise<void> {
  const entry = header.slots[slot]
  if (entry === undefined) return
  const noise = Uint8Array.from(randomBytes(materialBytes(header.cipher)))
  await new KeySlotOrdering(backend).erase({ area: area.offset, slot }, entry, noise)
}
