import type { InspectedImage } from '../operations/inspect.js'
import { escapeName } from '../qcow2/header-extensions.js'
import type { ImageStructure } from '../qcow2/inspect-structure.js'
import type { Json } from './json-text.js'

/** The tree for people: a line for each part, with its first byte, its last, and how many it has; newlines included. */
export function inspectText(image: InspectedImage): string {
  const digits = Math.max(8, image.fileSize.toString(16).length)
  const lines = [`image: ${escapeName(image.path)}`, `file size: ${image.fileSize} bytes`, '']
  for (const part of image.parts) addPart(lines, part, 0, digits)
  return lines.map((line) => `${line}\n`).join('')
}

function addPart(lines: string[], part: ImageStructure, depth: number, digits: number): void {
  const indent = '  '.repeat(depth)
  lines.push(`${rangeText(part, digits)}  ${indent}${describe(part)}`)
  const blank = ' '.repeat(rangeText({ structure: '' }, digits).length)
  if (part.problem !== undefined) lines.push(`${blank}  ${indent}! ${escapeName(part.problem)}`)
  for (const inner of part.parts ?? []) addPart(lines, inner, depth + 1, digits)
  if (part.notShown !== undefined) lines.push(`${blank}  ${indent}  (${part.notShown} more are not shown)`)
}

/** Columns of the offsets and of the length. */
const lengthWidth = 10

function rangeText({ offset, length }: ImageStructure, digits: number): string {
  const hexadecimal = (value: number): string => `0x${value.toString(16).padStart(digits, '0')}`
  const first = offset === undefined ? ''.padEnd(digits + 2) : hexadecimal(offset)
  const hasEnd = offset !== undefined && length !== undefined && length > 0
  const end = hasEnd ? `-${hexadecimal(offset + length - 1)}` : ''.padEnd(digits + 3)
  return `${first}${end}${(length === undefined ? '' : String(length)).padStart(lengthWidth)}`
}

/** Parts that the specification names, not the image. */
const ourNames = new Set(['header extension'])

function describe(part: ImageStructure): string {
  const { structure, name, index, value, meaning, counts } = part
  // A field is called by its name alone: what it is a field of stands above.
  const isField = structure.endsWith(' field')
  const words = [isField ? (name ?? structure) : structure]
  if (index !== undefined) words.push(String(index))
  if (!isField && name !== undefined) words.push(ourNames.has(structure) ? `(${name})` : quoted(name))
  // Beside a value it tells what that means, alone what the part is there for.
  if (value === undefined && meaning !== undefined) words.push(`(${meaning})`)
  const numbers = Object.entries(counts ?? {}).map(([what, count]) => `${count} ${what}`)
  const rest = [
    ...(value === undefined ? [] : [valueText(name ?? '', value)]),
    ...(value === undefined || meaning === undefined ? [] : [`(${meaning})`]),
    ...(numbers.length === 0 ? [] : [numbers.join(', ')]),
  ]
  return rest.length === 0 ? words.join(' ') : `${words.join(' ')}: ${rest.join(' ')}`
}

/** Places and sets of bits are told in base 16, counts in base 10, text in quotes. */
function valueText(name: string, value: number | bigint | string): string {
  if (typeof value === 'string') return quoted(value)
  return /(offset|features|^magic|^type|^flags)$/.test(name) ? `0x${value.toString(16)}` : String(value)
}

/** Control characters are escaped already. */
function quoted(text: string): string {
  return `"${text.replace(/["\\]/g, '\\$&')}"`
}

/** The tree of `inspect --output=json`. Numbers of 64 bits stand there with all their digits. */
export function inspectJson({ path, fileSize, parts }: InspectedImage): Json {
  return { filename: path, format: 'qcow2', 'file-size': fileSize, parts: parts.map(partJson) }
}

function partJson({ notShown, parts, counts, ...plain }: ImageStructure): Json {
  return {
    ...plain,
    counts: counts === undefined ? undefined : { ...counts },
    'not-shown': notShown,
    parts: parts?.map(partJson),
  }
}
