import { resolve } from 'node:path'
import type { BackingGate } from '../image/backing-gate.js'
import type { DataFileGate } from '../image/data-file-gate.js'
import type { ImageFormat } from '../image/probe.js'
import type { ImageName } from './image-name.js'
import { UsageError } from './usage-error.js'

/** A file that a user names in the place of what an image says. */
export type NamedFile = { readonly path: string; readonly format: ImageFormat | undefined }

/** Which files may be opened for the images of a command line: those that they name themselves, since their user named them; or those named in their place. */
export type Gates = { readonly backing: BackingGate; readonly dataFile: DataFileGate }

/**
 * @throws UsageError  a file is named for an image that has no backing file, or no data file: it would not be looked at
 * @throws as imageInfo
 */
export async function gatesOf(...names: readonly ImageName[]): Promise<Gates> {
  if (names.every(({ chain, dataFile }) => chain.length === 0 && dataFile === undefined))
    return { backing: 'allow', dataFile: 'allow' }
  const { hasProtocol } = await import('../image/path-names.js')
  const backing = new Map<string, NamedFile>()
  const dataFiles = new Map<string, string>()
  for (const name of names) {
    let above = resolve(name.path)
    const refuse = (why: string): never => {
      throw new UsageError(`Could not open '${name.text}': ${why}`)
    }
    if (name.dataFile !== undefined) {
      if (!(await referencesOf(above)).dataFile)
        refuse("'data-file' can only be set for images with an external data file")
      dataFiles.set(above, resolve(name.dataFile))
    }
    for (const file of name.chain) {
      if (!(await referencesOf(above)).backing)
        refuse(`'${above}' has no backing file that could be another one`)
      backing.set(above, { ...file, path: resolve(file.path) })
      above = resolve(file.path)
    }
  }
  return {
    backing: ({ name, image }) => {
      const named = backing.get(resolve(image))
      if (named === undefined) return hasProtocol(name) ? undefined : name
      return named.format === undefined ? named.path : { path: named.path, format: named.format }
    },
    dataFile: ({ name, image }) =>
      dataFiles.get(resolve(image)) ?? (name === undefined || hasProtocol(name) ? undefined : name),
  }
}

/** Which of the two an image has. */
async function referencesOf(path: string): Promise<{ backing: boolean; dataFile: boolean }> {
  const { imageInfo } = await import('../operations/info.js')
  const { backingFile, qcow2 } = await imageInfo(path, { forceShare: true })
  return { backing: backingFile !== undefined, dataFile: qcow2?.dataFileRaw !== undefined }
}
