import type { ImageInfo } from '../operations/info.js'
import type { PreallocationMode } from '../queue/format-image.js'
import { sectorSize } from '../base/units.js'
import { parseCommandLine } from './command-line.js'
import { parseImageName } from './image-name.js'
import { gatesOf } from './named-files.js'
import { print } from './output.js'
import { metered } from './progress-meter.js'
import { encryptionOf, secretsOf } from './secrets.js'
import { exactNumber, sizeParameter } from './sizes.js'
import { UsageError } from './usage-error.js'
import { commonOptions, jsonProgressOption, quietOption, warnOfGuessedRaw, withBitmapHint } from './verb.js'

const options = {
  help: commonOptions.help,
  object: commonOptions.object,
  imageOpts: commonOptions.imageOpts,
  format: { short: 'f', takesValue: true },
  preallocation: { long: 'preallocation', takesValue: true },
  shrink: { long: 'shrink', takesValue: false },
  quiet: quietOption,
  jsonProgress: jsonProgressOption,
} as const

const preallocationModes = ['off', 'metadata', 'falloc', 'full'] as const

/** `qcow2 resize`: a larger or smaller disk. */
export async function resize(argv: readonly string[]): Promise<number> {
  // The size is the last word, whatever it looks like: -1M is no option.
  const [words, sizeText] = [argv.slice(0, -1), argv.at(-1)]
  if (sizeText === '--help' || sizeText === '-h') parseCommandLine(options, [sizeText])
  if (sizeText === undefined || words.length === 0)
    throw new UsageError('Not enough arguments', { showHelpHint: true })
  const line = parseCommandLine(options, words)
  const [operand, extra] = line.operands
  const preallocation = preallocationOf(line.value('preallocation'))
  if (operand === undefined || extra !== undefined) {
    throw new UsageError('Expecting image file name and size', { showHelpHint: true })
  }
  const secrets = secretsOf(line.values('object'))
  const change = parseChange(sizeText)
  const name = parseImageName(operand, { format: line.value('format'), imageOptions: line.has('imageOpts') })
  const { imageInfo } = await import('../operations/info.js')
  // Whoever else uses the image is told of when it is opened for writing.
  const before = await imageInfo(name.path, {
    forceShare: true,
    ...(name.format === undefined ? {} : { format: name.format }),
  })
  if (before.format === 'raw' && name.format === undefined) warnOfGuessedRaw(name.text)
  const size = newSize(before, change)
  if (size < before.virtualSize && !line.has('shrink')) {
    throw new UsageError([
      'Use the --shrink option to perform a shrink operation.',
      "warning: Shrinking an image will delete all data beyond the shrunken image's end. " +
        'Before performing such an operation, make sure there is no important data there.',
    ])
  }
  if (before.format === 'qcow2' && size % sectorSize !== 0) {
    throw new UsageError(`The new size must be a multiple of ${sectorSize}`)
  }
  if (size <= before.virtualSize && preallocation !== 'off') {
    throw new UsageError('Preallocation can only be used for growing images')
  }
  if (preallocation === 'metadata' && before.format === 'raw') {
    throw new UsageError(`Unsupported preallocation mode: ${preallocation}`)
  }
  const gates = await gatesOf(name)
  const { resizeImage } = await import('../operations/resize.js')
  await metered(line, (control) =>
    resizeImage(name.path, size, {
      format: before.format,
      shrink: line.has('shrink'),
      preallocation,
      ...gates,
      ...encryptionOf(name, secrets),
      ...control,
    }),
  ).catch((error: unknown) => {
    throw withBitmapHint(error)
  })
  if (!line.has('quiet')) print('Image resized.\n')
  return 0
}

function preallocationOf(text = 'off'): PreallocationMode {
  const mode = preallocationModes.find((name) => name === text)
  if (mode !== undefined) return mode
  throw new UsageError(`Invalid preallocation mode '${text}'`)
}

/** What the disk's size becomes: a number of bytes, or so many more or fewer. */
type Change = { readonly sign: '' | '+' | '-'; readonly bytes: bigint }

function parseChange(text: string): Change {
  const [, sign = '', size = ''] = /^([+-]?)(.*)$/s.exec(text) ?? []
  if (sign !== '' && /^\s*\+/.test(size)) sizeParameter('size', 'malformed')
  return { sign: sign as Change['sign'], bytes: sizeParameter('size', size) }
}

/** @returns bytes */
function newSize({ virtualSize }: ImageInfo, { sign, bytes }: Change): number {
  const now = BigInt(virtualSize)
  const after = sign === '' ? bytes : sign === '+' ? now + bytes : now - bytes
  if (after <= 0n || after >= 2n ** 63n) throw new UsageError('New image size must be positive')
  return exactNumber('image size', after)
}
