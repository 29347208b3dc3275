import { getCiphers, getHashes } from 'node:crypto'
import {
  type CipherAlg,
  cipherAlgs,
  type CipherMode,
  cipherModes,
  type HashAlg,
  hashAlgs,
  type IvgenAlg,
  ivgenAlgs,
} from './names.js'

/** `disk` is what a LUKS header calls the family. Key lengths in bytes, for one key (XTS has two). */
const ciphers = {
  'aes-128': { disk: 'aes', keyBytes: 16, ecb: 'aes-128-ecb' },
  'aes-192': { disk: 'aes', keyBytes: 24, ecb: 'aes-192-ecb' },
  'aes-256': { disk: 'aes', keyBytes: 32, ecb: 'aes-256-ecb' },
  'cast5-128': { disk: 'cast5', keyBytes: 16, ecb: undefined },
  'serpent-128': { disk: 'serpent', keyBytes: 16, ecb: undefined },
  'serpent-192': { disk: 'serpent', keyBytes: 24, ecb: undefined },
  'serpent-256': { disk: 'serpent', keyBytes: 32, ecb: undefined },
  'twofish-128': { disk: 'twofish', keyBytes: 16, ecb: undefined },
  'twofish-192': { disk: 'twofish', keyBytes: 24, ecb: undefined },
  'twofish-256': { disk: 'twofish', keyBytes: 32, ecb: undefined },
} as const satisfies Readonly<
  Record<CipherAlg, { readonly disk: string; readonly keyBytes: number; readonly ecb: string | undefined }>
>
/** How sectors are encrypted. */
export type CipherSpec = {
  readonly cipherAlg: CipherAlg
  readonly cipherMode: CipherMode
  readonly ivgenAlg: IvgenAlg
  /** With 'essiv' only. */
  readonly ivgenHashAlg: HashAlg | undefined
}

/** Bytes of a volume's key. */
export function keyBytesOf({ cipherAlg, cipherMode }: Pick<CipherSpec, 'cipherAlg' | 'cipherMode'>): number {
  return ciphers[cipherAlg].keyBytes * (cipherMode === 'xts' ? 2 : 1)
}

/** What a LUKS header calls it: ['aes', 'cbc-essiv:sha256']. */
export function diskNames(spec: CipherSpec): { readonly cipherName: string; readonly cipherMode: string } {
  const hash = spec.ivgenHashAlg === undefined ? '' : `:${spec.ivgenHashAlg}`
  return {
    cipherName: ciphers[spec.cipherAlg].disk,
    cipherMode: `${spec.cipherMode}-${spec.ivgenAlg}${hash}`,
  }
}

/** @returns what a header's names mean, or which of them means nothing */
export function parseDiskNames(
  cipherName: string,
  modeName: string,
  keyBytes: number,
): CipherSpec | { readonly unknown: string } {
  const [, modeText, ivgenText, hashText] = /^([a-z0-9]+)-([a-z0-9]+)(?::(.*))?$/.exec(modeName) ?? []
  const cipherMode = cipherModes.find((name) => name === modeText)
  const ivgenAlg = ivgenAlgs.find((name) => name === ivgenText)
  if (cipherMode === undefined || ivgenAlg === undefined) return { unknown: `cipher mode '${modeName}'` }
  const ivgenHashAlg = hashAlgs.find((name) => name === hashText)
  if ((ivgenAlg === 'essiv' || hashText !== undefined) && ivgenHashAlg === undefined) {
    return { unknown: `hash of the IV generator in '${modeName}'` }
  }
  const cipherAlg = cipherAlgs.find(
    (name) => ciphers[name].disk === cipherName && keyBytesOf({ cipherAlg: name, cipherMode }) === keyBytes,
  )
  if (cipherAlg === undefined) return { unknown: `cipher '${cipherName}' with a key of ${keyBytes} bytes` }
  return { cipherAlg, cipherMode, ivgenAlg, ivgenHashAlg: ivgenAlg === 'essiv' ? ivgenHashAlg : undefined }
}

/** The name that node:crypto has for one block after the other with this cipher; undefined: it has none. */
export function ecbName(cipherAlg: CipherAlg): string | undefined {
  const name = ciphers[cipherAlg].ecb
  return name !== undefined && getCiphers().includes(name) ? name : undefined
}

/** The AES that ESSIV uses with a hash: the digest is its key. Undefined: there is none of that length. */
export function essivName(hash: HashAlg): string | undefined {
  if (hash === 'md5') return ecbName('aes-128')
  return hash === 'sha256' ? ecbName('aes-256') : undefined
}

/** @returns why nothing can be done with such a volume here; undefined: it can */
export function unsupportedReason(spec: CipherSpec, hash: HashAlg): string | undefined {
  const { cipherAlg, ivgenHashAlg } = spec
  if (ecbName(cipherAlg) === undefined) return `the cipher ${cipherAlg}, which node:crypto does not have`
  for (const name of [hash, ivgenHashAlg]) {
    if (name !== undefined && !getHashes().includes(name))
      return `the hash ${name}, which node:crypto does not have`
  }
  if (ivgenHashAlg !== undefined && essivName(ivgenHashAlg) === undefined)
    return `essiv with ${ivgenHashAlg}: no AES has a key of that length`
  return undefined
}
