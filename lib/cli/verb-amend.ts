import type { AmendOptions } from '../operations/amend.js'
import { amendEncrypt } from './amend-encrypt.js'
import { cacheArgument } from './cache-argument.js'
import { parseCommandLine } from './command-line.js'
import { asksForHelp, type ImageSettings, isOn, parseImageSettings } from './create-options.js'
import { parseImageName } from './image-name.js'
import { gatesOf } from './named-files.js'
import { escapeValue, parseOptionList } from './option-list.js'
import { print } from './output.js'
import { metered } from './progress-meter.js'
import { encryptionOf, type Secrets, secretsOf } from './secrets.js'
import { exactNumber } from './sizes.js'
import { UsageError } from './usage-error.js'
import { commonOptions, jsonProgressOption, progressOption, quietOption, warnIfGuessedRaw } from './verb.js'

const options = {
  help: commonOptions.help,
  object: commonOptions.object,
  imageOpts: commonOptions.imageOpts,
  format: { short: 'f', takesValue: true },
  settings: { short: 'o', takesValue: true },
  cache: { short: 't', takesValue: true },
  force: { long: 'force', takesValue: false },
  progress: progressOption,
  jsonProgress: jsonProgressOption,
  quiet: quietOption,
} as const

/** What can be amended, and how the stock tool describes it. */
const amendable: Readonly<Record<string, string>> = {
  'backing_file=<str>': 'File name of a base image',
  'backing_fmt=<str>': 'Image format of the base image',
  'compat=<str>': 'Compatibility level (v2 [0.10] or v3 [1.1])',
  'data_file=<str>': 'File name of an external data file',
  'data_file_raw=<bool (on/off)>': 'The external data file must stay valid as a raw image',
  'encrypt.iter-time=<num>': 'Time to spend in PBKDF in milliseconds',
  'encrypt.keyslot=<num>': 'Select a single keyslot to modify explicitly',
  'encrypt.new-secret=<str>': 'New secret to set in the matching keyslots. Empty string to erase',
  'encrypt.old-secret=<str>': 'Select all keyslots that match this password',
  'encrypt.state=<str>': 'Select new state of affected keyslots (active/inactive)',
  'lazy_refcounts=<bool (on/off)>': 'Postpone refcount updates',
  'refcount_bits=<num>': 'Width of a reference count entry in bits',
  'size=<size>': 'Virtual disk size',
}

const amendableKeys = new Set(Object.keys(amendable).map((key) => key.replace(/=.*/, '')))

/** No option of qcow2 at all where it is amended. */
const ofOtherFormats = new Set(['nocow', 'extent_size_hint'])

const rawCannot = "Format driver 'raw' does not support option amendment"

/** `qcow2 amend`: what kind of image an image is. */
export async function amend(argv: readonly string[]): Promise<number> {
  const line = parseCommandLine(options, argv)
  const lists = line.values('settings')
  if (lists.length === 0) throw new UsageError('Must specify options (-o)', { showHelpHint: true })
  const cache = cacheArgument('cache', line.value('cache'))
  const secrets = secretsOf(line.values('object'))
  const asksWhat = asksForHelp(lists)
  if (asksWhat && line.has('format')) return help(line.value('format') ?? '')
  const [operand, ...more] = line.operands
  if (operand === undefined || more.length > 0) throw new UsageError('Expecting one image file name')
  const name = parseImageName(operand, { format: line.value('format'), imageOptions: line.has('imageOpts') })
  await warnIfGuessedRaw(name)
  if (asksWhat) {
    const { imageInfo } = await import('../operations/info.js')
    return help((await imageInfo(name.path, { forceShare: true })).format)
  }
  if (name.format === 'raw') throw new UsageError(rawCannot)
  const { backing, dataFile } = await gatesOf(name)
  const work: AmendOptions = {
    ...cache,
    ...(name.format === undefined ? {} : { format: name.format }),
    ...wanted(lists, secrets),
    backing,
    openDataFile: dataFile,
    ...encryptionOf(name, secrets),
  }
  const { amendImage } = await import('../operations/amend.js')
  try {
    await metered(line, (control) => amendImage(name.path, { ...work, ...control }))
  } catch (error) {
    if (error instanceof Error && error.message === 'Cannot amend the backing file')
      throw new UsageError(`${error.message}\nYou can use 'qemu-img rebase' instead.`)
    throw error
  }
  return 0
}

function help(format: string): number {
  if (format !== 'qcow2') throw new UsageError(rawCannot)
  const lines = Object.entries(amendable).map(([key, text]) => `  ${key.padEnd(22)} - ${text}\n`)
  print(`Amend options for 'qcow2':\n${lines.join('')}`)
  return 0
}

/** @throws UsageError  in the words of the stock tool */
function wanted(lists: readonly string[], secrets: Secrets): AmendOptions {
  const ofEncryption = new Map<string, string>()
  const others: string[] = []
  for (const { key, value = 'on' } of lists.flatMap(parseOptionList)) {
    if (ofOtherFormats.has(key)) throw new UsageError(`Invalid parameter '${key}'`)
    if (key.startsWith('encrypt.') && amendableKeys.has(key)) ofEncryption.set(key, value)
    else others.push(`${key}=${escapeValue(value)}`)
  }
  const settings = parseImageSettings('qcow2', others)
  for (const key of settings.keys()) {
    if (!amendableKeys.has(key))
      throw new UsageError(`Invalid parameter '${key}'\nThis option is only supported for image creation`)
  }
  const encrypt = amendEncrypt(ofEncryption, secrets)
  const size = settings.get('size')
  if (size !== undefined && BigInt(size) % 512n !== 0n)
    throw new UsageError('The new size must be a multiple of 512')
  const text = (key: string, name: string): object =>
    settings.has(key) ? { [name]: settings.get(key) ?? '' } : {}
  const truth = (key: string, name: string): object =>
    settings.has(key) ? { [name]: isOn(settings, key) } : {}
  return {
    ...(encrypt === undefined ? {} : { encrypt }),
    ...compatOf(settings),
    ...refcountBitsOf(settings),
    ...(size === undefined ? {} : { size: exactNumber('image size', BigInt(size)) }),
    ...truth('lazy_refcounts', 'lazyRefcounts'),
    ...truth('data_file_raw', 'dataFileRaw'),
    ...text('backing_file', 'backingFile'),
    ...text('backing_fmt', 'backingFormat'),
    ...text('data_file', 'dataFile'),
  }
}

function compatOf(settings: ImageSettings): Pick<AmendOptions, 'compat'> {
  const level = settings.get('compat')
  if (level === undefined) return {}
  if (level === '1.1' || level === 'v3') return { compat: '1.1' }
  if (level === '0.10' || level === 'v2') return { compat: '0.10' }
  throw new UsageError(`Unknown compatibility level ${level}`)
}

function refcountBitsOf(settings: ImageSettings): Pick<AmendOptions, 'refcountBits'> {
  const text = settings.get('refcount_bits')
  if (text === undefined) return {}
  const bits = Number(text)
  if ([1, 2, 4, 8, 16, 32, 64].includes(bits)) return { refcountBits: bits }
  throw new UsageError('Refcount width must be a power of two and may not exceed 64 bits')
}
