import { createHash, randomFillSync } from 'node:crypto'
import { assert } from '../base/assert.js'
import { type HashAlg } from './names.js'

/**
 * Split a key into stripes, all of which it takes to get it back: so a key is gone when any part of them has been overwritten, which a
 * disk that keeps old sectors is more likely to do than all of them. LUKS specification 1.2.1, "Anti-forensic splitter".
 * @returns the stripes, one after the other
 */
export function splitKey(key: Uint8Array, stripes: number, hash: HashAlg): Uint8Array {
  const all = new Uint8Array(key.byteLength * stripes)
  const lastAt = all.byteLength - key.byteLength
  randomFillSync(all, 0, lastAt)
  const mixed = mix(all.subarray(0, lastAt), key.byteLength, hash)
  for (let byte = 0; byte < key.byteLength; byte++) {
    all[lastAt + byte] = (mixed[byte] as number) ^ (key[byte] as number)
  }
  mixed.fill(0)
  return all
}

/** @param all  stripes as `splitKey` made them. @returns the key */
export function mergeKey(all: Uint8Array, keyBytes: number, hash: HashAlg): Uint8Array {
  assert(all.byteLength % keyBytes === 0 && all.byteLength > keyBytes, 'whole stripes')
  const lastAt = all.byteLength - keyBytes
  const key = mix(all.subarray(0, lastAt), keyBytes, hash)
  for (let byte = 0; byte < keyBytes; byte++) {
    key[byte] = (key[byte] as number) ^ (all[lastAt + byte] as number)
  }
  return key
}

function mix(all: Uint8Array, keyBytes: number, hash: HashAlg): Uint8Array {
  const mixed = new Uint8Array(keyBytes)
  for (let at = 0; at < all.byteLength; at += keyBytes) {
    for (let byte = 0; byte < keyBytes; byte++) {
      mixed[byte] = (mixed[byte] as number) ^ (all[at + byte] as number)
    }
    diffuse(mixed, hash)
  }
  return mixed
}

/** Replace each piece as long as a digest by the digest of its number and itself; the last may be shorter. */
function diffuse(bytes: Uint8Array, hash: HashAlg): void {
  const number = new Uint8Array(4)
  const view = new DataView(number.buffer)
  for (let at = 0, piece = 0; at < bytes.byteLength; piece++) {
    view.setUint32(0, piece)
    const digest = createHash(hash)
      .update(number)
      .update(bytes.subarray(at, at + digestLength(hash)))
      .digest()
    bytes.set(digest.subarray(0, bytes.byteLength - at), at)
    at += digest.byteLength
  }
}

/** Bytes. */
function digestLength(hash: HashAlg): number {
  switch (hash) {
    case 'md5':
      return 16
    case 'sha1':
    case 'ripemd160':
      return 20
    case 'sha224':
      return 28
    case 'sha256':
      return 32
    case 'sha384':
      return 48
    case 'sha512':
      return 64
  }
}
