import type { ConvertedImage, ConvertOptions } from '../operations/convert.js'
import type { ImageFormat } from '../image/probe.js'
import { escapeName } from '../qcow2/header-extensions.js'
import { storedBackingName } from './backing-name.js'
import { cacheArgument, sourceCacheArgument } from './cache-argument.js'
import { type CommandLine, parseCommandLine } from './command-line.js'
import {
  asksForHelp,
  imageShape,
  type ImageSettings,
  parseImageSettings,
  settingsHelp,
} from './create-options.js'
import { type ImageName, parseImageName } from './image-name.js'
import { gatesOf } from './named-files.js'
import { print } from './output.js'
import { metered } from './progress-meter.js'
import { encryptionOf, type Secrets, secretsOf } from './secrets.js'
import { rateArgument, sizeArgument } from './sizes.js'
import { noSnapshot, snapshotArgument } from './snapshot-argument.js'
import { UsageError } from './usage-error.js'
import {
  commonOptions,
  jsonProgressOption,
  progressOption,
  quietOption,
  report,
  type VerbContext,
} from './verb.js'
import { addBacking, targetFormat } from './verb-create.js'

const options = {
  ...commonOptions,
  format: { short: 'f', takesValue: true },
  targetFormat: { short: 'O', takesValue: true },
  backing: { short: 'B', takesValue: true },
  backingFormat: { short: 'F', takesValue: true },
  settings: { short: 'o', takesValue: true },
  compress: { short: 'c', takesValue: false },
  offload: { short: 'C', takesValue: false },
  snapshot: { short: 'l', takesValue: true },
  sparse: { short: 'S', takesValue: true },
  progress: progressOption,
  jsonProgress: jsonProgressOption,
  quiet: quietOption,
  existing: { short: 'n', takesValue: false },
  requests: { short: 'm', takesValue: true },
  rate: { short: 'r', takesValue: true },
  outOfOrder: { short: 'W', takesValue: false },
  cache: { short: 't', takesValue: true },
  sourceCache: { short: 'T', takesValue: true },
  bitmaps: { long: 'bitmaps', takesValue: false },
  skipBrokenBitmaps: { long: 'skip-broken-bitmaps', takesValue: false },
  salvage: { long: 'salvage', takesValue: false },
  targetIsZero: { long: 'target-is-zero', takesValue: false },
  targetImageOpts: { long: 'target-image-opts', takesValue: false },
} as const

type Line = CommandLine<keyof typeof options>

/** `qcow2 convert`: a disk, or several behind each other, into another image. */
export async function convert(argv: readonly string[], context: VerbContext): Promise<number> {
  const line = parseCommandLine(options, argv)
  const secrets = secretsOf(line.values('object'))
  const format = targetFormat(line.value('targetFormat'))
  const lists = line.values('settings')
  if (asksForHelp(lists)) {
    print(settingsHelp(format))
    return 0
  }
  const snapshot = snapshotArgument(line.value('snapshot'))
  const numbers = { ...sparseSize(line), ...requests(line), ...rateArgument(line.value('rate')) }
  const caches = {
    ...cacheArgument('cache', line.value('cache')),
    ...sourceCacheArgument(line.value('sourceCache')),
  }
  checkTogether(line)
  const names = line.operands.slice(0, -1)
  const targetText = line.operands.at(-1)
  if (targetText === undefined || names.length === 0) throw new UsageError('Must specify image file name')
  const existing = line.has('existing')
  if (line.has('snapshot') && names.length > 1)
    throw new UsageError('No support for concatenating multiple snapshot')
  const settings = parseImageSettings(format, lists)
  refuseWhatIsMissing(line, format)
  addBacking(targetText, format, settings, line.value('backing'), line.value('backingFormat'))
  checkBackingUse(settings, names.length, existing)
  const sources = names.map((name) =>
    parseImageName(name, { format: line.value('format'), imageOptions: line.has('imageOpts') }),
  )
  const target = targetName(line, targetText)
  const backing = settings.get('backing_file')
  if (backing !== undefined && !existing)
    settings.set('backing_file', storedBackingName(backing, target.path, settings.get('backing_fmt')))
  refuseSeveralNamed(sources)
  const targets = existing ? [target] : []
  const work = {
    ...numbers,
    ...snapshot,
    ...caches,
    ...sourceFormat(sources),
    ...(existing ? {} : shapeOf(targetText, format, settings, secrets)),
    ...encryptionOf({ keySecrets: sourceSecrets(sources) }, secrets),
    ...targetEncryption(existing, target, secrets),
    format: target.format ?? format,
    backing: (await gatesOf(...sources)).backing,
    targetBacking: (await gatesOf(...targets)).backing,
    sourceDataFile: (await gatesOf(...sources, ...targets)).dataFile,
    forceShare: sources.some((source) => source.forceShare) || line.has('forceShare'),
    compress: line.has('compress'),
    targetIsZero: line.has('targetIsZero'),
    bitmaps: line.has('bitmaps'),
    skipBrokenBitmaps: line.has('skipBrokenBitmaps'),
    salvage: line.has('salvage'),
    existingTarget: existing,
    overwrite: true,
  } satisfies ConvertOptions
  await run(sources, target, work, line, context)
  return 0
}

async function run(
  sources: readonly ImageName[],
  target: ImageName,
  work: ConvertOptions,
  line: Line,
  context: VerbContext,
): Promise<void> {
  const { convertImage } = await import('../operations/convert.js')
  const paths = sources.map(({ path }) => path)
  try {
    const converted = await metered(line, (control) =>
      convertImage(paths, target.path, { ...work, ...control }),
    )
    warn(converted, context)
  } catch (error) {
    if ((error as { code?: unknown }).code === 'ERR_BITMAP_INCONSISTENT') {
      const hint = `Try --skip-broken-bitmaps, or use '${context.program} bitmap --remove' to delete it`
      throw new UsageError(`${(error as Error).message}\n${hint}`)
    }
    if (work.existingTarget === true && (error as { code?: unknown }).code === 'ERR_OUT_OF_RANGE') {
      throw new UsageError('output file is smaller than input file')
    }
    const missing = noSnapshot(error)
    if (missing !== undefined) throw missing
    if (error instanceof Error && /^(Could not create|Failed to get)/.test(error.message))
      throw whileConverting(target.text, work.format, error)
    throw error
  }
}

/** What the target does not have of the sources. A run that could not be read is one line, where qemu-img has one for every sector. */
function warn({ skippedBitmaps = [], lost = [], bytesLost = 0 }: ConvertedImage, context: VerbContext): void {
  for (const name of skippedBitmaps)
    report(context, `warning: Skipping inconsistent bitmap '${escapeName(name)}'`)
  for (const { offset, length, reason } of lost)
    report(context, `warning: error while reading offset ${offset}: ${reason}; ${length} bytes are zeroes`)
  if (lost.length > 1) report(context, `warning: ${bytesLost} bytes could not be read and are zeroes`)
}

function shapeOf(
  target: string,
  format: ImageFormat,
  settings: ImageSettings,
  secrets: Secrets,
): Omit<ConvertOptions, 'format'> {
  try {
    const { format: _, ...shape } = imageShape(format, settings, secrets)
    return shape
  } catch (error) {
    throw whileConverting(target, format, error as Error)
  }
}

/** All sources are opened alike. */
function sourceSecrets(sources: readonly ImageName[]): ImageName['keySecrets'] {
  const [first, ...others] = sources.map(({ keySecrets }) => keySecrets)
  const isAlike = (other: ImageName['keySecrets']): boolean => other.get(0) === first?.get(0)
  if (!others.every(isAlike)) throw new UsageError('All source images must be opened by one secret')
  return first ?? new Map()
}

function targetEncryption(
  existing: boolean,
  target: ImageName,
  secrets: Secrets,
): Pick<ConvertOptions, 'targetEncryption'> {
  const { encryption } = encryptionOf(target, secrets)
  return existing && encryption !== undefined ? { targetEncryption: encryption } : {}
}

function whileConverting(target: string, format: ImageFormat, error: Error): UsageError {
  return new UsageError(`${target}: error while converting ${format}: ${error.message}`)
}

/** Largest -S. */
const mostSparseSize = 16 * 1024 * 1024

function sparseSize(line: Line): { sparseSize?: number } {
  const text = line.value('sparse')
  if (text === undefined) return {}
  const bytes = sizeArgument('buffer size for sparse output', text)
  if (bytes % 512 === 0 && bytes <= mostSparseSize) return { sparseSize: bytes }
  throw new UsageError(
    `Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to ${mostSparseSize}. ` +
      'Select 0 to disable sparse detection (fully allocates output).',
  )
}

const mostRequests = 16

function requests(line: Line): { requests?: number } {
  const text = line.value('requests')
  if (text === undefined) return {}
  const count = /^\d+$/.test(text) ? Number(text) : 0
  if (count >= 1 && count <= mostRequests) return { requests: count }
  throw new UsageError(
    `Invalid number of coroutines. Allowed number of coroutines is between 1 and ${mostRequests}`,
  )
}

/** @throws UsageError  options that contradict each other */
function checkTogether(line: Line): void {
  if (line.has('existing') && line.has('settings')) {
    throw new UsageError('-o has no effect when skipping image creation')
  }
  if (line.has('offload') && line.has('compress'))
    throw new UsageError('Cannot enable copy offloading when -c is used')
  if (line.has('offload') && line.has('sparse'))
    throw new UsageError('Cannot enable copy offloading when -S is used')
  if (line.has('offload') && line.has('salvage'))
    throw new UsageError('Cannot use copy offloading in salvaging mode')
  if (line.has('targetIsZero') && !line.has('existing')) {
    throw new UsageError('--target-is-zero requires use of -n flag')
  }
  if (line.has('skipBrokenBitmaps') && !line.has('bitmaps')) {
    throw new UsageError('Use of --skip-broken-bitmaps requires --bitmaps')
  }
  if (line.has('targetImageOpts') && !line.has('existing')) {
    throw new UsageError('--target-image-opts requires use of -n flag')
  }
}

/** @throws UsageError  what qemu-img can do and this version cannot, or no format could */
function refuseWhatIsMissing(line: Line, format: ImageFormat): void {
  if (line.has('compress') && format === 'raw')
    throw new UsageError('Compression not supported for this file format')
}

function checkBackingUse(settings: ImageSettings, sourceCount: number, existing: boolean): void {
  if (!settings.has('backing_file')) return
  if (sourceCount > 1) {
    throw new UsageError(
      'Having a backing file for the target makes no sense when concatenating multiple input images',
    )
  }
  // An image that exists has one already, or none.
  if (!settings.has('backing_fmt') && !existing)
    throw new UsageError('Use of backing file requires explicit backing format')
}

function targetName(line: Line, text: string): ImageName {
  const imageOptions = line.has('targetImageOpts')
  return parseImageName(text, { format: imageOptions ? line.value('targetFormat') : undefined, imageOptions })
}

/** They stand for what an image says wherever that image is met, which may be in the chain of another source. */
function refuseSeveralNamed(sources: readonly ImageName[]): void {
  if (sources.length === 1 || sources.every(({ chain, dataFile }) => chain.length === 0 && !dataFile)) return
  throw new UsageError("Only a single source image can have its chain's files or its data file named")
}

/** Names may bring formats of their own; all sources are opened alike. */
function sourceFormat(sources: readonly ImageName[]): { sourceFormat?: ImageFormat } {
  const [first, ...others] = sources.map(({ format }) => format)
  if (others.some((format) => format !== first))
    throw new UsageError('All source images must be given one format')
  return first === undefined ? {} : { sourceFormat: first }
}
