import { isAbsolute } from 'node:path'
import { notSupported } from '../base/errors.js'
import { checkPath } from '../base/options.js'
import type { MemoryFile } from '../queue/memory-file.js'
import { type BackingGate, denied } from './backing-gate.js'
import { type DataFileGate, dataFileDenied } from './data-file-gate.js'

/** Where an image is: in the file of a path, or in memory. */
export type ImageLocation = string | MemoryFile

/** The place of an image, as an operation is given it. @throws TypeError ERR_INVALID_OPTION  neither a path nor a file in memory */
export function checkLocation(where: string, location: unknown): ImageLocation {
  return isInMemory(location) ? location : checkPath(where, location)
}

/** Not by its class, which would be loaded by everybody who only has paths. */
export function isInMemory(location: unknown): location is MemoryFile {
  return typeof location === 'object' && location !== null && 'openBackend' in location
}

/** What an image is called in messages. */
export function nameOf(location: ImageLocation): string {
  return typeof location === 'string' ? location : location.name
}

const noFolder = 'the image is in memory, so that there is no folder for a relative name'

/** What a gate means for an image in memory: beside it there is nothing. */
export function gateOfMemory(gate: BackingGate): BackingGate {
  if (typeof gate === 'function' || gate === 'deny') return gate
  return (reference) => {
    if (gate === 'allow' && isAbsolute(reference.name)) return reference.name
    throw denied(reference, noFolder)
  }
}

/** The same of an external data file, which could not be kept in step with memory. */
export function dataGateOfMemory(gate: DataFileGate): DataFileGate {
  if (gate === 'deny') return gate
  return (reference) => {
    throw dataFileDenied(reference, 'the image is in memory, its data would not be')
  }
}

/**
 * What a new image cannot have in memory.
 * @param given  `unsafe`: the backing file is not looked at
 * @throws ERR_NOT_SUPPORTED
 */
export function checkForMemory(
  where: string,
  given: { readonly dataFile?: string; readonly backingFile?: string; readonly unsafe?: boolean },
): void {
  if (given.dataFile !== undefined) {
    throw notSupported(`${where}: an image in memory cannot have an external data file`)
  }
  if (given.backingFile !== undefined && given.unsafe !== true && !isAbsolute(given.backingFile)) {
    throw notSupported(`${where}: the backing file '${given.backingFile}' cannot be found: ${noFolder}`)
  }
}
