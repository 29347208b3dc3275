import type { DdOptions } from '../operations/dd.js'
import { parseCommandLine } from './command-line.js'
import { parseImageName } from './image-name.js'
import { gatesOf } from './named-files.js'
import { metered } from './progress-meter.js'
import { encryptionOf, secretsOf } from './secrets.js'
import { sizeArgument } from './sizes.js'
import { UsageError } from './usage-error.js'
import { commonOptions, jsonProgressOption, report, type VerbContext } from './verb.js'

const options = {
  ...commonOptions,
  format: { short: 'f', takesValue: true },
  targetFormat: { short: 'O', takesValue: true },
  jsonProgress: jsonProgressOption,
} as const

/** Largest block. */
const mostBlockBytes = 2 ** 31 - 1

const operandNames = ['if', 'of', 'bs', 'count', 'skip'] as const
type Operands = Partial<Record<(typeof operandNames)[number], string>>

/** `qcow2 dd`: a part of a disk into a new image. */
export async function dd(argv: readonly string[], context: VerbContext): Promise<number> {
  const line = parseCommandLine(options, argv)
  const secrets = secretsOf(line.values('object'))
  const operands = parseOperands(line.operands)
  const blocks = blocksOf(operands)
  if (operands.if === undefined || operands.of === undefined)
    throw new UsageError('Must specify both input and output files')
  const format = line.value('targetFormat') ?? 'raw'
  if (format !== 'raw' && format !== 'qcow2') throw new UsageError('Unknown file format')
  const source = parseImageName(operands.if, {
    format: line.value('format'),
    imageOptions: line.has('imageOpts'),
  })
  const target = parseImageName(operands.of, { format: undefined, imageOptions: false })
  const { backing, dataFile } = await gatesOf(source)
  const work: DdOptions = {
    ...blocks,
    ...(source.format === undefined ? {} : { sourceFormat: source.format }),
    format,
    forceShare: source.forceShare || line.has('forceShare'),
    backing,
    sourceDataFile: dataFile,
    ...encryptionOf(source, secrets),
    overwrite: true,
  }
  const { ddImage } = await import('../operations/dd.js')
  const { skippedPastEnd } = await metered(line, (control) =>
    ddImage(source.path, target.path, { ...work, ...control }),
  ).catch((error: unknown) => {
    if (!(error instanceof Error) || !/^(Could not create|Failed to get)/.test(error.message)) throw error
    throw new UsageError(`${target.text}: error while creating output image: ${error.message}`)
  })
  // No failure, as the stock tool has it: the new disk is empty.
  if (skippedPastEnd) report(context, `${source.text}: cannot skip to specified offset`)
  return 0
}

/** @throws UsageError  one that there is not */
function parseOperands(words: readonly string[]): Operands {
  const found: Operands = {}
  for (const word of words) {
    const [name, ...rest] = word.split('=')
    const known = operandNames.find((one) => one === name)
    if (known === undefined || rest.length === 0) throw new UsageError(`unrecognized operand ${name ?? ''}`)
    found[known] = rest.join('=')
  }
  return found
}

function blocksOf({ bs, count, skip }: Operands): Pick<DdOptions, 'blockSize' | 'count' | 'skip'> {
  const blockSize = bs === undefined ? undefined : sizeArgument('bs', bs)
  if (blockSize !== undefined && (blockSize < 1 || blockSize > mostBlockBytes))
    throw new UsageError(`Invalid bs specified. Must be between 1 and ${mostBlockBytes}.`)
  return {
    ...(blockSize === undefined ? {} : { blockSize }),
    ...(count === undefined ? {} : { count: sizeArgument('count', count) }),
    ...(skip === undefined ? {} : { skip: sizeArgument('skip', skip) }),
  }
}
