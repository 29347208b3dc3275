import { stat } from 'node:fs/promises'
import type { LongWork } from '../base/abort.js'
import { notSupported } from '../base/errors.js'
import { checkOptions, enumOption, longWorkSchema } from '../base/options.js'
import { sectorSize } from '../base/units.js'
import { cacheOption, type CacheMode, type CacheOptions, defaultCache } from '../image/cache-modes.js'
import { encryptionOption } from '../image/encryption-option.js'
import { checkLocation, type ImageLocation, nameOf } from '../image/location.js'
import { openFailure } from '../image/open-failure.js'
import { type ImageFormat, imageFormats } from '../image/probe.js'
import { compactQcow2 } from '../qcow2/compact.js'
import type { Encryption } from '../qcow2/encryption.js'
import { openLocked } from './locked-file.js'

export type CompactOptions = LongWork & {
  /** Default: probed. */
  readonly format?: ImageFormat
  readonly cache?: CacheMode | CacheOptions
  readonly locking?: 'auto' | 'off'
  /** What opens an image that is encrypted by LUKS. */
  readonly encryption?: Encryption
}

/** What compacting an image has brought. Bytes. */
export type CompactedImage = {
  /** Of the file. */
  readonly lengthBefore: number
  readonly lengthAfter: number
  /** That the file takes on the host. */
  readonly allocatedBefore: number
  readonly allocatedAfter: number
  /** That were moved within the file. */
  readonly moved: number
}

/**
 * Make an image's file as small as what it holds allows, in place: what stands high in the file is moved to free clusters below, the end is cut off, and what
 * is still free is given back to the host. Disk, snapshots, bitmaps and header stay as they are. Run again, it changes nothing. Nothing that the image refers
 * to is opened. A failure, an abort or a crash leaves a whole image; at worst it leaks until this is run again.
 * @throws ERR_NOT_SUPPORTED  a raw image
 * @throws ERR_CORRUPT        the image is damaged, check and repair it first: nothing was changed
 * @throws ERR_PASSPHRASE_REQUIRED, ERR_WRONG_PASSPHRASE
 * @throws as openImage; ERR_NO_SPACE, ERR_IO; the signal's reason
 */
export async function compactImage(source: ImageLocation, options?: CompactOptions): Promise<CompactedImage> {
  const location = checkLocation('compactImage', source)
  const { format, cache, locking, encryption, signal, onProgress } = checkOptions('compactImage', options, {
    format: enumOption(imageFormats),
    cache: cacheOption,
    locking: enumOption(['auto', 'off']),
    encryption: encryptionOption,
    ...longWorkSchema,
  })
  signal?.throwIfAborted()
  const settings = {
    readOnly: false,
    forceShare: false,
    cache: cache ?? defaultCache,
    locking: locking !== 'off',
  }
  const backend = await openLocked(location, format, settings)
  if (backend === undefined)
    throw notSupported('Only qcow2 images can be compacted', { path: nameOf(location) })
  const before = await sizesOf(location)
  let moved: number
  try {
    moved = await compactQcow2(backend, { signal, onProgress, encryption }).catch((error: unknown) => {
      throw openFailure(nameOf(location), error)
    })
  } catch (error) {
    // The first failure is the one to tell.
    await backend.close().catch(() => undefined)
    throw error
  }
  await backend.close()
  const after = await sizesOf(location)
  return {
    lengthBefore: before.length,
    lengthAfter: after.length,
    allocatedBefore: before.allocated,
    allocatedAfter: after.allocated,
    moved,
  }
}

async function sizesOf(location: ImageLocation): Promise<{ length: number; allocated: number }> {
  if (typeof location !== 'string') return { length: location.length, allocated: location.heldBytes }
  const { size, blocks } = await stat(location)
  return { length: size, allocated: blocks * sectorSize }
}
