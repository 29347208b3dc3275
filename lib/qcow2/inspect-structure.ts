import { Qcow2Error } from '../base/errors.js'
import type { Layout, Field } from '../base/layout.js'
import { escapeName, textUpToNul } from './header-extensions.js'

/** A part of an image's metadata: what it is, where it stands, and what it says. */
export type ImageStructure = {
  /** In the words of the qcow2 specification: 'header', 'header field', 'L1 table', 'refcount block', ... */
  readonly structure: string
  /** Which one: the name of a field, of a snapshot, of a bitmap. A stranger's text is escaped. */
  readonly name?: string
  /** Which one of a table that refers to several. */
  readonly index?: number
  /** First byte in the file. Absent where the image says that it is at or past 2^53, where no file reaches. */
  readonly offset?: number
  /** Bytes, as the image says; the file may end before. */
  readonly length?: number
  /** As stored: a number, a bigint from 2^53 on; or text, escaped. */
  readonly value?: number | bigint | string
  /** What the value, or the place in a table, stands for. For people. */
  readonly meaning?: string
  /** How many entries of each kind a table has. */
  readonly counts?: Readonly<Record<string, number>>
  /** What is wrong with it, or why it, or a part of it, was not read. */
  readonly problem?: string
  /** Parts that there are beside those in `parts`. */
  readonly notShown?: number
  readonly parts?: readonly ImageStructure[]
}

/** Longest text that is shown, bytes: that of a data file's name. What is longer is cut. */
const longestText = 4096

/** The unsigned number in `width` bytes, 1 to 8; a bigint from 2^53 on. */
export function numberAt(bytes: Uint8Array, at: number, width: number): number | bigint {
  let value = 0n
  for (let index = 0; index < width; index++) value = (value << 8n) | BigInt(bytes[at + index] ?? 0)
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value
}

/** The fields of a structure by their names in the code; longer ones than 8 bytes are no numbers and left out. */
export function numbersOf<const F extends Field>(
  layout: Layout<F>,
  bytes: Uint8Array,
  at: number,
): { readonly [N in F[0]]: number | bigint } {
  const numbers = {} as { [N in F[0]]: number | bigint }
  for (const [name, width] of Object.entries(layout.widths) as [F[0], number][]) {
    if (width <= 8) numbers[name] = numberAt(bytes, at + layout.offsets[name], width)
  }
  return numbers
}

/** How a structure's fields are shown. */
export type FieldWords<F extends Field> = {
  /** By the names in the code: those of the specification. */
  readonly names: { readonly [N in F[0]]: string }
  readonly meanings?: { readonly [N in F[0]]?: (value: number | bigint) => string | undefined }
  /** Fields that hold text up to a NUL. Other fields of more than 8 bytes are shown without a value. */
  readonly texts?: readonly F[0][]
}

/**
 * One part for each field of a structure, as far as its bytes reach.
 * @param at          where the structure begins in `bytes`
 * @param fileOffset  and in the file
 */
export function fieldsOf<const F extends Field>(
  kind: string,
  layout: Layout<F>,
  words: FieldWords<F>,
  bytes: Uint8Array,
  at: number,
  fileOffset: number,
): ImageStructure[] {
  const found: ImageStructure[] = []
  for (const [name, length] of Object.entries(layout.widths) as [F[0], number][]) {
    const within = layout.offsets[name]
    if (at + within + length > bytes.length) break
    const place = { structure: kind, name: words.names[name], offset: fileOffset + within, length }
    if (words.texts?.includes(name) === true) {
      found.push({ ...place, value: paddedText(bytes.subarray(at + within, at + within + length)) })
    } else if (length > 8) found.push(place)
    else {
      const value = numberAt(bytes, at + within, length)
      const meaning = words.meanings?.[name]?.(value)
      found.push({ ...place, value, ...(meaning === undefined ? {} : { meaning }) })
    }
  }
  return found
}

/** Text in a field of fixed length, up to its first NUL: safe to print. */
function paddedText(bytes: Uint8Array): string {
  return escapeName(textUpToNul(bytes))
}

/** A stranger's text, all of its bytes: safe to print, and not endless. What is no UTF-8 is replaced. */
export function shownText(bytes: Uint8Array): string {
  const text = escapeName(Buffer.from(bytes.subarray(0, longestText)).toString('utf8'))
  return bytes.length > longestText ? `${text}... (${bytes.length} bytes)` : text
}

/** Why something could not be read. @throws what is no error of a file or an image */
export function reasonOf(error: unknown): string {
  if (error instanceof Qcow2Error) return error.message
  throw error
}

/** The problems there are, as one text, in the form of a part. */
export function problemOf(...problems: readonly (string | undefined)[]): { readonly problem?: string } {
  const found = problems.filter((problem) => problem !== undefined)
  return found.length === 0 ? {} : { problem: found.join('; ') }
}
