import { stat } from 'node:fs/promises'
import type { LongWork } from '../base/abort.js'
import { notSupported } from '../base/errors.js'
import { checkOptions, checkPath, enumOption, longWorkSchema } from '../base/options.js'
import { sectorSize } from '../base/units.js'
import { cacheOption, type CacheMode, type CacheOptions, defaultCache } from '../image/cache-modes.js'
import { encryptionOption } from '../image/encryption-option.js'
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
export async function compactImage(path: string, options?: CompactOptions): Promise<CompactedImage> {
  checkPath('compactImage', path)
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
  const backend = await openLocked(path, format, settings)
  if (backend === undefined) throw notSupported('Only qcow2 images can be compacted', { path })
  const before = await sizesOf(path)
  let moved: number
  try {
    moved = await compactQcow2(backend, { signal, onProgress, encryption }).catch((error: unknown) => {
      throw openFailure(path, error)
    })
  } catch (error) {
    // The first failure is the one to tell.
    await backend.close().catch(() => undefined)
    throw error
  }
  await backend.close()
  const after = await sizesOf(path)
  return {
    lengthBefore: before.length,
    lengthAfter: after.length,
    allocatedBefore: before.allocated,
    allocatedAfter: after.allocated,
    moved,
  }
}

async function sizesOf(path: string): Promise<{ length: number; allocated: number }> {
  const { size, blocks } = await stat(path)
  return { length: size, allocated: blocks * sectorSize }
}
