import { realpath } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { invalid } from '../base/errors.js'
import { type TargetOptions, writeTarget } from '../image/atomic-target.js'
import { besideImage, hasProtocol } from '../image/path-names.js'
import { type ImageLocation, isInMemory } from '../image/location.js'
import { writeMemoryTarget } from '../image/memory-target.js'

/** Of an image that is about to be made. */
type Names = { readonly dataFile: string | undefined; readonly backingFile: string | undefined }

/**
 * Make an image and, if it is to have one, its data file: both appear under their names when they are complete and durable, the data file first, for
 * without it the image is of no use.
 * @param location  a file in memory only where there is no data file
 * @param write     fills the files of the given names, which exist and are empty, and closes them
 * @throws ERR_EXISTS and others of writeTarget, for either file
 */
export async function writeImageTarget<T>(
  location: ImageLocation,
  names: Names,
  options: TargetOptions,
  write: (temporary: ImageLocation, temporaryDataFile: string | undefined) => Promise<T>,
): Promise<T> {
  const { dataFile } = names
  if (isInMemory(location))
    return writeMemoryTarget(location, options, (temporary) => write(temporary, undefined))
  if (dataFile === undefined)
    return writeTarget(location, options, (temporary) => write(temporary, undefined))
  return writeTarget(location, options, (temporary) =>
    writeTarget(besideImage(location, dataFile), options, (temporaryData) => write(temporary, temporaryData)),
  )
}

/**
 * Check the names of files that a new image is to refer to: they are taken as an image's references are, relative to the image.
 * @throws TypeError ERR_INVALID_OPTION  the image itself; of a data file also what is no plain path, or what the image stands on
 */
export async function checkFileNames(where: string, path: string, names: Names): Promise<void> {
  const { dataFile, backingFile } = names
  const backing = backingFile === undefined ? undefined : await fileBeside(path, backingFile)
  if (backing === (await whereItIs(resolve(path))))
    throw invalid(`${where}: an image cannot be its own backing file`, 'ERR_INVALID_OPTION')
  if (dataFile === undefined) return
  if (dataFile === '' || hasProtocol(dataFile)) {
    throw invalid(`${where}: option "dataFile" must be a plain path, not '${dataFile}'`, 'ERR_INVALID_OPTION')
  }
  await refuseOwnData(where, path, dataFile)
  if (backing === (await fileBeside(path, dataFile))) {
    throw invalid(`${where}: the backing file cannot be the data file as well`, 'ERR_INVALID_OPTION')
  }
}

/** @throws TypeError ERR_INVALID_OPTION  an image would be its own data file, and nobody could open it any more */
export async function refuseOwnData(where: string, path: string, dataFile: string): Promise<void> {
  if ((await fileBeside(path, dataFile)) === (await whereItIs(resolve(path))))
    throw invalid(`${where}: an image cannot be its own data file`, 'ERR_INVALID_OPTION')
}

const fileBeside = (path: string, name: string): Promise<string> => whereItIs(resolve(dirname(path), name))

/** The real path of a file that may not be there yet. */
async function whereItIs(path: string): Promise<string> {
  return realpath(path).catch(async () =>
    join(await realpath(dirname(path)).catch(() => dirname(path)), basename(path)),
  )
}
