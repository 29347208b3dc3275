import type { ImageShape } from '../operations/create.js'
import type { ImageFormat } from '../image/probe.js'
import { encryptSettings } from './encrypt-settings.js'
import { escapeValue, type ListedOption, parseOptionList } from './option-list.js'
import type { Secrets } from './secrets.js'
import { exactNumber, sizeParameter } from './sizes.js'
import { UsageError } from './usage-error.js'

type Kind = 'text' | 'size' | 'number' | 'switch'

type Key = { readonly kind: Kind; readonly help: string; readonly default?: string }

/** The keys of -o, in the order in which qemu-img prints them after `Formatting`. */
const qcow2Keys: Readonly<Record<string, Key>> = {
  encryption: {
    kind: 'switch',
    help: "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
  },
  'encrypt.format': { kind: 'text', help: "Encrypt the image, format choices: 'aes', 'luks'" },
  'encrypt.key-secret': { kind: 'text', help: 'ID of secret providing qcow AES key or LUKS passphrase' },
  'encrypt.cipher-alg': { kind: 'text', help: 'Name of encryption cipher algorithm' },
  'encrypt.cipher-mode': { kind: 'text', help: 'Name of encryption cipher mode' },
  'encrypt.ivgen-alg': { kind: 'text', help: 'Name of IV generator algorithm' },
  'encrypt.ivgen-hash-alg': { kind: 'text', help: 'Name of IV generator hash algorithm' },
  'encrypt.hash-alg': { kind: 'text', help: 'Name of encryption hash algorithm' },
  'encrypt.iter-time': { kind: 'number', help: 'Time to spend in PBKDF in milliseconds' },
  cluster_size: { kind: 'size', help: 'qcow2 cluster size', default: '65536' },
  extended_l2: { kind: 'switch', help: 'Extended L2 tables', default: 'off' },
  preallocation: { kind: 'text', help: 'Preallocation mode (allowed values: off, metadata, falloc, full)' },
  compression_type: {
    kind: 'text',
    help: 'Compression method used for image cluster compression',
    default: 'zlib',
  },
  size: { kind: 'size', help: 'Virtual disk size' },
  compat: { kind: 'text', help: 'Compatibility level (v2 [0.10] or v3 [1.1])' },
  backing_file: { kind: 'text', help: 'File name of a base image' },
  backing_fmt: { kind: 'text', help: 'Image format of the base image' },
  data_file: { kind: 'text', help: 'File name of an external data file' },
  data_file_raw: { kind: 'switch', help: 'The external data file must stay valid as a raw image' },
  lazy_refcounts: { kind: 'switch', help: 'Postpone refcount updates', default: 'off' },
  refcount_bits: { kind: 'number', help: 'Width of a reference count entry in bits', default: '16' },
  nocow: { kind: 'switch', help: 'Turn off copy-on-write (valid only on btrfs)' },
  extent_size_hint: { kind: 'size', help: 'Extent size hint for the image file, 0 to disable' },
}

const rawKeys: Readonly<Record<string, Key>> = {
  size: { kind: 'size', help: 'Virtual disk size' },
  preallocation: { kind: 'text', help: 'Preallocation mode (allowed values: off, falloc, full)' },
  nocow: { kind: 'switch', help: 'Turn off copy-on-write (valid only on btrfs)' },
  extent_size_hint: { kind: 'size', help: 'Extent size hint for the image file, 0 to disable' },
}

const keysOf = (format: ImageFormat): Readonly<Record<string, Key>> =>
  format === 'qcow2' ? qcow2Keys : rawKeys

/** What -o, -b, -F and the size say together, as text: sizes in bytes, everything else as it was written. */
export type ImageSettings = Map<string, string>

/** Whether somebody asks what keys there are. */
export function asksForHelp(lists: readonly string[]): boolean {
  return lists.some((list) =>
    parseOptionList(list).some(({ key, value }) => value === undefined && /^(help|\?)$/.test(key)),
  )
}

/** The answer: qemu-img's list. */
export function settingsHelp(format: ImageFormat): string {
  const lines = Object.entries(keysOf(format)).map(([key, { kind, help }]) => {
    const type = { text: 'str', size: 'size', number: 'num', switch: 'bool (on/off)' }[kind]
    return `  ${`${key}=<${type}>`.padEnd(22)} - ${help}`
  })
  return `Supported options:\n${lines.sort().join('\n')}\n`
}

/**
 * @param lists  the arguments of -o, in order; of a key that stands there twice the last one counts
 * @throws UsageError  a key that the format lacks, or a value of the wrong kind
 */
export function parseImageSettings(format: ImageFormat, lists: readonly string[]): ImageSettings {
  const settings: ImageSettings = new Map()
  for (const option of lists.flatMap(parseOptionList)) {
    const [key, value] = normalise(keysOf(format), option)
    settings.set(key, value)
  }
  return settings
}

function normalise(
  keys: Readonly<Record<string, Key>>,
  { key: written, value }: ListedOption,
): [string, string] {
  // Old style: a switch alone is on, and with 'no' in front off.
  const negated = value === undefined && keys[written] === undefined && written.startsWith('no')
  const key = negated ? written.slice('no'.length) : written
  const known = Object.hasOwn(keys, key) ? keys[key] : undefined
  if (known === undefined) throw new UsageError(`Invalid parameter '${key}'`)
  const text = value ?? (negated ? 'off' : 'on')
  switch (known.kind) {
    case 'size':
      return [key, String(sizeParameter(key, text))]
    case 'switch':
      switchOf(key, text)
      return [key, text]
    case 'number':
      if (!/^-?(\d+|0x[0-9a-f]+)$/i.test(text)) throw new UsageError(`Parameter '${key}' expects a number`)
      return [key, text]
    case 'text':
      return [key, text]
  }
}

function switchOf(key: string, text: string): boolean {
  if (/^(on|yes|true|y)$/.test(text)) return true
  if (/^(off|no|false|n)$/.test(text)) return false
  throw new UsageError(`Parameter '${key}' expects 'on' or 'off'`)
}

/** `Formatting 'F', fmt=qcow2 cluster_size=65536 ...`, without a newline. */
export function formattingLine(path: string, format: ImageFormat, settings: ImageSettings): string {
  const pairs = Object.entries(keysOf(format)).flatMap(([key, known]) => {
    const value = settings.get(key) ?? known.default
    return value === undefined ? [] : [`${key}=${escapeValue(value)}`]
  })
  return `Formatting '${path}', fmt=${format} ${pairs.join(' ')}`
}

/**
 * The settings as options of createImage and convertImage; the size is not among them.
 * @throws UsageError  a value that no image can have
 */
export function imageShape(
  format: ImageFormat,
  settings: ImageSettings,
  secrets: Secrets = new Map(),
): ImageShape {
  const encrypt = encryptSettings(settings, secrets)
  if (isOn(settings, 'data_file_raw') && !settings.has('data_file')) {
    throw new UsageError('data-file-raw requires data-file')
  }
  const preallocation = preallocationOf(format, settings)
  const common = { format, ...(preallocation === undefined ? {} : { preallocation }) }
  if (format === 'raw') return common
  return { ...common, ...qcow2Shape(settings), ...(encrypt === undefined ? {} : { encrypt }) }
}

function qcow2Shape(settings: ImageSettings): Omit<ImageShape, 'format' | 'preallocation'> {
  const compat = compatOf(settings)
  const clusterSize = clusterSizeOf(settings)
  const refcountBits = refcountBitsOf(settings, compat)
  const lazyRefcounts = isOn(settings, 'lazy_refcounts')
  if (lazyRefcounts && compat === '0.10') {
    throw new UsageError(
      'Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)',
    )
  }
  const compressionType = settings.get('compression_type') ?? 'zlib'
  if (compressionType !== 'zlib' && compressionType !== 'zstd') {
    throw new UsageError(`Parameter 'compression-type' does not accept value '${compressionType}'`)
  }
  const backingFile = settings.get('backing_file')
  const backingFormat = settings.get('backing_fmt')
  if (backingFile === undefined && backingFormat !== undefined) {
    throw new UsageError('Backing format cannot be used without backing file')
  }
  return {
    ...dataFileShape(settings, compat),
    compat,
    clusterSize,
    refcountBits,
    lazyRefcounts,
    compressionType,
    extendedL2: isOn(settings, 'extended_l2'),
    ...(backingFile === undefined ? {} : { backingFile }),
    ...(backingFormat === undefined ? {} : { backingFormat: backingFormatOf(backingFormat) }),
  }
}

function dataFileShape(
  settings: ImageSettings,
  compat: '0.10' | '1.1',
): Pick<ImageShape, 'dataFile' | 'dataFileRaw'> {
  const dataFile = settings.get('data_file')
  if (dataFile === undefined) return {}
  if (compat === '0.10') {
    throw new UsageError(
      'External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)',
    )
  }
  const dataFileRaw = isOn(settings, 'data_file_raw')
  if (dataFileRaw && settings.has('backing_file')) {
    throw new UsageError('Backing file and data-file-raw cannot be used at the same time')
  }
  return { dataFile, dataFileRaw }
}

export function isOn(settings: ImageSettings, key: string): boolean {
  const text = settings.get(key)
  return text !== undefined && switchOf(key, text)
}

function compatOf(settings: ImageSettings): '0.10' | '1.1' {
  const compat = settings.get('compat') ?? 'v3'
  if (compat === '1.1' || compat === 'v3') return '1.1'
  if (compat === '0.10' || compat === 'v2') return '0.10'
  throw new UsageError(`Parameter 'version' does not accept value '${compat}'`)
}

const isPowerOfTwo = (value: number): boolean => Number.isInteger(Math.log2(value))

function clusterSizeOf(settings: ImageSettings): number {
  const clusterSize = Number(settings.get('cluster_size') ?? 65536)
  if (!isPowerOfTwo(clusterSize) || clusterSize < 512 || clusterSize > 2 * 1024 * 1024) {
    throw new UsageError('Cluster size must be a power of two between 512 and 2048k')
  }
  return clusterSize
}

function refcountBitsOf(settings: ImageSettings, compat: '0.10' | '1.1'): number {
  const bits = Number(settings.get('refcount_bits') ?? 16)
  if (!isPowerOfTwo(bits) || bits < 1 || bits > 64) {
    throw new UsageError('Refcount width must be a power of two and may not exceed 64 bits')
  }
  if (bits !== 16 && compat === '0.10') {
    throw new UsageError(
      'Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)',
    )
  }
  return bits
}

const preallocationModes = ['off', 'metadata', 'falloc', 'full'] as const

function preallocationOf(format: ImageFormat, settings: ImageSettings): ImageShape['preallocation'] {
  const text = settings.get('preallocation')
  const mode = preallocationModes.find((known) => known === text)
  if (text !== undefined && mode === undefined) {
    throw new UsageError(`Parameter 'preallocation' does not accept value '${text}'`)
  }
  if (format === 'raw' && mode === 'metadata')
    throw new UsageError('Unsupported preallocation mode: metadata')
  const isExtended = isOn(settings, 'extended_l2')
  if (mode !== undefined && mode !== 'off' && settings.has('backing_file') && !isExtended) {
    throw new UsageError(
      'Backing file and preallocation can only be used at the same time if extended_l2 is on',
    )
  }
  return mode
}

function backingFormatOf(text: string): ImageFormat {
  if (text === 'qcow2' || text === 'raw') return text
  throw new UsageError(`Unknown driver '${text}'`)
}

/** The size among the settings, in bytes. */
export function sizeSetting(settings: ImageSettings): number | undefined {
  const size = settings.get('size')
  return size === undefined ? undefined : exactNumber('image size', BigInt(size))
}
