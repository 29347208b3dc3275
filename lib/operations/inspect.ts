import { booleanOption, checkOptions, enumOption, integerOption, signalOption } from '../base/options.js'
import { Qcow2Error } from '../base/errors.js'
import { defaultCache } from '../image/cache-modes.js'
import { checkLocation, type ImageLocation, nameOf } from '../image/location.js'
import { openFailure } from '../image/open-failure.js'
import { inspectQcow2 } from '../qcow2/inspect.js'
import type { ImageStructure } from '../qcow2/inspect-structure.js'
import { openLocked } from './locked-file.js'

export type InspectImageOptions = {
  /** Look at an image that somebody writes to: what is shown may not fit together. */
  readonly forceShare?: boolean
  readonly locking?: 'auto' | 'off'
  /** Parts of one kind that are listed, of any one table; further ones are counted. 0 to 100,000, default 1000. */
  readonly most?: number
  readonly signal?: AbortSignal
}

/** What the file of an image consists of, as far as it is metadata. */
export type InspectedImage = {
  readonly path: string
  /** Bytes. */
  readonly fileSize: number
  /** In the order in which the header names them. */
  readonly parts: readonly ImageStructure[]
}

/** Enough for whoever reads it, and for memory. */
const defaultMost = 1000
const largestMost = 100_000

/**
 * The metadata of a qcow2 image as a tree: what stands where in its file, field by field, and what it says. Nothing is written, and nothing that the image
 * names is opened. Of a damaged image each part that cannot be read says why (`problem`). Of an encrypted one no key is asked for, and no key material,
 * digest or salt is shown.
 * @throws ERR_NOT_AN_IMAGE  it is no qcow2 image
 * @throws ERR_NOT_FOUND, ERR_IMAGE_LOCKED, ... as openImage, about the file; the signal's reason
 */
export async function inspectImage(
  source: ImageLocation,
  options?: InspectImageOptions,
): Promise<InspectedImage> {
  const location = checkLocation('inspectImage', source)
  const given = checkOptions('inspectImage', options, {
    forceShare: booleanOption,
    locking: enumOption(['auto', 'off']),
    most: integerOption({ min: 0, max: largestMost }),
    signal: signalOption,
  })
  const { forceShare = false, most = defaultMost, signal } = given
  signal?.throwIfAborted()
  const path = nameOf(location)
  const backend = await openLocked(location, 'qcow2', {
    readOnly: true,
    forceShare,
    cache: defaultCache,
    locking: given.locking !== 'off',
  })
  // Only of a raw image nothing is opened.
  if (backend === undefined)
    throw new Qcow2Error('ERR_NOT_AN_IMAGE', 'Image is not in qcow2 format', { path })
  try {
    const parts = await inspectQcow2(backend, { most, signal }).catch((error: unknown) => {
      throw openFailure(path, error)
    })
    return { path, fileSize: backend.length, parts }
  } finally {
    await backend.close()
  }
}
