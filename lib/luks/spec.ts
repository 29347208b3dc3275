import { assert } from '../base/assert.js'
import { layout } from '../base/layout.js'

/**
 * LUKS On-Disk Format Specification 1.2.1: a header, eight key slots in it, the material of each slot, the payload. In a qcow2
 * image the first three stand in an area of their own, and the payload is the guest's clusters.
 */
export const luksMagic = Uint8Array.from([0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe])

/** The unit of every offset in the header, and of encryption. Bytes. */
export const luksSector = 512

export const slotCount = 8
export const slotActive = 0x00ac71f3
export const slotInactive = 0x0000dead

/** Bytes of a digest of the master key, and of each salt. */
export const digestBytes = 20
export const saltBytes = 32

/** Pieces that a slot's key is split into: all of them are needed, so that wiping any of them is enough. */
export const stripes = 4000

/** Where the material of each slot begins and ends is a multiple of this, as most tools write it. Bytes. */
export const materialAlignment = 4096

export const headerFields = layout('LUKS header', [
  ['magic', 6],
  ['version', 'u16'],
  ['cipherName', 32],
  ['cipherMode', 32],
  ['hashName', 32],
  ['payloadSector', 'u32'],
  ['keyBytes', 'u32'],
  ['digest', digestBytes],
  ['digestSalt', saltBytes],
  ['digestIterations', 'u32'],
  ['uuid', 40],
])
assert(headerFields.sizeBytes === 208, 'the key slots begin at byte 208')

export const slotFields = layout('LUKS key slot', [
  ['state', 'u32'],
  ['iterations', 'u32'],
  ['salt', saltBytes],
  ['materialSector', 'u32'],
  ['stripes', 'u32'],
])
assert(slotFields.sizeBytes === 48, 'a key slot has 48 bytes')

export const headerBytes = headerFields.sizeBytes + slotCount * slotFields.sizeBytes

/** Where a slot stands in the header. Bytes. */
export function slotOffset(slot: number): number {
  return headerFields.sizeBytes + slot * slotFields.sizeBytes
}

/**
 * Limits on what a stranger's header may cost. Checked before any key is derived.
 */
export const limits = {
  /** Keys of ciphers we know: XTS with two of 32 bytes is the longest. */
  keyBytes: 64,
  /** No sensible header is longer; it also bounds what is read. Bytes. */
  payloadOffset: 64 * 1024 * 1024,
  /**
   * Iterations of PBKDF2 for one key, by default. A key that QEMU makes takes some 10 million on a fast machine; this many take
   * half a minute, and cannot be stopped once begun.
   */
  iterations: 2 ** 26,
  /** Below, a passphrase is guessed too quickly; also the least that the specification names. */
  leastIterations: 1000,
} as const
