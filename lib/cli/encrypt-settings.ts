import type { EncryptOptions } from '../image/encrypt-option.js'
import { cipherAlgs, cipherModes, hashAlgs, ivgenAlgs } from '../luks/names.js'
import { namedSecret, type Secrets } from './secrets.js'
import { UsageError } from './usage-error.js'

/**
 * What the keys `encrypt.*` of -o say. The words are QEMU's.
 * @param settings  as parseImageSettings has them
 * @returns undefined: not to be encrypted
 * @throws UsageError  a value that there is not, or no secret
 */
export function encryptSettings(
  settings: ReadonlyMap<string, string>,
  secrets: Secrets,
): EncryptOptions | undefined {
  const get = (key: string): string | undefined => settings.get(`encrypt.${key}`)
  const format = get('format') ?? (isOn(settings.get('encryption')) ? 'aes' : undefined)
  if (format === undefined) {
    if (![...settings.keys()].some((key) => key.startsWith('encrypt.'))) return undefined
    throw new UsageError("Parameter 'encrypt.format' is missing")
  }
  if (format !== 'luks' && format !== 'aes')
    throw new UsageError(`Parameter 'format' does not accept value '${format}'`)
  const options = {
    cipherAlg: oneOf('cipher-alg', cipherAlgs, get('cipher-alg')),
    cipherMode: oneOf('cipher-mode', cipherModes, get('cipher-mode')),
    ivgenAlg: oneOf('ivgen-alg', ivgenAlgs, get('ivgen-alg')),
    ivgenHashAlg: oneOf('ivgen-hash-alg', hashAlgs, get('ivgen-hash-alg')),
    hashAlg: oneOf('hash-alg', hashAlgs, get('hash-alg')),
    iterTime: iterTime(get('iter-time')),
  }
  const passphrase = namedSecret(get('key-secret'), secrets)
  if (format === 'aes')
    throw new UsageError('Creating images with the legacy AES encryption is not supported')
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
  return { format, passphrase, ...given }
}

function isOn(text: string | undefined): boolean {
  return text !== undefined && /^(on|yes|true|y)$/.test(text)
}

function oneOf<const T extends string>(
  key: string,
  names: readonly T[],
  text: string | undefined,
): T | undefined {
  if (text === undefined) return undefined
  const found = names.find((name) => name === text)
  if (found === undefined) throw new UsageError(`Parameter '${key}' does not accept value '${text}'`)
  return found
}

/** QEMU's 0 is as little as possible, which is ours too. */
function iterTime(text: string | undefined): number | undefined {
  return text === undefined ? undefined : Math.max(1, Number(text))
}
