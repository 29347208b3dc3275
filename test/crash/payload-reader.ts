import { sectorSize } from '../../lib/base/units.js'
import type { SectorCipher } from '../../lib/luks/sector-cipher.js'
import { noPayload, type Payload, readPayload, zeroPayload } from './payload.js'

/**
 * Reads what stands in sectors of a file as payloads: of an encrypted image as its guest sees them, by their place in the file. Each write is read
 * once, however many crashes it is looked at in; so is a key made out once, with the start image, since no workload changes it.
 */
export class PayloadReader {
  readonly #cipher: SectorCipher | undefined
  readonly #known = new WeakMap<Uint8Array, readonly Payload[]>()

  constructor(cipher: SectorCipher | undefined) {
    this.#cipher = cipher
  }

  /** Of a sector that is a hole, or was punched: encrypted, that is noise. */
  get ofZeros(): Payload {
    return this.#cipher === undefined ? zeroPayload : noPayload
  }

  /** @param bytes  whole sectors, which do not change any more  @param first  of them: its number in the file */
  of(bytes: Uint8Array, first: number): readonly Payload[] {
    let payloads = this.#known.get(bytes)
    if (payloads !== undefined) return payloads
    let plain = bytes
    if (this.#cipher !== undefined) {
      plain = new Uint8Array(bytes.length)
      this.#cipher.decrypt(bytes, plain, first)
    }
    payloads = Array.from({ length: bytes.length / sectorSize }, (_, step) =>
      readPayload(plain, step * sectorSize),
    )
    this.#known.set(bytes, payloads)
    return payloads
  }
}

export const plainReader = new PayloadReader(undefined)
