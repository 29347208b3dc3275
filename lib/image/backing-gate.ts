import { lstat, realpath } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { invalid, Qcow2Error } from '../base/errors.js'
import { enumOption } from '../base/options.js'
import { escapeName } from '../qcow2/header-extensions.js'
import type { DiskImage } from './disk-image.js'
import { besideImage, hasProtocol, isNetworkName } from './path-names.js'
import { type ImageFormat, imageFormats } from './probe.js'

/** What an image says about its backing file. Any of it may be a stranger's text. */
export type BackingReference = {
  /** The name as stored in the image. */
  readonly name: string
  /** The format as stored in the image; undefined if it says none. */
  readonly format: string | undefined
  /** The image that refers to it. */
  readonly image: string
}

/**
 * What a caller lets a reference stand for: a path (relative ones from the referring image's folder), a path and its
 * format, an image that is open already and stays the caller's to close, or undefined: denied.
 */
export type BackingAnswer =
  string | { readonly path: string; readonly format?: ImageFormat } | DiskImage | undefined

/**
 * Whether files that an image names may be opened. Opening them is a permission, never a side effect: the name may come
 * from a stranger and point at any file of this machine.
 *
 * - 'same-directory': files whose real path lies in the folder of the image that names them
 * - 'allow': any plain local path
 * - 'deny': none
 * - a function: what it answers
 */
export type BackingGate =
  | 'same-directory'
  | 'allow'
  | 'deny'
  | ((reference: BackingReference) => BackingAnswer | Promise<BackingAnswer>)

/** Deepest backing chain that is followed; longer ones are mistakes, and each level costs a file descriptor. */
export const maxBackingDepth = 200

const gateNames = enumOption(['same-directory', 'allow', 'deny'])

/** The option `backing`. */
export function backingOption(value: unknown, name: string): BackingGate {
  return typeof value === 'function' ? (value as BackingGate) : gateNames(value, name)
}

/** What to open instead of a reference. */
export type Backing =
  | { readonly type: 'file'; readonly path: string; readonly format: ImageFormat | undefined }
  | { readonly type: 'image'; readonly image: DiskImage }

/**
 * Ask the gate.
 * @throws ERR_BACKING_DENIED       it says no, or the name is no plain path
 * @throws ERR_UNSUPPORTED_FEATURE  the image says a format that is neither qcow2 nor raw
 */
export async function passGate(gate: BackingGate, reference: BackingReference): Promise<Backing> {
  if (typeof gate === 'function') return fromAnswer(await gate(reference), reference)
  if (gate === 'deny') throw denied(reference, 'backing files are not allowed here')
  if (hasProtocol(reference.name)) throw denied(reference, 'only plain paths are followed')
  const path = besideImage(reference.image, reference.name)
  const format = knownFormat(reference)
  if (gate === 'allow') return { type: 'file', path, format }
  const real = await inSameFolder(reference.image, path, {
    option: 'backing',
    denied: (why, cause) => denied(reference, why, cause),
    missing: (cause) => missing(reference, cause),
  })
  return { type: 'file', path: real, format }
}

/** What is thrown where a file is not to be followed, and where there is none. */
type Refusal = {
  /** That lets files elsewhere pass. */
  readonly option: 'backing' | 'dataFile'
  readonly denied: (why: string, cause?: unknown) => Qcow2Error
  readonly missing: (cause: unknown) => Qcow2Error
}

/**
 * Of what is not in the folder, nothing is told but that: neither whether there is such a file, nor why it could not be reached. Else the author of an image
 * could find out what files this machine has.
 * @returns the real path of a file in an image's folder, so that a link that changes now leads nowhere else
 */
export async function inSameFolder(image: string, path: string, refusal: Refusal): Promise<string> {
  const folder = await realpath(dirname(image))
  const outside = (): Qcow2Error =>
    refusal.denied(
      `it lies outside the image's folder; pass the option ${refusal.option}: 'allow' to follow it`,
    )
  const spelt = resolve(path)
  // By its name alone, before anything is looked at; a folder of another name may still be the same one.
  const isSpeltHere = dirname(spelt) === resolve(dirname(image)) || dirname(spelt) === folder
  // Looking there would tell the server who looks.
  if (!isSpeltHere && isNetworkName(spelt)) throw outside()
  // Not by way of folders elsewhere, which may be there or not.
  const real = await realpath(isSpeltHere ? spelt : path).catch(async (cause: NodeJS.ErrnoException) => {
    // What is no link leads nowhere else.
    const isHere = isSpeltHere && cause.code === 'ENOENT' && (await isNothing(spelt))
    throw isHere ? refusal.missing(cause) : outside()
  })
  if (dirname(real) === folder) return real
  throw outside()
}

/** Whether nothing has this name, not even a link that leads nowhere. */
async function isNothing(path: string): Promise<boolean> {
  return lstat(path).then(
    () => false,
    ({ code }: NodeJS.ErrnoException) => code === 'ENOENT',
  )
}

function fromAnswer(answer: BackingAnswer, reference: BackingReference): Backing {
  if (answer === undefined) throw denied(reference, 'the caller does not allow it')
  checkAnswer(answer)
  if (typeof answer === 'object' && 'readInto' in answer) return { type: 'image', image: answer }
  const { path, format }: { path: string; format?: ImageFormat } =
    typeof answer === 'string' ? { path: answer } : answer
  return {
    type: 'file',
    path: resolve(dirname(reference.image), path),
    format:
      format === undefined ? knownFormat(reference) : enumOption(imageFormats)(format, 'backing: the format'),
  }
}

/** @throws TypeError ERR_INVALID_OPTION  nothing that a reference could stand for */
function checkAnswer(answer: unknown): void {
  if (typeof answer === 'object' && answer !== null) {
    if ('readInto' in answer) return
    if ('path' in answer) answer = answer.path
  }
  if (typeof answer === 'string' && answer !== '' && !answer.includes('\0')) return
  throw invalid(
    'backing: the answer must be a path, { path, format }, an image or undefined',
    'ERR_INVALID_OPTION',
  )
}

function knownFormat({ format, image, name }: BackingReference): ImageFormat | undefined {
  if (format === undefined || format === 'qcow2' || format === 'raw') return format
  throw new Qcow2Error(
    'ERR_UNSUPPORTED_FEATURE',
    `Could not open backing file ${quote(name)}: unknown format ${quote(format)}`,
    { path: image, structure: 'backing file format' },
  )
}

export function denied(reference: BackingReference, why: string, cause?: unknown): Qcow2Error {
  const message = `Backing file ${quote(reference.name)} is not opened: ${why}`
  return new Qcow2Error('ERR_BACKING_DENIED', message, {
    path: reference.image,
    structure: 'backing file name',
    cause,
  })
}

function missing(reference: BackingReference, cause: unknown): Qcow2Error {
  const message = `Could not open backing file: Could not open ${quote(reference.name)}: No such file or directory`
  return new Qcow2Error('ERR_NOT_FOUND', message, {
    path: reference.image,
    structure: 'backing file name',
    cause,
  })
}

/** A name from an image, fit for a terminal and a log. */
const quote = (name: string): string => `'${escapeName(name)}'`
