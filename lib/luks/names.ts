/** The names are QEMU's. What there is to know of each stands in algorithms.ts. */
export const cipherAlgs = [
  'aes-128',
  'aes-192',
  'aes-256',
  'cast5-128',
  'serpent-128',
  'serpent-192',
  'serpent-256',
  'twofish-128',
  'twofish-192',
  'twofish-256',
] as const
/** @useDeclaredType */
export type CipherAlg = (typeof cipherAlgs)[number]

export const cipherModes = ['xts', 'cbc', 'ctr', 'ecb'] as const
/** @useDeclaredType */
export type CipherMode = (typeof cipherModes)[number]

export const ivgenAlgs = ['plain', 'plain64', 'essiv'] as const
/** @useDeclaredType */
export type IvgenAlg = (typeof ivgenAlgs)[number]

export const hashAlgs = ['md5', 'sha1', 'sha224', 'sha256', 'sha384', 'sha512', 'ripemd160'] as const
/** @useDeclaredType */
export type HashAlg = (typeof hashAlgs)[number]
