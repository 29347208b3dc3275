import { invalid } from '../base/errors.js'
import { checkOptions, enumOption, integerOption, type OptionCheck } from '../base/options.js'
import { type Passphrase, passphraseOption } from '../luks/passphrase.js'
import { addKey, removeKey } from '../qcow2/key-slots.js'
import type { Encryption } from '../qcow2/encryption.js'
import type { Header } from '../qcow2/header.js'
import type { BlockBackend } from '../queue/backend.js'

/** What becomes of the key slots of an image. QEMU's options. */
export type AmendEncryption =
  | {
      readonly state: 'active'
      /** Opens the image from now on, too. */
      readonly newPassphrase: Passphrase
      /** Default: the first that is free. */
      readonly keySlot?: number
      /** Milliseconds that trying the passphrase takes on this machine; default 2000. */
      readonly iterTime?: number
    }
  | {
      readonly state: 'inactive'
      /** All slots that it opens, or the one of `keySlot` if it opens that. */
      readonly oldPassphrase?: Passphrase
      readonly keySlot?: number
    }

/** The option `encrypt` of amendImage. What was given is never told: it may be the passphrase, in the wrong place. */
export const amendEncryptionOption: OptionCheck<AmendEncryption> = (value, name) => {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || ArrayBuffer.isView(value)) {
    throw invalid(`${name} must be an object like { state, newPassphrase }`, 'ERR_INVALID_OPTION')
  }
  const refuse = (what: string): TypeError => invalid(what, 'ERR_INVALID_OPTION')
  const given = checkOptions(name, value, {
    state: enumOption(['active', 'inactive']),
    newPassphrase: passphraseOption,
    oldPassphrase: passphraseOption,
    keySlot: integerOption({ min: 0 }),
    iterTime: integerOption({ min: 1, max: 60_000 }),
  })
  const { state, newPassphrase, oldPassphrase, iterTime } = given
  const keySlot = given.keySlot === undefined ? {} : { keySlot: given.keySlot }
  if (state === undefined) throw refuse("Parameter 'state' is missing")
  if (state === 'active') {
    if (newPassphrase === undefined) throw refuse("'new-secret' is required to activate a keyslot")
    if (oldPassphrase !== undefined) throw refuse("'old-secret' must not be given when activating keyslots")
    return { state, newPassphrase, ...keySlot, ...(iterTime === undefined ? {} : { iterTime }) }
  }
  if (newPassphrase !== undefined) throw refuse("'new-secret' must not be given when erasing keyslots")
  if (iterTime !== undefined) throw refuse("'iter-time' must not be given when erasing keyslots")
  return { state, ...keySlot, ...(oldPassphrase === undefined ? {} : { oldPassphrase }) }
}

/** @param encryption  what opens the image now. @throws as addKey and removeKey */
export async function amendEncryption(
  backend: BlockBackend,
  header: Header,
  encryption: Encryption | undefined,
  wanted: AmendEncryption,
): Promise<void> {
  if (wanted.state === 'active') {
    const { newPassphrase: passphrase, keySlot, iterTime } = wanted
    await addKey(backend, header, encryption, { passphrase, keySlot, iterTime })
  } else {
    const { oldPassphrase: passphrase, keySlot } = wanted
    await removeKey(backend, header, { passphrase, keySlot }, encryption?.maxIterations)
  }
}
