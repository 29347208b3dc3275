import { booleanOption, checkOptions, enumOption, integerOption, signalOption } from '../base/options.js'
import { type BackingGate, backingOption } from '../image/backing-gate.js'
import { type DataFileGate, dataFileOption } from '../image/data-file-gate.js'
import { DiskImage } from '../image/disk-image.js'
import type { Extent } from '../image/layers.js'
import { encryptionOption } from '../image/encryption-option.js'
import { checkLocation, type ImageLocation, nameOf } from '../image/location.js'
import { openImage } from '../image/open.js'
import { type ImageFormat, imageFormats } from '../image/probe.js'
import type { Encryption } from '../qcow2/encryption.js'

export type MapOptions = {
  /** Default: probed. */
  readonly format?: ImageFormat
  /** Which backing files are looked at. Default 'same-directory'. */
  readonly backing?: BackingGate
  /** Whether external data files may be opened. Default 'deny'. */
  readonly dataFile?: DataFileGate
  readonly forceShare?: boolean
  /** Guest bytes: where to begin. */
  readonly offset?: number
  /** Guest bytes: how far; default: to the end. */
  readonly length?: number
  readonly locking?: 'auto' | 'off'
  /** What opens the images of the chain that are encrypted. */
  readonly encryption?: Encryption
  readonly signal?: AbortSignal
}

/** A run of the guest's disk, and the file of the layer that says what it is: that of the bytes, where they are in a data file. */
export type MapEntry = Extent & { readonly file: string }

export const mapSchema = {
  format: enumOption(imageFormats),
  backing: backingOption,
  dataFile: dataFileOption,
  forceShare: booleanOption,
  offset: integerOption({ min: 0 }),
  length: integerOption({ min: 0 }),
  locking: enumOption(['auto', 'off']),
  encryption: encryptionOption,
  signal: signalOption,
}

/** Of each layer the file that holds its bytes. */
export function filesOf(image: DiskImage): string[] {
  return DiskImage.layersOf(image).map(({ backend, dataFile }) => (dataFile?.backend ?? backend).path)
}

/**
 * How a disk is stored, through all backing files: runs in order, without gaps.
 * @throws as openImage; RangeError ERR_OUT_OF_RANGE
 */
export async function* mapImage(
  source: ImageLocation,
  options?: MapOptions,
): AsyncGenerator<MapEntry, void, undefined> {
  const location = checkLocation('mapImage', source)
  const { offset, length, ...given } = checkOptions('mapImage', options, mapSchema)
  const image = await openImage(location, { readOnly: true, ...given })
  try {
    const files = filesOf(image)
    const range = { ...(offset === undefined ? {} : { offset }), ...(length === undefined ? {} : { length }) }
    for await (const extent of image.extents(range)) {
      given.signal?.throwIfAborted()
      yield { ...extent, file: files[extent.depth] ?? nameOf(location) }
    }
  } finally {
    await image.close()
  }
}
