import type { DiskImage } from '../image/disk-image.js'
import { escapeName } from '../qcow2/header-extensions.js'
import { type CommandLine, parseCommandLine } from './command-line.js'
import { type ImageName, parseImageName } from './image-name.js'
import { gatesOf } from './named-files.js'
import { encryptionOf, type Secrets, secretsOf } from './secrets.js'
import { parseSize } from './sizes.js'
import { UsageError } from './usage-error.js'
import { commonOptions, warnOfGuessedRaw, withBitmapHint } from './verb.js'

const { help, object, imageOpts } = commonOptions
const actionNames = ['add', 'remove', 'clear', 'enable', 'disable', 'merge'] as const
type ActionName = (typeof actionNames)[number]

const options = {
  help,
  object,
  imageOpts,
  format: { short: 'f', takesValue: true },
  sourceFile: { short: 'b', long: 'source-file', takesValue: true },
  sourceFormat: { short: 'F', long: 'source-format', takesValue: true },
  granularity: { short: 'g', long: 'granularity', takesValue: true },
  add: { long: 'add', takesValue: false },
  remove: { long: 'remove', takesValue: false },
  clear: { long: 'clear', takesValue: false },
  enable: { long: 'enable', takesValue: false },
  disable: { long: 'disable', takesValue: false },
  merge: { long: 'merge', takesValue: true },
} as const

type Line = CommandLine<keyof typeof options>

/** What to do, in the order in which it was given. */
type Action = { readonly kind: ActionName; readonly value: string }

/** `qcow2 bitmap`: add, remove, clear, enable, disable and merge persistent dirty bitmaps. */
export async function bitmap(argv: readonly string[]): Promise<number> {
  const line = parseCommandLine(options, argv)
  const granularity = granularityOf(line)
  const actions = actionsOf(line)
  if (actions.length === 0) {
    throw new UsageError('Need at least one of --add, --remove, --clear, --enable, --disable, or --merge')
  }
  checkTogether(line)
  const [operand, name] = line.operands
  if (operand === undefined || name === undefined || line.operands.length > 2) {
    throw new UsageError('Expecting filename and bitmap name')
  }
  const secrets = secretsOf(line.values('object'))
  const file = parseImageName(operand, {
    format: line.value('format'),
    imageOptions: line.has('imageOpts'),
  })
  const image = await open(file, secrets, false)
  try {
    if (image.format === 'raw' && file.format === undefined) warnOfGuessedRaw(file.text)
    const source = await openSource(line, secrets)
    try {
      for (const action of actions) await perform(image, name, action, { granularity, source })
    } finally {
      await source?.close()
    }
  } finally {
    await image.close()
  }
  return 0
}

function actionsOf(line: Line): Action[] {
  const isAction = (name: string): name is ActionName => actionNames.some((known) => known === name)
  return line.sequence.flatMap(({ name, value }) => (isAction(name) ? [{ kind: name, value }] : []))
}

/** @returns undefined: the default, as for 0 */
function granularityOf(line: Line): number | undefined {
  const text = line.value('granularity')
  if (text === undefined) return undefined
  const size = parseSize(text)
  if (size.type === 'size') return size.bytes === 0n ? undefined : Number(size.bytes)
  if (size.type === 'too large') {
    throw new UsageError(`Invalid granularity specified. Must be between 0 and ${2n ** 63n - 1n}.`)
  }
  throw new UsageError([
    'Invalid granularity specified. You may use k, M, G, T, P or E suffixes for',
    'kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.',
  ])
}

/** @throws UsageError  options that do not go together */
function checkTogether(line: Line): void {
  if (line.has('granularity') && !line.has('add'))
    throw new UsageError('granularity only supported with --add')
  if (line.has('sourceFormat') && !line.has('sourceFile')) throw new UsageError('-F only supported with -b')
  if (line.has('sourceFile') && !line.has('merge'))
    throw new UsageError('Merge bitmap source file only supported with --merge')
}

async function open(name: ImageName, secrets: Secrets, readOnly: boolean): Promise<DiskImage> {
  const { openImage } = await import('../image/open.js')
  const format = name.format === undefined ? {} : { format: name.format }
  return openImage(name.path, {
    readOnly,
    ...format,
    ...encryptionOf(name, secrets),
    ...(await gatesOf(name)),
  })
}

async function openSource(line: Line, secrets: Secrets): Promise<DiskImage | undefined> {
  const text = line.value('sourceFile')
  if (text === undefined) return undefined
  const name = parseImageName(text, { format: line.value('sourceFormat'), imageOptions: false })
  return open(name, secrets, true)
}

async function perform(
  image: DiskImage,
  name: string,
  { kind, value }: Action,
  given: { readonly granularity: number | undefined; readonly source: DiskImage | undefined },
): Promise<void> {
  const { bitmaps } = image
  try {
    switch (kind) {
      case 'add': {
        const { granularity } = given
        await bitmaps.add(name, granularity === undefined ? {} : { granularity })
        return
      }
      case 'merge':
        await bitmaps.merge(name, [given.source === undefined ? value : { image: given.source, name: value }])
        return
      case 'remove':
      case 'clear':
      case 'enable':
      case 'disable':
        await bitmaps[kind](name)
    }
  } catch (error) {
    const why = whyNot(image, kind === 'merge' ? [name, value] : [name], kind, error as Error)
    throw new UsageError(`Operation ${kind} on bitmap ${escapeName(name)} failed: ${why}`)
  }
}

/** In the words of the stock tool, where it has others. */
function whyNot(
  image: DiskImage,
  names: readonly string[],
  kind: ActionName,
  error: Error & { code?: unknown },
): string {
  const { code, message } = error
  if (code === 'ERR_BITMAP_INCONSISTENT') {
    return (withBitmapHint(error) as Error).message
  }
  if (code === 'ERR_OUT_OF_RANGE' && kind === 'add') {
    return message.includes('name')
      ? `Can't make bitmap '${escapeName(names[0] ?? '')}' persistent in '${image.path}': Name length exceeds maximum (1023 characters)`
      : 'Granularity must be power of 2 and at least 512'
  }
  if (code === 'ERR_NOT_SUPPORTED' && image.format === 'raw') {
    return kind === 'add'
      ? `Can't store persistent bitmaps to ${image.path}: Operation not supported`
      : `Dirty bitmap '${escapeName(names[0] ?? '')}' not found`
  }
  if (code === 'ERR_NOT_SUPPORTED' && kind === 'merge' && message.startsWith('A raw image')) {
    return `Dirty bitmap '${escapeName(names[1] ?? '')}' not found`
  }
  return message
}
