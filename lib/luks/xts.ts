import { BlockCipher, blockBytes } from './block-cipher.js'
import type { SectorIvs } from './sector-iv.js'
import type { SectorMode } from './sector-cipher.js'
import { luksSector } from './spec.js'
import { wordsOf, xorInto } from './words.js'

/** Words of 32 bits. */
const blockWords = blockBytes / 4
const sectorWords = luksSector / 4

/** XTS (IEEE 1619): E(block xor tweak) xor tweak. Whole sectors, so that no ciphertext is stolen. */
export function xtsMode(name: string, key: Uint8Array, ivs: SectorIvs): SectorMode {
  const half = key.byteLength / 2
  const cipher = new BlockCipher(name, key.subarray(0, half))
  const tweak = new BlockCipher(name, key.subarray(half))
  const tweaksOf = (firstSector: number, sectors: number): Uint32Array =>
    fillTweaks(wordsOf(tweak.encrypt(ivs(firstSector, sectors))), sectors)
  return {
    encrypt(bytes, firstSector) {
      const tweaks = tweaksOf(firstSector, bytes.byteLength / luksSector)
      return masked(cipher.encrypt(asBytes(maskedCopy(bytes, tweaks))), tweaks)
    },
    decrypt(bytes, firstSector) {
      const tweaks = tweaksOf(firstSector, bytes.byteLength / luksSector)
      return masked(cipher.decrypt(asBytes(maskedCopy(bytes, tweaks))), tweaks)
    },
  }
}

/** The tweak of each block is that of the one before, doubled in GF(2^128). */
function fillTweaks(first: Uint32Array, sectors: number): Uint32Array {
  const tweaks = new Uint32Array(sectors * sectorWords)
  for (let sector = 0; sector < sectors; sector++) {
    let t0 = first[sector * blockWords] as number
    let t1 = first[sector * blockWords + 1] as number
    let t2 = first[sector * blockWords + 2] as number
    let t3 = first[sector * blockWords + 3] as number
    const end = (sector + 1) * sectorWords
    for (let at = sector * sectorWords; at < end; at += blockWords) {
      tweaks[at] = t0
      tweaks[at + 1] = t1
      tweaks[at + 2] = t2
      tweaks[at + 3] = t3
      const carry = (t3 >> 31) & 0x87
      t3 = (t3 << 1) | (t2 >>> 31)
      t2 = (t2 << 1) | (t1 >>> 31)
      t1 = (t1 << 1) | (t0 >>> 31)
      t0 = (t0 << 1) ^ carry
    }
  }
  return tweaks
}

function maskedCopy(bytes: Uint8Array, mask: Uint32Array): Uint32Array {
  const from = wordsOf(bytes)
  const copy = new Uint32Array(from.length)
  for (let index = 0; index < copy.length; index++) {
    copy[index] = (from[index] as number) ^ (mask[index] as number)
  }
  return copy
}

function masked(bytes: Uint8Array, mask: Uint32Array): Uint8Array {
  const words = wordsOf(bytes)
  xorInto(words, mask)
  return asBytes(words)
}

function asBytes(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength)
}
