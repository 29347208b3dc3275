import { createHash } from 'node:crypto'
import { assert } from '../base/assert.js'
import { type CipherSpec, essivName } from './algorithms.js'
import { BlockCipher, blockBytes } from './block-cipher.js'

/** The initialisation vectors of a run of sectors, one block each. */
export type SectorIvs = (firstSector: number, sectors: number) => Uint8Array

/** @param key  the volume's; ESSIV encrypts the sector's number with a hash of it */
export function sectorIvs(
  { ivgenAlg, ivgenHashAlg }: Pick<CipherSpec, 'ivgenAlg' | 'ivgenHashAlg'>,
  key: Uint8Array,
): SectorIvs {
  if (ivgenAlg === 'plain') return (first, sectors) => numbers(first, sectors, { is64Bit: false })
  if (ivgenAlg === 'plain64') return (first, sectors) => numbers(first, sectors, { is64Bit: true })
  assert(ivgenHashAlg !== undefined, 'essiv has a hash')
  const name = essivName(ivgenHashAlg)
  assert(name !== undefined, 'a hash as long as a key')
  const salt = createHash(ivgenHashAlg).update(key).digest()
  const cipher = new BlockCipher(name, salt)
  salt.fill(0)
  return (first, sectors) => cipher.encrypt(numbers(first, sectors, { is64Bit: true }))
}

/** Sector numbers, little-endian, zeros behind. */
function numbers(first: number, sectors: number, { is64Bit }: { is64Bit: boolean }): Uint8Array {
  const bytes = new Uint8Array(sectors * blockBytes)
  const view = new DataView(bytes.buffer)
  for (let index = 0; index < sectors; index++) {
    const sector = first + index
    view.setUint32(index * blockBytes, sector % 2 ** 32, true)
    if (is64Bit) view.setUint32(index * blockBytes + 4, Math.floor(sector / 2 ** 32), true)
  }
  return bytes
}
