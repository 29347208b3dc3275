import { invalid } from '../base/errors.js'
import { checkOptions, enumOption, integerOption, type OptionCheck, required } from '../base/options.js'
import {
  type CipherAlg,
  cipherAlgs,
  type CipherMode,
  cipherModes,
  type HashAlg,
  hashAlgs,
  type IvgenAlg,
  ivgenAlgs,
} from '../luks/names.js'
import { volumeSpec, type VolumeSpec } from '../luks/new-volume.js'
import { type Passphrase, passphraseOption } from '../luks/passphrase.js'

/** How a new image is encrypted. The names and defaults are QEMU's. */
export type EncryptOptions = {
  readonly format: 'luks'
  readonly passphrase: Passphrase
  /** Default 'aes-256'. */
  readonly cipherAlg?: CipherAlg
  /** Default 'xts'. */
  readonly cipherMode?: CipherMode
  /** Default 'plain64'. */
  readonly ivgenAlg?: IvgenAlg
  /** With ivgenAlg 'essiv'; default 'sha256'. */
  readonly ivgenHashAlg?: HashAlg
  /** Of key derivation; default 'sha256'. */
  readonly hashAlg?: HashAlg
  /** Milliseconds that trying a passphrase takes on this machine; default 2000. */
  readonly iterTime?: number
}

/** All choices made. */
export type Encrypting = { readonly spec: VolumeSpec; readonly passphrase: Passphrase }

/** Longest that a key may take to derive, in milliseconds: what takes longer, QEMU's users would wait for as well. */
const mostIterTimeMs = 60_000

const shapeSchema = {
  format: enumOption(['luks']),
  cipherAlg: enumOption(cipherAlgs),
  cipherMode: enumOption(cipherModes),
  ivgenAlg: enumOption(ivgenAlgs),
  ivgenHashAlg: enumOption(hashAlgs),
  hashAlg: enumOption(hashAlgs),
  iterTime: integerOption({ min: 1, max: mostIterTimeMs }),
}

/** The same without a passphrase: for what only measures. */
export const encryptShapeOption: OptionCheck<VolumeSpec> = (value, name) => {
  const {
    format,
    passphrase: _,
    ...options
  } = checkOptions(name, value, {
    ...shapeSchema,
    passphrase: passphraseOption,
  })
  required(name, 'format', format)
  return volumeSpec(options)
}

/** The option `encrypt`. What was given is never told: it may be the passphrase, in the wrong place. */
export const encryptOption: OptionCheck<Encrypting> = (value, name) => {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || ArrayBuffer.isView(value)) {
    throw invalid(`${name} must be an object like { format: 'luks', passphrase }`, 'ERR_INVALID_OPTION')
  }
  const { format, passphrase, ...options } = checkOptions(name, value, {
    ...shapeSchema,
    passphrase: passphraseOption,
  })
  required(name, 'format', format)
  return { passphrase: required(name, 'passphrase', passphrase), spec: volumeSpec(options) }
}
