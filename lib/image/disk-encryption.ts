import { notSupported } from '../base/errors.js'
import { checkOptions, integerOption, required } from '../base/options.js'
import { type Passphrase, passphraseOption } from '../luks/passphrase.js'
import { slotCount } from '../luks/spec.js'
import { Qcow2Image } from '../qcow2/image.js'
import type { Layer } from './layers.js'

export type AddKeyOptions = {
  /** One that opens the image now. */
  readonly currentPassphrase: Passphrase
  /** The new one. */
  readonly passphrase: Passphrase
  /** 0 to 7; default: the first that is free. */
  readonly keySlot?: number
  /** Milliseconds that trying the new one takes on this machine; default 2000. */
  readonly iterTime?: number
}

export type RemoveKeyOptions = {
  /** All slots that it opens, or the one of `keySlot` if it opens that. */
  readonly passphrase?: Passphrase
  /** 0 to 7. */
  readonly keySlot?: number
}

const keySlotOption = integerOption({ min: 0, max: slotCount - 1 })

/** What the disk that the image belongs to does for it. */
type Owner = {
  readonly checkWritable: () => void
  /** Run a change of the image after those under way. */
  readonly change: (request: () => Promise<void>) => Promise<void>
}

/** The passphrases of an open image: `DiskImage.encryption`. Guests go on meanwhile, since their bytes stay encrypted by the same key. */
export class DiskEncryption {
  readonly #top: () => Layer
  readonly #owner: Owner

  constructor(top: () => Layer, owner: Owner) {
    this.#top = top
    this.#owner = owner
  }

  /**
   * Let another passphrase open the image, too. Durable when it resolves.
   * @returns the key slot that was taken
   * @throws ERR_WRONG_PASSPHRASE  `currentPassphrase` opens nothing
   * @throws ERR_NOT_SUPPORTED     the image is not encrypted with LUKS, or the slot, or every slot, is in use
   */
  async addKey(options: AddKeyOptions): Promise<number> {
    const { currentPassphrase, passphrase, keySlot, iterTime } = checkOptions('addKey', options, {
      currentPassphrase: passphraseOption,
      passphrase: passphraseOption,
      keySlot: keySlotOption,
      iterTime: integerOption({ min: 1, max: 60_000 }),
    })
    const current = required('addKey', 'currentPassphrase', currentPassphrase)
    const added = { passphrase: required('addKey', 'passphrase', passphrase), keySlot, iterTime }
    return this.#run(async ({ format, layer: { backend } }) => {
      const { addKey } = await import('../qcow2/key-slots.js')
      return addKey(backend, format.header, { passphrase: current }, added)
    })
  }

  /**
   * Take passphrases from the image: what is in their key slots is overwritten. Durable when it resolves. An old copy of the file is
   * opened by them all the same.
   * @returns the key slots that were freed
   * @throws ERR_WRONG_PASSPHRASE  it opens no slot, or not the one that is named
   * @throws ERR_NOT_SUPPORTED     as addKey; no slot would be left
   */
  async removeKey(options: RemoveKeyOptions): Promise<number[]> {
    const given = checkOptions('removeKey', options, { passphrase: passphraseOption, keySlot: keySlotOption })
    return this.#run(async ({ format, layer: { backend } }) => {
      const { removeKey } = await import('../qcow2/key-slots.js')
      return removeKey(backend, format.header, given)
    })
  }

  async #run<T>(work: (image: { format: Qcow2Image; layer: Layer }) => Promise<T>): Promise<T> {
    this.#owner.checkWritable()
    let outcome: { readonly value: T } | undefined
    await this.#owner.change(async () => {
      const layer = this.#top()
      const { format } = layer
      if (!(format instanceof Qcow2Image)) throw notSupported('A raw image is not encrypted')
      outcome = { value: await work({ format, layer }) }
    })
    if (outcome === undefined) throw new Error('the change has not run')
    return outcome.value
  }
}
