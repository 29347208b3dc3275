import type { CompactedImage } from '../operations/compact.js'
import { parseCommandLine } from './command-line.js'
import { parseImageName } from './image-name.js'
import { jsonText } from './json-text.js'
import { print } from './output.js'
import { metered } from './progress-meter.js'
import { encryptionOf, secretsOf } from './secrets.js'
import { formatSize } from '../base/size-text.js'
import {
  commonOptions,
  jsonProgressOption,
  onlyOperand,
  progressOption,
  quietOption,
  wantsJson,
} from './verb.js'

const options = {
  help: commonOptions.help,
  object: commonOptions.object,
  imageOpts: commonOptions.imageOpts,
  format: { short: 'f', long: 'format', takesValue: true },
  output: { long: 'output', takesValue: true },
  progress: progressOption,
  jsonProgress: jsonProgressOption,
  quiet: quietOption,
} as const

/** `qcow2 compact`: the file as small as what it holds allows. The stock tool has no such verb. */
export async function compact(argv: readonly string[]): Promise<number> {
  const line = parseCommandLine(options, argv)
  const operand = onlyOperand(line.operands)
  const json = wantsJson(line.value('output'))
  const secrets = secretsOf(line.values('object'))
  const name = parseImageName(operand, { format: line.value('format'), imageOptions: line.has('imageOpts') })
  const { compactImage } = await import('../operations/compact.js')
  const outcome = await metered(line, (control) =>
    compactImage(name.path, {
      ...(name.format === undefined ? {} : { format: name.format }),
      ...encryptionOf(name, secrets),
      ...control,
    }),
  )
  if (!line.has('quiet'))
    print(json ? `${jsonText(compactJson(name.path, outcome))}\n` : compactText(outcome))
  return 0
}

function compactText({ lengthBefore, lengthAfter, allocatedBefore, allocatedAfter }: CompactedImage): string {
  // Blocks of the file system's own may have come meanwhile.
  const back = Math.max(0, allocatedBefore - allocatedAfter)
  const lengths = `file ${formatSize(lengthBefore)} -> ${formatSize(lengthAfter)}`
  const disk = `on disk ${formatSize(allocatedBefore)} -> ${formatSize(allocatedAfter)}`
  return `Image compacted: ${back} bytes given back (${lengths}, ${disk}).\n`
}

function compactJson(filename: string, outcome: CompactedImage): Record<string, string | number> {
  return {
    filename,
    'file-size-before': outcome.lengthBefore,
    'file-size-after': outcome.lengthAfter,
    'actual-size-before': outcome.allocatedBefore,
    'actual-size-after': outcome.allocatedAfter,
    'bytes-moved': outcome.moved,
  }
}
