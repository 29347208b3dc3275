import { inspect } from 'node:util'
import { assert } from '../base/assert.js'
import { type CipherSpec, ecbName, keyBytesOf } from './algorithms.js'
import { cbcMode, ctrMode, ecbMode } from './chained-modes.js'
import { sectorIvs } from './sector-iv.js'
import { luksSector } from './spec.js'
import { xtsMode } from './xts.js'

/** One mode of encryption of whole sectors. Both return new memory. */
export type SectorMode = {
  encrypt(bytes: Uint8Array, firstSector: number): Uint8Array
  decrypt(bytes: Uint8Array, firstSector: number): Uint8Array
}

/** Encrypted at once: what lies between stays in the processor's caches. Bytes. */
const pieceBytes = 64 * 1024

/** Encrypts sectors of 512 bytes, each by its number. Shows nothing of its key. */
export class SectorCipher {
  readonly #mode: SectorMode

  /** @param key  of the length that the cipher takes; not kept */
  constructor(spec: CipherSpec, key: Uint8Array) {
    assert(key.byteLength === keyBytesOf(spec), 'the key is as long as the cipher takes')
    const name = ecbName(spec.cipherAlg)
    assert(name !== undefined, 'what node:crypto does not have was refused before')
    const ivs = sectorIvs(spec, key)
    switch (spec.cipherMode) {
      case 'xts':
        this.#mode = xtsMode(name, key, ivs)
        break
      case 'cbc':
        this.#mode = cbcMode(name, key, ivs)
        break
      case 'ctr':
        this.#mode = ctrMode(name, key, ivs)
        break
      case 'ecb':
        this.#mode = ecbMode(name, key)
    }
  }

  /** Encrypt `from` into `into`, which may be the same memory. @param firstSector the number of the first of its sectors */
  encrypt(from: Uint8Array, into: Uint8Array, firstSector: number): void {
    this.#run(from, into, firstSector, 'encrypt')
  }

  /** Decrypt `from` into `into`, which may be the same memory. */
  decrypt(from: Uint8Array, into: Uint8Array, firstSector: number): void {
    this.#run(from, into, firstSector, 'decrypt')
  }

  #run(from: Uint8Array, into: Uint8Array, firstSector: number, way: 'encrypt' | 'decrypt'): void {
    assert(from.byteLength % luksSector === 0 && into.byteLength === from.byteLength, 'whole sectors')
    for (let done = 0; done < from.byteLength; done += pieceBytes) {
      const piece = from.subarray(done, done + pieceBytes)
      into.set(this.#mode[way](piece, firstSector + done / luksSector), done)
    }
  }

  [inspect.custom](): string {
    return 'SectorCipher {}'
  }
}
