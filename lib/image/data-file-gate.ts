import { dirname, resolve } from 'node:path'
import { invalid, Qcow2Error } from '../base/errors.js'
import { enumOption } from '../base/options.js'
import { escapeName } from '../qcow2/header-extensions.js'
import { inSameFolder } from './backing-gate.js'
import { besideImage, hasProtocol } from './path-names.js'

/** What an image says about its external data file. Any of it may be a stranger's text. */
export type DataFileReference = {
  /** The name as stored in the image; undefined if it has a data file and names none. */
  readonly name: string | undefined
  /** The image that refers to it. */
  readonly image: string
}

/**
 * Whether the external data file that an image names may be opened. It is read and written in the image's stead: a stranger's image could name any
 * file of this machine (CVE-2024-32498 was that), so that nothing is opened unless the caller says so.
 *
 * - 'deny': none
 * - 'same-directory': a file whose real path lies in the folder of the image that names it
 * - 'allow': any plain local path
 * - a function: the path that it answers, relative ones from the image's folder; undefined: denied
 */
export type DataFileGate =
  | 'deny'
  | 'same-directory'
  | 'allow'
  | ((reference: DataFileReference) => string | undefined | Promise<string | undefined>)

const gateNames = enumOption(['deny', 'same-directory', 'allow'])

/** The option `dataFile`. */
export function dataFileOption(value: unknown, name: string): DataFileGate {
  return typeof value === 'function' ? (value as DataFileGate) : gateNames(value, name)
}

/**
 * Ask the gate.
 * @returns the path to open
 * @throws ERR_DATA_FILE_DENIED  it says no, or the name is no plain path
 */
export async function passDataFileGate(gate: DataFileGate, reference: DataFileReference): Promise<string> {
  const { name, image } = reference
  if (typeof gate === 'function') return fromAnswer(await gate(reference), reference)
  if (name === undefined || name === '') {
    throw dataFileDenied(reference, "'data-file' is required for this image, which does not name it")
  }
  if (gate === 'deny') {
    throw dataFileDenied(reference, 'data files are not allowed here; see the option dataFile')
  }
  if (hasProtocol(name)) throw dataFileDenied(reference, 'only plain paths are followed')
  const path = besideImage(image, name)
  if (gate === 'allow') return path
  return await inSameFolder(image, path, {
    option: 'dataFile',
    denied: (why, cause) => dataFileDenied(reference, why, cause),
    missing: (cause) => missing(reference, cause),
  })
}

function fromAnswer(answer: unknown, reference: DataFileReference): string {
  if (answer === undefined) throw dataFileDenied(reference, 'the caller does not allow it')
  if (typeof answer !== 'string' || answer === '' || answer.includes('\0'))
    throw invalid('dataFile: the answer must be a path or undefined', 'ERR_INVALID_OPTION')
  return resolve(dirname(reference.image), answer)
}

export function dataFileDenied({ name, image }: DataFileReference, why: string, cause?: unknown): Qcow2Error {
  const what = name === undefined || name === '' ? 'The data file' : `Data file '${escapeName(name)}'`
  return new Qcow2Error('ERR_DATA_FILE_DENIED', `${what} is not opened: ${why}`, {
    path: image,
    structure: 'external data file name extension',
    cause,
  })
}

function missing({ name = '', image }: DataFileReference, cause: unknown): Qcow2Error {
  const message = `Could not open '${escapeName(name)}': No such file or directory`
  return new Qcow2Error('ERR_NOT_FOUND', message, {
    path: image,
    structure: 'external data file name extension',
    cause,
  })
}
