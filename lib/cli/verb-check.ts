import type { CheckResult } from '../qcow2/check-result.js'
import { cacheArgument } from './cache-argument.js'
import { parseCommandLine } from './command-line.js'
import { parseImageName } from './image-name.js'
import { interruptible } from './interrupts.js'
import { type Json, jsonText } from './json-text.js'
import { print, printError } from './output.js'
import { progressMeter } from './progress-meter.js'
import { secretsOf } from './secrets.js'
import { UsageError } from './usage-error.js'
import {
  commonOptions,
  jsonProgressOption,
  onlyOperand,
  quietOption,
  report,
  type VerbContext,
  warnOfGuessedRaw,
  wantsJson,
} from './verb.js'

const options = {
  ...commonOptions,
  format: { short: 'f', long: 'format', takesValue: true },
  repair: { short: 'r', long: 'repair', takesValue: true },
  output: { long: 'output', takesValue: true },
  cache: { short: 'T', takesValue: true },
  quiet: quietOption,
  jsonProgress: jsonProgressOption,
} as const

const exitCodes = { clean: 0, failed: 1, corruptions: 2, leaks: 3, noCheck: 63 }

/** `qcow2 check`: what is wrong with an image, and with -r, putting it right. */
export async function check(argv: readonly string[], context: VerbContext): Promise<number> {
  const line = parseCommandLine(options, argv)
  const repair = repairArgument(line.value('repair'))
  const operand = onlyOperand(line.operands)
  const json = wantsJson(line.value('output'))
  const cache = cacheArgument('source cache', line.value('cache'))
  secretsOf(line.values('object'))
  const name = parseImageName(operand, { format: line.value('format'), imageOptions: line.has('imageOpts') })
  const forceShare = name.forceShare || line.has('forceShare')
  if (forceShare && repair !== undefined) {
    throw new UsageError(
      `Could not open '${name.text}': force-share=on can only be used with read-only images`,
    )
  }
  const { checkImage } = await import('../operations/check.js')
  const meter = progressMeter({ asked: false, quiet: line.has('quiet'), json: line.has('jsonProgress') })
  let saidStale = false
  const outcome = await interruptible((signal) =>
    checkImage(name.path, {
      ...cache,
      ...(repair === undefined ? {} : { repair }),
      ...(name.format === undefined ? {} : { format: name.format }),
      forceShare,
      signal,
      onProgress: meter.listener,
      onFinding: ({ kind, text }) => {
        meter.finish('done')
        if (kind !== 'stale-bitmaps') printError(`${text}\n`)
        // A repair looks several times.
        else if (!saidStale) report(context, `warning: ${text}`)
        saidStale ||= kind === 'stale-bitmaps'
      },
    }),
  ).finally(() => meter.finish('done'))
  if (!outcome.supported) {
    if (repair !== undefined && name.format === undefined) warnOfGuessedRaw(name.text)
    report(context, 'This image format does not support checks')
    return exitCodes.noCheck
  }
  if (repair === 'leaks' && outcome.needsRebuild) {
    printError('ERROR need to rebuild refcount structures\n')
    throw new UsageError('Check failed: Input/output error')
  }
  if (!line.has('quiet')) print(json ? `${jsonText(checkJson(name.path, outcome))}\n` : checkText(outcome))
  return exitCode(outcome)
}

function repairArgument(text: string | undefined): 'leaks' | 'all' | undefined {
  if (text === undefined || text === 'leaks' || text === 'all') return text
  throw new UsageError(`Unknown option value for -r (expecting 'leaks' or 'all'): ${text}`, {
    showHelpHint: true,
  })
}

function exitCode({ checkErrors, corruptions, leaks }: CheckResult): number {
  if (checkErrors > 0) return exitCodes.failed
  if (corruptions > 0) return exitCodes.corruptions
  return leaks > 0 ? exitCodes.leaks : exitCodes.clean
}

/** The report for people, with newlines. */
function checkText(result: CheckResult): string {
  return [...repairedLines(result), ...remainingLines(result), ...allocationLines(result)]
    .map((line) => `${line}\n`)
    .join('')
}

function repairedLines({ leaksFixed, corruptionsFixed }: CheckResult): string[] {
  if (leaksFixed === 0 && corruptionsFixed === 0) return []
  return [
    'The following inconsistencies were found and repaired:',
    '',
    `    ${leaksFixed} leaked clusters`,
    `    ${corruptionsFixed} corruptions`,
    '',
    'Double checking the fixed image now...',
  ]
}

function remainingLines({ corruptions, leaks, checkErrors }: CheckResult): string[] {
  if (corruptions === 0 && leaks === 0 && checkErrors === 0) return ['No errors were found on the image.']
  const lines: string[] = []
  if (corruptions > 0) {
    lines.push(
      '',
      `${corruptions} errors were found on the image.`,
      'Data may be corrupted, or further writes to the image may corrupt it.',
    )
  }
  if (leaks > 0) {
    lines.push(
      '',
      `${leaks} leaked clusters were found on the image.`,
      'This means waste of disk space, but no harm to data.',
    )
  }
  if (checkErrors > 0) lines.push('', `${checkErrors} internal errors have occurred during the check.`)
  return lines
}

function allocationLines(result: CheckResult): string[] {
  const { totalClusters, allocatedClusters, fragmentedClusters, compressedClusters, imageEndOffset } = result
  const percent = (part: number, whole: number): string => ((100 * part) / whole).toFixed(2)
  const lines: string[] = []
  if (totalClusters > 0 && allocatedClusters > 0) {
    lines.push(
      `${allocatedClusters}/${totalClusters} = ${percent(allocatedClusters, totalClusters)}% allocated, ` +
        `${percent(fragmentedClusters, allocatedClusters)}% fragmented, ` +
        `${percent(compressedClusters, allocatedClusters)}% compressed clusters`,
    )
  }
  if (imageEndOffset > 0) lines.push(`Image end offset: ${imageEndOffset}`)
  return lines
}

/** The report of --output=json, keys in QEMU 7.2's order; counts of nothing are left out. */
function checkJson(path: string, result: CheckResult): Json {
  const some = (count: number): number | undefined => (count === 0 ? undefined : count)
  return {
    'image-end-offset': some(result.imageEndOffset),
    'compressed-clusters': some(result.compressedClusters),
    'total-clusters': some(result.totalClusters),
    corruptions: some(result.corruptions),
    'corruptions-fixed': some(result.corruptionsFixed),
    'check-errors': result.checkErrors,
    leaks: some(result.leaks),
    'leaks-fixed': some(result.leaksFixed),
    'allocated-clusters': some(result.allocatedClusters),
    filename: path,
    format: 'qcow2',
    'fragmented-clusters': some(result.fragmentedClusters),
  }
}
