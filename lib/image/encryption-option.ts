import { invalid } from '../base/errors.js'
import { checkOptions, integerOption, type OptionCheck, required } from '../base/options.js'
import { passphraseOption } from '../luks/passphrase.js'
import type { Encryption } from '../qcow2/encryption.js'

/** The option `encryption`. What was given is never told: it may be the passphrase, in the wrong place. */
export const encryptionOption: OptionCheck<Encryption> = (value, name) => {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || ArrayBuffer.isView(value)) {
    throw invalid(`${name} must be an object like { passphrase }`, 'ERR_INVALID_OPTION')
  }
  const { passphrase, maxIterations } = checkOptions(name, value, {
    passphrase: passphraseOption,
    maxIterations: integerOption({ min: 1, max: 2 ** 32 - 1 }),
  })
  return {
    passphrase: required(name, 'passphrase', passphrase),
    ...(maxIterations === undefined ? {} : { maxIterations }),
  }
}
