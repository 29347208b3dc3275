import { besideImage } from '../image/path-names.js'
import type { CreateOptions } from '../operations/create.js'
import type { ImageFormat } from '../image/probe.js'
import { parseCommandLine } from './command-line.js'
import {
  asksForHelp,
  formattingLine,
  type ImageSettings,
  imageShape,
  parseImageSettings,
  settingsHelp,
  sizeSetting,
} from './create-options.js'
import { storedBackingName } from './backing-name.js'
import { pathOf } from './image-name.js'
import { print } from './output.js'
import { type MeteredWork, metered } from './progress-meter.js'
import { secretsOf } from './secrets.js'
import { sizeArgument } from './sizes.js'
import { UsageError } from './usage-error.js'
import { commonOptions, jsonProgressOption, quietOption } from './verb.js'

const options = {
  help: commonOptions.help,
  object: commonOptions.object,
  format: { short: 'f', takesValue: true },
  backing: { short: 'b', takesValue: true },
  backingFormat: { short: 'F', takesValue: true },
  unsafe: { short: 'u', takesValue: false },
  settings: { short: 'o', takesValue: true },
  quiet: quietOption,
  jsonProgress: jsonProgressOption,
} as const

/** `qcow2 create`: an empty image, in place of a file that may be there. */
export async function create(argv: readonly string[]): Promise<number> {
  const line = parseCommandLine(options, argv)
  const secrets = secretsOf(line.values('object'))
  const lists = line.values('settings')
  if (asksForHelp(lists)) {
    print(settingsHelp(targetFormat(line.value('format'))))
    return 0
  }
  const [name, sizeText, extra] = line.operands
  if (name === undefined) throw new UsageError('Expecting image file name', { showHelpHint: true })
  const sizeOperand = sizeText === undefined ? undefined : sizeArgument('image size', sizeText)
  if (extra !== undefined) throw new UsageError(`Unexpected argument: ${extra}`, { showHelpHint: true })
  // From here on messages say which image they are about.
  try {
    const format = targetFormat(line.value('format'))
    const path = pathOf(name, (why) => new UsageError(why))
    const settings = parseImageSettings(format, lists)
    addBacking(name, format, settings, line.value('backing'), line.value('backingFormat'))
    storeBackingName(path, settings, line.has('unsafe'))
    if (sizeOperand !== undefined) {
      if (settings.has('size')) throw new UsageError('The image size must be specified only once')
      settings.set('size', String(sizeOperand))
    }
    await checkBacking(path, settings, line.has('unsafe'))
    const size = sizeSetting(settings)
    if (size === undefined) throw new UsageError('Image creation needs a size parameter')
    if (!line.has('quiet')) print(`${formattingLine(name, format, settings)}\n`)
    const shape = { ...imageShape(format, settings, secrets), size, unsafe: true, overwrite: true }
    await metered(line, (control) => createAt(path, shape, control))
  } catch (error) {
    throw about(name, error)
  }
  return 0
}

async function createAt(path: string, shape: CreateOptions, control: MeteredWork): Promise<void> {
  const { createImage } = await import('../operations/create.js')
  await createImage(path, { ...shape, ...control })
}

/** @throws UsageError  a format that there is not */
export function targetFormat(text: string | undefined): ImageFormat {
  const format = text ?? 'raw'
  if (format === 'raw' || format === 'qcow2') return format
  throw new UsageError(`Unknown file format '${format}'`)
}

function about(path: string, error: unknown): unknown {
  if (!(error instanceof Error) || !('code' in error || error instanceof UsageError)) return error
  return new UsageError(`${path}: ${error.message}`)
}

/** -b and -F go before what -o says. */
export function addBacking(
  path: string,
  format: ImageFormat,
  settings: ImageSettings,
  backingFile: string | undefined,
  backingFormat: string | undefined,
): void {
  if (format === 'raw' && backingFile !== undefined) {
    throw new UsageError("Backing file not supported for file format 'raw'")
  }
  if (format === 'raw' && backingFormat !== undefined) {
    throw new UsageError("Backing format not supported for file format 'raw'")
  }
  if (backingFile !== undefined) settings.set('backing_file', backingFile)
  if (backingFormat !== undefined) settings.set('backing_fmt', backingFormat)
  if (settings.get('backing_file') === '')
    throw new UsageError('Expected backing file name, got empty string')
  if (settings.get('backing_file') === path) {
    throw new UsageError('Error: Trying to create an image with the same filename as the backing file')
  }
}

/** @param unsafe  a name that nobody follows is the user's own business */
function storeBackingName(path: string, settings: ImageSettings, unsafe: boolean): void {
  const backingFile = settings.get('backing_file')
  if (backingFile === undefined) return
  try {
    settings.set('backing_file', storedBackingName(backingFile, path, settings.get('backing_fmt')))
  } catch (error) {
    if (unsafe) return
    throw new UsageError(`${(error as Error).message}\nCould not open backing image.`)
  }
}

/** A backing file must be there and be what it is said to be; the new image's size is its size, if nothing else is given. */
async function checkBacking(path: string, settings: ImageSettings, unsafe: boolean): Promise<void> {
  const backingFile = settings.get('backing_file')
  if (backingFile === undefined) return
  const backingFormat = settings.get('backing_fmt')
  const unnamed = 'Backing file specified without backing format'
  if (unsafe) {
    if (backingFormat === undefined) throw new UsageError(unnamed)
    return
  }
  if (backingFormat !== undefined && backingFormat !== 'qcow2' && backingFormat !== 'raw') {
    throw new UsageError(`Unknown driver '${backingFormat}'\nCould not open backing image.`)
  }
  const found = await lookAtBacking(besideImage(path, backingFile), backingFormat)
  if (backingFormat === undefined) throw new UsageError(`${unnamed}\nDetected format of ${found.format}.`)
  if (!settings.has('size')) settings.set('size', String(found.virtualSize))
}

async function lookAtBacking(
  path: string,
  format: ImageFormat | undefined,
): Promise<{ format: ImageFormat; virtualSize: number }> {
  const { imageInfo, imageInfoChain } = await import('../operations/info.js')
  // It is only looked at: a virtual machine may be running on it.
  const how = { forceShare: true, ...(format === undefined ? {} : { format }) }
  try {
    const found = await imageInfo(path, how)
    // An image on a chain that does not hold is of no use.
    await imageInfoChain(path, { ...how, backing: 'allow' }).catch((error: unknown) => {
      throw new UsageError(`Could not open backing file: ${(error as Error).message}`)
    })
    return found
  } catch (error) {
    throw new UsageError(`${(error as Error).message}\nCould not open backing image.`)
  }
}
