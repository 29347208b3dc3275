import type { LongWork } from '../base/abort.js'
import { invalid, outOfRange } from '../base/errors.js'
import { booleanOption, checkOptions, checkPath, enumOption, longWorkSchema } from '../base/options.js'
import { type BackingGate, backingOption } from '../image/backing-gate.js'
import { type DataFileGate, dataFileOption } from '../image/data-file-gate.js'
import { cacheOption, type CacheMode, type CacheOptions, cacheOptionsOf } from '../image/cache-modes.js'
import { encryptionOption } from '../image/encryption-option.js'
import { openImage } from '../image/open.js'
import { type ImageFormat, imageFormats } from '../image/probe.js'
import type { Encryption } from '../qcow2/encryption.js'
import type { PreallocationMode } from '../queue/format-image.js'

export type ResizeOptions = LongWork & {
  /** Default: probed. */
  readonly format?: ImageFormat
  /** Must be true to make the disk smaller: the bytes beyond are lost. */
  readonly shrink?: boolean
  /** Of what the disk grows by. Default 'off'. */
  readonly preallocation?: PreallocationMode
  readonly cache?: CacheMode | CacheOptions
  /** Which backing files are opened. Default 'same-directory'. */
  readonly backing?: BackingGate
  /** Whether external data files may be opened. Default 'deny'. */
  readonly dataFile?: DataFileGate
  readonly locking?: 'auto' | 'off'
  /** What opens the images of the chain that are encrypted. */
  readonly encryption?: Encryption
}

/**
 * Change the size of an image's disk. New bytes read as zeros.
 * @param size  bytes, as for DiskImage.resize; or by how many bytes it grows (negative: shrinks)
 * @returns the sizes before and after, in bytes
 * @throws as openImage and DiskImage.resize; the signal's reason: then the size is the old one
 */
export async function resizeImage(
  path: string,
  size: number | { readonly by: number },
  options?: ResizeOptions,
): Promise<{ before: number; after: number }> {
  checkPath('resizeImage', path)
  const {
    shrink = false,
    preallocation = 'off',
    onProgress,
    ...given
  } = checkOptions('resizeImage', options, {
    format: enumOption(imageFormats),
    shrink: booleanOption,
    preallocation: enumOption(['off', 'metadata', 'falloc', 'full']),
    cache: cacheOption,
    backing: backingOption,
    dataFile: dataFileOption,
    locking: enumOption(['auto', 'off']),
    encryption: encryptionOption,
    ...longWorkSchema,
  })
  const { cache, ...rest } = given
  const image = await openImage(path, {
    ...rest,
    ...(cache === undefined ? {} : { cache: cacheOptionsOf(cache) }),
  })
  try {
    const before = image.size
    await image.resize(newSize(before, size), { shrink, preallocation, onProgress, signal: given.signal })
    return { before, after: image.size }
  } finally {
    await image.close()
  }
}

function newSize(before: number, size: number | { readonly by: number }): number {
  if (typeof size === 'number') return size
  const by: unknown = typeof size === 'object' && size !== null ? size.by : undefined
  if (typeof by !== 'number')
    throw invalid('resizeImage: the size must be a number of bytes or { by: bytes }')
  if (before + by < 0)
    throw outOfRange(`resizeImage: the disk has ${before} bytes, fewer than the ${-by} to take away`)
  return before + by
}
