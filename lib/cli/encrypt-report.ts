import type { EncryptInfo } from '../operations/encrypt-info.js'
import type { Json } from './json-text.js'

/** How `info` shows an image's encryption, keys in QEMU 7.2's order. */
export function encryptData(encrypt: EncryptInfo | undefined): Json | undefined {
  if (encrypt === undefined) return undefined
  if (encrypt.format === 'aes') return { format: 'aes' }
  return {
    'ivgen-alg': encrypt.ivgenAlg,
    'hash-alg': encrypt.hashAlg,
    'cipher-alg': encrypt.cipherAlg,
    uuid: encrypt.uuid,
    'ivgen-hash-alg': encrypt.ivgenHashAlg,
    format: 'luks',
    'cipher-mode': encrypt.cipherMode,
    slots: encrypt.slots.map(({ active, iterations, keyOffset, stripes }) => ({
      active,
      iters: iterations,
      'key-offset': keyOffset,
      stripes,
    })),
    'payload-offset': encrypt.payloadOffset,
    'master-key-iters': encrypt.masterKeyIterations,
  }
}
