import { readFileSync } from 'node:fs'
import { passphraseRequired, Qcow2Error } from '../base/errors.js'
import type { Encryption } from '../qcow2/encryption.js'
import type { ImageName } from './image-name.js'
import { parseOptionList } from './option-list.js'
import { UsageError } from './usage-error.js'

/** What --object has brought: secrets by their ids. */
export type Secrets = ReadonlyMap<string, Uint8Array>

/**
 * The secrets of a command line: `secret,id=ID,data=TEXT` or `file=FILE`, with `format=base64` or as they are.
 * @throws UsageError  another type of object, or a secret that says too little or too much
 */
export function secretsOf(objects: readonly string[]): Secrets {
  const secrets = new Map<string, Uint8Array>()
  for (const object of objects) {
    const [type, ...list] = parseOptionList(object)
    const name = type?.key === 'qom-type' ? type.value : type?.key
    if (name !== 'secret') throw new UsageError(`Parameter 'qom-type' does not accept value '${name ?? ''}'`)
    const properties = new Map(list.map(({ key, value }) => [key, value ?? 'on']))
    const id = properties.get('id')
    if (id === undefined) throw new UsageError("Parameter 'id' is missing")
    if (secrets.has(id))
      throw new UsageError(`attempt to add duplicate property '${id}' to object (type 'container')`)
    secrets.set(id, secretBytes(properties))
  }
  return secrets
}

const known = ['id', 'data', 'file', 'format']

function secretBytes(properties: ReadonlyMap<string, string>): Uint8Array {
  for (const key of properties.keys()) {
    if (key === 'keyid' || key === 'iv')
      throw new UsageError('Secrets that are encrypted themselves are not supported')
    if (!known.includes(key)) throw new UsageError(`Parameter '${key}' is unexpected`)
  }
  const data = properties.get('data')
  const file = properties.get('file')
  const format = properties.get('format') ?? 'raw'
  if (format !== 'raw' && format !== 'base64') {
    throw new UsageError(`Parameter 'format' does not accept value '${format}'`)
  }
  if (data !== undefined && file !== undefined) {
    throw new UsageError("'file' and 'data' are mutually exclusive")
  }
  if (data === undefined && file === undefined)
    throw new UsageError("Either 'file' or 'data' must be provided")
  const bytes = file === undefined ? Buffer.from(data ?? '', 'utf8') : readSecretFile(file)
  if (format === 'raw') return bytes
  const text = bytes.toString('latin1').trim()
  if (!/^[A-Za-z0-9+/\r\n]*={0,2}$/.test(text))
    throw new UsageError('Base64 data contains invalid characters')
  return Buffer.from(text, 'base64')
}

function readSecretFile(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    throw new UsageError(`Unable to read ${file}: Failed to open file “${file}”: ${reasonOf(error)}`)
  }
}

function reasonOf(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException
  if (code === 'ENOENT') return 'No such file or directory'
  return code === 'EACCES' ? 'Permission denied' : String(code)
}

/** What opens an image and what it stands on, by the names that the user gave. */
export function encryptionOf(
  { keySecrets }: Pick<ImageName, 'keySecrets'>,
  secrets: Secrets,
): { encryption?: Encryption } {
  if (keySecrets.size === 0) return {}
  return {
    encryption: {
      passphrase: ({ path, depth }) => {
        const id = keySecrets.get(depth)
        if (id === undefined) throw new Qcow2Error('ERR_PASSPHRASE_REQUIRED', passphraseRequired, { path })
        const secret = secrets.get(id)
        if (secret !== undefined) return secret
        throw new Qcow2Error('ERR_PASSPHRASE_REQUIRED', `No secret with id '${id}'`, { path })
      },
      // Who runs a command can stop it.
      maxIterations: 2 ** 32 - 1,
    },
  }
}

/** @throws UsageError  there is no such secret, or none is named */
export function namedSecret(id: string | undefined, secrets: Secrets): Uint8Array {
  if (id === undefined) throw new UsageError("Parameter 'encrypt.key-secret' is required for cipher")
  const secret = secrets.get(id)
  if (secret === undefined) throw new UsageError(`No secret with id '${id}'`)
  return secret
}
