import type { ImageInfo, InfoChainOptions } from '../operations/info.js'
import { staleBitmaps } from '../qcow2/bitmap-directory.js'
import { parseCommandLine } from './command-line.js'
import { parseImageName } from './image-name.js'
import { gatesOf } from './named-files.js'
import { infoJson, infoText } from './info-report.js'
import { jsonText } from './json-text.js'
import { print } from './output.js'
import { secretsOf } from './secrets.js'
import { commonOptions, onlyOperand, report, type VerbContext, wantsJson } from './verb.js'

const options = {
  ...commonOptions,
  format: { short: 'f', long: 'format', takesValue: true },
  output: { long: 'output', takesValue: true },
  chain: { long: 'backing-chain', takesValue: false },
} as const

/** `qcow2 info`: what an image says about itself. */
export async function info(argv: readonly string[], context: VerbContext): Promise<number> {
  const line = parseCommandLine(options, argv)
  const operand = onlyOperand(line.operands)
  const json = wantsJson(line.value('output'))
  secretsOf(line.values('object'))
  const name = parseImageName(operand, { format: line.value('format'), imageOptions: line.has('imageOpts') })
  const { imageInfo, imageInfoChain } = await import('../operations/info.js')
  const how: InfoChainOptions = {
    forceShare: name.forceShare || line.has('forceShare'),
    ...(name.format === undefined ? {} : { format: name.format }),
  }
  if (line.has('chain')) {
    const { backing } = await gatesOf(name)
    const chain = await imageInfoChain(name.path, { ...how, backing })
    for (const facts of chain) warnOfStaleBitmaps(facts, context)
    print(json ? `${jsonText(chain.map(infoJson))}\n` : chain.map(infoText).join('\n'))
  } else {
    const facts: ImageInfo = await imageInfo(name.path, how)
    warnOfStaleBitmaps(facts, context)
    print(json ? `${jsonText(infoJson(facts))}\n` : infoText(facts))
  }
  return 0
}

function warnOfStaleBitmaps({ qcow2 }: ImageInfo, context: VerbContext): void {
  if (qcow2?.staleBitmaps === true) report(context, `warning: ${staleBitmaps}`)
}
