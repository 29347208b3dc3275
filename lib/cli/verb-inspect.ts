import { parseCommandLine } from './command-line.js'
import { parseImageName } from './image-name.js'
import { inspectJson, inspectText } from './inspect-report.js'
import { interruptible } from './interrupts.js'
import { jsonText } from './json-text.js'
import { print } from './output.js'
import { secretsOf } from './secrets.js'
import { sizeArgument } from './sizes.js'
import { UsageError } from './usage-error.js'
import { commonOptions, onlyOperand, wantsJson } from './verb.js'

const options = {
  ...commonOptions,
  output: { long: 'output', takesValue: true },
  limit: { long: 'limit', takesValue: true },
} as const

/** `qcow2 inspect`: the metadata of an image, with where it stands. The stock tool has no such verb. */
export async function inspect(argv: readonly string[]): Promise<number> {
  const line = parseCommandLine(options, argv)
  const operand = onlyOperand(line.operands)
  const json = wantsJson(line.value('output'))
  const limit = line.value('limit')
  secretsOf(line.values('object'))
  const name = parseImageName(operand, { format: undefined, imageOptions: line.has('imageOpts') })
  if (name.format === 'raw') throw new UsageError(`'${name.text}' is a raw image: it has no metadata`)
  const { inspectImage } = await import('../operations/inspect.js')
  const image = await interruptible((signal) =>
    inspectImage(name.path, {
      forceShare: name.forceShare || line.has('forceShare'),
      ...(limit === undefined ? {} : { most: sizeArgument('limit', limit) }),
      signal,
    }),
  )
  print(json ? `${jsonText(inspectJson(image))}\n` : inspectText(image))
  return 0
}
