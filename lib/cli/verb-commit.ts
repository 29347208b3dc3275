import type { CommitOptions } from '../operations/commit.js'
import { cacheArgument } from './cache-argument.js'
import { parseCommandLine } from './command-line.js'
import { parseImageName } from './image-name.js'
import { gatesOf } from './named-files.js'
import { print } from './output.js'
import { metered } from './progress-meter.js'
import { encryptionOf, secretsOf } from './secrets.js'
import { rateArgument } from './sizes.js'
import { UsageError } from './usage-error.js'
import {
  commonOptions,
  jsonProgressOption,
  onlyOperand,
  progressOption,
  quietOption,
  warnIfGuessedRaw,
} from './verb.js'

const options = {
  help: commonOptions.help,
  object: commonOptions.object,
  imageOpts: commonOptions.imageOpts,
  format: { short: 'f', takesValue: true },
  cache: { short: 't', takesValue: true },
  base: { short: 'b', takesValue: true },
  rate: { short: 'r', takesValue: true },
  keep: { short: 'd', takesValue: false },
  progress: progressOption,
  jsonProgress: jsonProgressOption,
  quiet: quietOption,
} as const

/** `qcow2 commit`: what an image changes goes into its backing file. */
export async function commit(argv: readonly string[]): Promise<number> {
  const line = parseCommandLine(options, argv)
  const rate = rateArgument(line.value('rate'))
  const secrets = secretsOf(line.values('object'))
  const operand = onlyOperand(line.operands)
  const cache = cacheArgument('cache', line.value('cache'))
  const name = parseImageName(operand, { format: line.value('format'), imageOptions: line.has('imageOpts') })
  await warnIfGuessedRaw(name)
  const base = line.value('base')
  if (base === '') throw new UsageError(`Did not find '' in the backing chain of '${name.text}'`)
  const work: CommitOptions = {
    ...cache,
    ...rate,
    ...(name.format === undefined ? {} : { format: name.format }),
    ...(base === undefined ? {} : { base }),
    // As the stock tool: who names the base decides for himself what becomes of the image.
    keep: line.has('keep') || base !== undefined,
    ...(await gatesOf(name)),
    ...encryptionOf(name, secrets),
  }
  const { commitImage } = await import('../operations/commit.js')
  await metered(line, (control) => commitImage(name.path, { ...work, ...control }))
  if (!line.has('quiet')) print('Image committed.\n')
  return 0
}
