import type { MapEntry, MapOptions } from '../operations/map.js'
import { escapeName } from '../qcow2/header-extensions.js'
import { parseCommandLine } from './command-line.js'
import { parseImageName } from './image-name.js'
import { gatesOf } from './named-files.js'
import { print } from './output.js'
import { encryptionOf, secretsOf } from './secrets.js'
import { sizeArgument } from './sizes.js'
import { UsageError } from './usage-error.js'
import { commonOptions, onlyOperand, wantsJson } from './verb.js'

const options = {
  ...commonOptions,
  format: { short: 'f', long: 'format', takesValue: true },
  output: { long: 'output', takesValue: true },
  start: { short: 's', long: 'start-offset', takesValue: true },
  length: { short: 'l', long: 'max-length', takesValue: true },
  svg: { long: 'svg', takesValue: true, whole: true },
} as const

/** Text is handed over in pieces of about this many characters: maps of large images have millions of lines. */
const chunkCharacters = 64 * 1024

/** `qcow2 map`: which bytes of the guest's disk are where. */
export async function map(argv: readonly string[]): Promise<number> {
  const line = parseCommandLine(options, argv)
  const start = sizeOption('start offset', line.value('start')) ?? 0
  const length = sizeOption('max length', line.value('length')) ?? Number.MAX_SAFE_INTEGER
  const operand = onlyOperand(line.operands)
  const json = wantsJson(line.value('output'))
  const secrets = secretsOf(line.values('object'))
  const name = parseImageName(operand, { format: line.value('format'), imageOptions: line.has('imageOpts') })
  const how: MapOptions = {
    ...(await gatesOf(name)),
    ...encryptionOf(name, secrets),
    forceShare: name.forceShare || line.has('forceShare'),
    ...(name.format === undefined ? {} : { format: name.format }),
  }
  const picture = line.value('svg')
  if (picture !== undefined) {
    if (line.has('output')) throw new UsageError('--svg and --output cannot be used at the same time')
    const { writePicture } = await import('./map-picture.js')
    await writePicture(picture, name.path, { ...how, offset: start, length })
    return 0
  }
  const { mapImage } = await import('../operations/map.js')
  const entries = clipped(mapImage, name.path, how, start, length)
  await printPieces(json ? jsonPieces(entries, start) : textPieces(entries))
  return 0
}

function sizeOption(what: string, text: string | undefined): number | undefined {
  return text === undefined ? undefined : sizeArgument(what, text)
}

type Mapper = (path: string, options: MapOptions) => AsyncIterable<MapEntry>

/** The entries of a range, which may begin or end anywhere: what lies beyond the disk is no error here. */
async function* clipped(
  mapImage: Mapper,
  path: string,
  how: MapOptions,
  start: number,
  length: number,
): AsyncGenerator<MapEntry, void, undefined> {
  const end = Math.min(start + length, Number.MAX_SAFE_INTEGER)
  try {
    for await (const entry of mapImage(path, { ...how, offset: start })) {
      if (entry.offset >= end) return
      yield { ...entry, length: Math.min(entry.length, end - entry.offset) }
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
  }
}

async function printPieces(pieces: AsyncIterable<string>): Promise<void> {
  let chunk = ''
  try {
    for await (const piece of pieces) {
      chunk += piece
      if (chunk.length < chunkCharacters) continue
      print(chunk)
      chunk = ''
    }
  } finally {
    if (chunk !== '') print(chunk)
  }
}

async function* jsonPieces(
  entries: AsyncIterable<MapEntry>,
  start: number,
): AsyncGenerator<string, void, undefined> {
  let count = 0
  for await (const entry of entries) yield `${count++ === 0 ? '[' : ',\n'}${jsonRow(entry)}`
  if (count === 0)
    yield `[${jsonRow({ offset: start, length: 0, depth: 0, allocated: false, zero: false, data: false })}`
  yield ']\n'
}

function jsonRow(
  entry: Pick<MapEntry, 'offset' | 'length' | 'depth' | 'allocated' | 'zero' | 'data' | 'hostOffset'>,
): string {
  const { offset, length, depth, allocated, zero, data, hostOffset } = entry
  const where = hostOffset === undefined ? '' : `, "offset": ${hostOffset}`
  return (
    `{ "start": ${offset}, "length": ${length}, "depth": ${depth}, ` +
    `"present": ${allocated}, "zero": ${zero}, "data": ${data}${where}}`
  )
}

const textRow = (offset: string, length: string, host: string, file: string): string =>
  `${offset.padEnd(16)}${length.padEnd(16)}${host.padEnd(16)}${file}\n`

/** printf's %#x */
const hexadecimal = (value: number): string => (value === 0 ? '0' : `0x${value.toString(16)}`)

async function* textPieces(entries: AsyncIterable<MapEntry>): AsyncGenerator<string, void, undefined> {
  const header = textRow('Offset', 'Length', 'Mapped to', 'File')
  let begun = false
  for await (const entry of entries) {
    // Not before the image has been opened: a message that it could not be stands alone.
    if (!begun) yield header
    begun = true
    if (!entry.data || entry.zero) continue
    if (entry.hostOffset === undefined) {
      throw new UsageError('File contains external, encrypted or compressed clusters.')
    }
    const numbers = [entry.offset, entry.length, entry.hostOffset].map(hexadecimal) as [
      string,
      string,
      string,
    ]
    yield textRow(...numbers, escapeName(entry.file))
  }
  if (!begun) yield header
}
