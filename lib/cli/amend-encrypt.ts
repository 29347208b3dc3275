import type { AmendEncryption } from '../operations/amend-encryption.js'
import { namedSecret, type Secrets } from './secrets.js'
import { UsageError } from './usage-error.js'

/**
 * What the keys `encrypt.*` of amend's -o say. What does not go together is told by amendImage.
 * @throws UsageError  in the words of the stock tool
 */
export function amendEncrypt(
  settings: ReadonlyMap<string, string>,
  secrets: Secrets,
): AmendEncryption | undefined {
  const get = (key: string): string | undefined => settings.get(`encrypt.${key}`)
  if (![...settings.keys()].some((key) => key.startsWith('encrypt.'))) return undefined
  const state = get('state')
  if (state === undefined) throw new UsageError("Parameter 'state' is missing")
  if (state !== 'active' && state !== 'inactive')
    throw new UsageError(`Parameter 'state' does not accept value '${state}'`)
  const secret = (key: string, name: string): object => {
    const id = get(key)
    return id === undefined || id === '' ? {} : { [name]: namedSecret(id, secrets) }
  }
  const number = (key: string, name: string, least: number): object => {
    const text = get(key)
    if (text === undefined) return {}
    if (!/^\d+$/.test(text)) throw new UsageError(`Parameter '${key}' expects a number`)
    return { [name]: Math.max(least, Number(text)) }
  }
  return {
    state,
    ...secret('new-secret', 'newPassphrase'),
    ...secret('old-secret', 'oldPassphrase'),
    ...number('keyslot', 'keySlot', 0),
    ...number('iter-time', 'iterTime', 1),
  } as AmendEncryption
}
