import type { Comparison } from '../operations/compare.js'
import { cacheArgument } from './cache-argument.js'
import { parseCommandLine } from './command-line.js'
import { type ImageName, parseImageName } from './image-name.js'
import { gatesOf } from './named-files.js'
import { print } from './output.js'
import { type ProgressMeter, progressMeter } from './progress-meter.js'
import { encryptionOf, secretsOf } from './secrets.js'
import { UsageError } from './usage-error.js'
import {
  commonOptions,
  jsonProgressOption,
  progressOption,
  quietOption,
  report,
  type VerbContext,
} from './verb.js'

const options = {
  ...commonOptions,
  format: { short: 'f', takesValue: true },
  secondFormat: { short: 'F', takesValue: true },
  cache: { short: 'T', takesValue: true },
  strict: { short: 's', takesValue: false },
  quiet: quietOption,
  progress: progressOption,
  jsonProgress: jsonProgressOption,
} as const

const exitCodes = { same: 0, differ: 1, notOpened: 2, notRead: 4 }

/** `qcow2 compare`: whether two disks hold the same. */
export async function compare(argv: readonly string[], context: VerbContext): Promise<number> {
  const line = parseCommandLine(options, argv)
  const [firstText, secondText, extra] = line.operands
  if (firstText === undefined || secondText === undefined || extra !== undefined) {
    throw new UsageError('Expecting two image file names', { showHelpHint: true })
  }
  const secrets = secretsOf(line.values('object'))
  const quiet = line.has('quiet')
  const strict = line.has('strict')
  let opened = false
  try {
    const imageOptions = line.has('imageOpts')
    const first = parseImageName(firstText, { format: line.value('format'), imageOptions })
    const second = parseImageName(secondText, { format: line.value('secondFormat'), imageOptions })
    const { encryption: secondEncryption } = encryptionOf(second, secrets)
    const cache = cacheArgument('source cache', line.value('cache'))
    // Each has its own: both may be one image, over other files.
    const { backing: secondBacking, dataFile: secondDataFile } = await gatesOf(second)
    const { compareImages } = await import('../operations/compare.js')
    const meter = progressMeter({
      quiet,
      asked: line.has('progress'),
      json: line.has('jsonProgress'),
      startsLate: true,
    })
    const result = await compareImages(first.path, second.path, {
      ...cache,
      ...formats(first, second),
      ...encryptionOf(first, secrets),
      ...(secondEncryption === undefined ? {} : { secondEncryption }),
      strict,
      ...(await gatesOf(first)),
      secondBacking,
      secondDataFile,
      forceShare: first.forceShare || second.forceShare || line.has('forceShare'),
      onProgress: (progress) => {
        // The first report comes when both are open.
        opened = true
        meter.listener(progress)
      },
    })
      .then((found) => {
        if (!quiet) printVerdict(found, strict, meter)
        return found
      })
      // As in the stock tool, the verdict follows on what is shown of the progress.
      .finally(() => meter.finish('failed'))
    return result.identical ? exitCodes.same : exitCodes.differ
  } catch (error) {
    if (!(error instanceof Error)) throw error
    report(context, error.message)
    return opened ? exitCodes.notRead : exitCodes.notOpened
  }
}

function formats(
  first: ImageName,
  second: ImageName,
): { format?: 'qcow2' | 'raw'; secondFormat?: 'qcow2' | 'raw' } {
  return {
    ...(first.format === undefined ? {} : { format: first.format }),
    ...(second.format === undefined ? {} : { secondFormat: second.format }),
  }
}

function printVerdict({ sizes, difference }: Comparison, strict: boolean, meter: ProgressMeter): void {
  const shorter = Math.min(...sizes)
  const isBehind = difference === undefined || (difference.type === 'content' && difference.offset >= shorter)
  if (sizes[0] !== sizes[1] && !strict && isBehind) print('Warning: Image size mismatch!\n')
  if (difference === undefined) meter.reachEnd()
  print(`${verdict(difference)}\n`)
}

function verdict(difference: Comparison['difference']): string {
  switch (difference?.type) {
    case undefined:
      return 'Images are identical.'
    case 'size':
      return 'Strict mode: Image size mismatch!'
    case 'allocation':
      return `Strict mode: Offset ${difference.offset} block status mismatch!`
    case 'content':
      return `Content mismatch at offset ${difference.offset}!`
  }
}
