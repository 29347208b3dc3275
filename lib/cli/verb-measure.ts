import type { ImageFormat } from '../image/probe.js'
import type { Measurement, MeasureOptions } from '../operations/measure.js'
import { parseCommandLine } from './command-line.js'
import { type ImageSettings, parseImageSettings } from './create-options.js'
import { encryptSettings } from './encrypt-settings.js'
import { parseImageName } from './image-name.js'
import { gatesOf } from './named-files.js'
import { interruptible } from './interrupts.js'
import { jsonText } from './json-text.js'
import { print } from './output.js'
import { encryptionOf, type Secrets, secretsOf } from './secrets.js'
import { sizeArgument } from './sizes.js'
import { noSnapshot, snapshotArgument } from './snapshot-argument.js'
import { UsageError } from './usage-error.js'
import { commonOptions, wantsJson } from './verb.js'
import { targetFormat } from './verb-create.js'

const options = {
  ...commonOptions,
  format: { short: 'f', takesValue: true },
  targetFormat: { short: 'O', takesValue: true },
  settings: { short: 'o', takesValue: true },
  snapshot: { short: 'l', takesValue: true },
  output: { long: 'output', takesValue: true },
  size: { long: 'size', takesValue: true },
} as const

/** `qcow2 measure`: how large an image would become. */
export async function measure(argv: readonly string[]): Promise<number> {
  const line = parseCommandLine(options, argv)
  const secrets = secretsOf(line.values('object'))
  const json = wantsJson(line.value('output'))
  const snapshot = snapshotArgument(line.value('snapshot'))
  const sizeText = line.value('size')
  const size = sizeText === undefined ? undefined : sizeArgument('image size', sizeText)
  const [operand, extra] = line.operands
  if (extra !== undefined) throw new UsageError('At most one filename argument is allowed.')
  if (operand === undefined && (line.has('imageOpts') || line.has('format') || line.has('snapshot'))) {
    throw new UsageError('--image-opts, -f, and -l require a filename argument.')
  }
  if (operand === undefined && size === undefined) {
    throw new UsageError('Either --size N or one filename must be specified.')
  }
  if (operand !== undefined && size !== undefined) {
    throw new UsageError('--size N cannot be used together with a filename.')
  }
  const format = targetFormat(line.value('targetFormat'))
  const shape = measuredShape(format, measuredSettings(format, line.values('settings')), secrets)
  const { measureImage } = await import('../operations/measure.js')
  if (operand === undefined) {
    show(await measureImage({ size: size ?? 0 }, shape), json)
    return 0
  }
  const name = parseImageName(operand, { format: line.value('format'), imageOptions: line.has('imageOpts') })
  const { backing, dataFile } = await gatesOf(name)
  const found = await interruptible((signal) =>
    measureImage(name.path, {
      ...shape,
      ...snapshot,
      ...(name.format === undefined ? {} : { sourceFormat: name.format }),
      backing,
      sourceDataFile: dataFile,
      ...encryptionOf(name, secrets),
      forceShare: name.forceShare || line.has('forceShare'),
      signal,
    }),
  ).catch((error: unknown) => {
    throw noSnapshot(error) ?? error
  })
  show(found, json)
  return 0
}

function show({ required, fullyAllocated, bitmaps }: Measurement, json: boolean): void {
  if (json) {
    print(`${jsonText({ bitmaps, required, 'fully-allocated': fullyAllocated })}\n`)
    return
  }
  print(`required size: ${required}\nfully allocated size: ${fullyAllocated}\n`)
  if (bitmaps !== undefined) print(`bitmaps size: ${bitmaps}\n`)
}

function measuredSettings(format: ImageFormat, lists: readonly string[]): ImageSettings {
  try {
    return parseImageSettings(format, lists)
  } catch (error) {
    const { message } = error as Error
    if (message.startsWith('Invalid option list')) throw error
    throw new UsageError([message, `Invalid options for file format '${format}'`])
  }
}

/**
 * What the size depends on; other keys may say anything. The words are those that qemu-img has for this verb.
 * @throws UsageError  a value that no image can have
 */
function measuredShape(format: ImageFormat, settings: ImageSettings, secrets: Secrets): MeasureOptions {
  if (format === 'raw') return { format }
  // The legacy AES takes no room.
  const encrypt = settings.get('encrypt.format') === 'luks' ? encryptSettings(settings, secrets) : undefined
  const clusterSize = Number(settings.get('cluster_size') ?? 65536)
  if (!isPowerOfTwo(clusterSize) || clusterSize < 512 || clusterSize > 2 * 1024 * 1024) {
    throw new UsageError('Cluster size must be a power of two between 512 and 2048k')
  }
  const refcountBits = Number(settings.get('refcount_bits') ?? 16)
  const compat = compatOf(settings.get('compat') ?? '1.1')
  if (!isPowerOfTwo(refcountBits) || refcountBits > 64) {
    throw new UsageError('Refcount width must be a power of two and may not exceed 64 bits')
  }
  const preallocation = settings.get('preallocation')
  const backingFile = settings.get('backing_file') ?? ''
  return {
    format,
    clusterSize,
    refcountBits,
    compat,
    extendedL2: /^(on|yes|true|y)$/.test(settings.get('extended_l2') ?? 'off'),
    ...(encrypt === undefined ? {} : { encrypt }),
    ...(backingFile === '' ? {} : { backingFile }),
    ...(preallocation === undefined ? {} : { preallocation: preallocationOf(preallocation) }),
  }
}

const isPowerOfTwo = (value: number): boolean => value >= 1 && Number.isInteger(Math.log2(value))

function compatOf(text: string): '1.1' | '0.10' {
  if (text === '1.1' || text === 'v3') return '1.1'
  if (text === '0.10' || text === 'v2') return '0.10'
  throw new UsageError(`Invalid compatibility level: '${text}'`)
}

function preallocationOf(text: string): 'off' | 'metadata' | 'falloc' | 'full' {
  if (text === 'off' || text === 'metadata' || text === 'falloc' || text === 'full') return text
  throw new UsageError(`invalid parameter value: ${text}`)
}
