import type { RebaseOptions } from '../operations/rebase.js'
import { storedBackingName } from './backing-name.js'
import { cacheArgument, sourceCacheArgument } from './cache-argument.js'
import { parseCommandLine } from './command-line.js'
import { parseImageName } from './image-name.js'
import { gatesOf } from './named-files.js'
import { metered } from './progress-meter.js'
import { encryptionOf, secretsOf } from './secrets.js'
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
  ...commonOptions,
  format: { short: 'f', takesValue: true },
  backing: { short: 'b', takesValue: true },
  backingFormat: { short: 'F', takesValue: true },
  unsafe: { short: 'u', takesValue: false },
  cache: { short: 't', takesValue: true },
  sourceCache: { short: 'T', takesValue: true },
  progress: progressOption,
  jsonProgress: jsonProgressOption,
  quiet: quietOption,
} as const

/** `qcow2 rebase`: another backing file, or none. */
export async function rebase(argv: readonly string[]): Promise<number> {
  const line = parseCommandLine(options, argv)
  const operand = onlyOperand(line.operands)
  const unsafe = line.has('unsafe')
  const backing = line.value('backing')
  if (backing === undefined && !unsafe) {
    throw new UsageError('Must specify backing file (-b) or use unsafe mode (-u)', { showHelpHint: true })
  }
  const secrets = secretsOf(line.values('object'))
  const caches = {
    ...cacheArgument('cache', line.value('cache')),
    ...sourceCacheArgument(line.value('sourceCache')),
  }
  const name = parseImageName(operand, { format: line.value('format'), imageOptions: line.has('imageOpts') })
  await warnIfGuessedRaw(name)
  const work: RebaseOptions = {
    ...caches,
    ...(name.format === undefined ? {} : { format: name.format }),
    ...newBacking(name.path, backing, line.value('backingFormat'), unsafe),
    unsafe,
    forceShare: line.has('forceShare'),
    ...(await gatesOf(name)),
    ...encryptionOf(name, secrets),
  }
  const { rebaseImage } = await import('../operations/rebase.js')
  await metered(line, (control) => rebaseImage(name.path, { ...work, ...control }))
  return 0
}

/** @throws UsageError  a format that there is not, or none */
function newBacking(
  image: string,
  file: string | undefined,
  format: string | undefined,
  unsafe: boolean,
): Pick<RebaseOptions, 'backingFile' | 'backingFormat'> {
  if (format !== undefined && format !== 'qcow2' && format !== 'raw') {
    throw new UsageError(`Invalid format name: '${format}'`)
  }
  if (file === undefined || file === '') return { backingFile: null }
  if (format !== undefined) {
    // A name that nobody follows is the user's own business.
    const isStoredAsGiven = unsafe && !/^(file|json):/.test(file)
    return {
      backingFile: isStoredAsGiven ? file : storedBackingName(file, image, format),
      backingFormat: format,
    }
  }
  throw new UsageError(`Could not change the backing file to '${file}': backing format must be specified`)
}
