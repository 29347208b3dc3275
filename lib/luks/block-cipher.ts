import { createCipheriv, createDecipheriv, type Cipher, type Decipher } from 'node:crypto'
import { endianness } from 'node:os'
import { assert } from '../base/assert.js'

assert(endianness() === 'LE', 'the loops over words of 32 bits are written for little-endian machines')

/** Bytes of a block of every cipher here. */
export const blockBytes = 16

/**
 * A block cipher, over any number of blocks in one call: what all modes here are made of.
 *
 * Not node:crypto's own XTS and CBC: those take one object for each sector, which costs several times what the encryption does, and the
 * BoringSSL of Electron has no XTS at all. Without padding, a block is encrypted as soon as it is there, so that one object serves for ever.
 * The key is in the library's memory alone, which wipes it when the object goes.
 */
export class BlockCipher {
  readonly #cipher: Cipher
  readonly #decipher: Decipher

  /** @param name  node:crypto's name of the cipher in ECB mode. The key is copied. */
  constructor(name: string, key: Uint8Array) {
    this.#cipher = createCipheriv(name, key, null).setAutoPadding(false)
    this.#decipher = createDecipheriv(name, key, null).setAutoPadding(false)
  }

  /** @returns new memory */
  encrypt(blocks: Uint8Array): Uint8Array {
    return this.#cipher.update(blocks)
  }

  /** @returns new memory */
  decrypt(blocks: Uint8Array): Uint8Array {
    return this.#decipher.update(blocks)
  }
}
