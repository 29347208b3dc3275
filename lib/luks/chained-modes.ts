import { BlockCipher, blockBytes } from './block-cipher.js'
import type { SectorIvs } from './sector-iv.js'
import type { SectorMode } from './sector-cipher.js'
import { luksSector } from './spec.js'

/** CBC. Encrypting goes block by block of a sector, but through all sectors at once; decrypting is one call. */
export function cbcMode(name: string, key: Uint8Array, ivs: SectorIvs): SectorMode {
  const cipher = new BlockCipher(name, key)
  return {
    encrypt(bytes, firstSector) {
      const sectors = bytes.byteLength / luksSector
      const out = new Uint8Array(bytes.byteLength)
      let chain = ivs(firstSector, sectors)
      const column = new Uint8Array(sectors * blockBytes)
      for (let within = 0; within < luksSector; within += blockBytes) {
        for (let sector = 0; sector < sectors; sector++) {
          const at = sector * luksSector + within
          for (let byte = 0; byte < blockBytes; byte++) {
            const index = sector * blockBytes + byte
            column[index] = (bytes[at + byte] as number) ^ (chain[index] as number)
          }
        }
        chain = cipher.encrypt(column)
        for (let sector = 0; sector < sectors; sector++) {
          const block = chain.subarray(sector * blockBytes, (sector + 1) * blockBytes)
          out.set(block, sector * luksSector + within)
        }
      }
      return out
    },
    decrypt(bytes, firstSector) {
      const sectors = bytes.byteLength / luksSector
      const vectors = ivs(firstSector, sectors)
      const out = cipher.decrypt(bytes)
      for (let sector = 0; sector < sectors; sector++) {
        const at = sector * luksSector
        for (let byte = 0; byte < blockBytes; byte++) {
          out[at + byte] = (out[at + byte] as number) ^ (vectors[sector * blockBytes + byte] as number)
        }
        for (let byte = blockBytes; byte < luksSector; byte++) {
          out[at + byte] = (out[at + byte] as number) ^ (bytes[at + byte - blockBytes] as number)
        }
      }
      return out
    },
  }
}

/** CTR: the sector's vector is the first counter, a number of 128 bits, big-endian. */
export function ctrMode(name: string, key: Uint8Array, ivs: SectorIvs): SectorMode {
  const cipher = new BlockCipher(name, key)
  const crypt = (bytes: Uint8Array, firstSector: number): Uint8Array => {
    const out = cipher.encrypt(counters(ivs(firstSector, bytes.byteLength / luksSector)))
    for (let index = 0; index < out.length; index++) {
      out[index] = (out[index] as number) ^ (bytes[index] as number)
    }
    return out
  }
  return { encrypt: crypt, decrypt: crypt }
}

function counters(vectors: Uint8Array): Uint8Array {
  const sectors = vectors.byteLength / blockBytes
  const all = new Uint8Array(sectors * luksSector)
  for (let sector = 0; sector < sectors; sector++) {
    const counter = Uint8Array.from(vectors.subarray(sector * blockBytes, (sector + 1) * blockBytes))
    for (let within = 0; within < luksSector; within += blockBytes) {
      all.set(counter, sector * luksSector + within)
      for (let byte = blockBytes - 1; byte >= 0; byte--) {
        counter[byte] = (counter[byte] as number) + 1
        if (counter[byte] !== 0) break
      }
    }
  }
  return all
}

/** ECB: equal blocks stay equal. It is here because such volumes exist. */
export function ecbMode(name: string, key: Uint8Array): SectorMode {
  const cipher = new BlockCipher(name, key)
  return { encrypt: (bytes) => cipher.encrypt(bytes), decrypt: (bytes) => cipher.decrypt(bytes) }
}
