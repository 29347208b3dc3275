import { realpath } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { type LongWork, ProgressReporter } from '../base/abort.js'
import { assert } from '../base/assert.js'
import { notSupported, Qcow2Error } from '../base/errors.js'
import { booleanOption, checkOptions, checkPath, integerOption, stringOption } from '../base/options.js'
import type { CacheSettings } from '../image/cache-modes.js'
import { DiskImage } from '../image/disk-image.js'
import { extentsOf } from '../image/extents.js'
import type { Extent, Layer } from '../image/layers.js'
import { openWritable } from '../image/writable-layer.js'
import { escapeName } from '../qcow2/header-extensions.js'
import { Qcow2Image } from '../qcow2/image.js'
import { type ChainWorkOptions, chainWorkOf, chainWorkSchema, openForWork } from './chain-work.js'
import { rateLimitOf } from './rate-limit.js'
import { runPieces } from './run-pieces.js'

/** `backing` says also whether the base may be written. */
export type CommitOptions = ChainWorkOptions & {
  /** The file of the chain that takes the changes, by the name that an image has for it, or by its path as seen from the image. Default: the backing file. */
  readonly base?: string
  /** Leave the image as it is, instead of emptying it. Always so where `base` is deeper than the backing file. */
  readonly keep?: boolean
  /** The most bytes of data that are copied in a second; default, and 0: no limit. */
  readonly rateLimit?: number
}

export type CommittedImage = {
  /** The file that took the changes. */
  readonly base: string
  /** Guest bytes that were written to it as data. */
  readonly bytesWritten: number
  /** Whether the image was emptied. */
  readonly emptied: boolean
}

const commitSchema = {
  ...chainWorkSchema,
  base: stringOption,
  keep: booleanOption,
  rateLimit: integerOption({ min: 0 }),
}

/** Guest bytes of data in one piece, at most. */
const pieceSize = 1024 * 1024

/** Of zeros: they cost little. */
const zeroPieceSize = 64 * 1024 * 1024

const requests = 8

/**
 * Write what an image changes of a file below it into that file, which then shows what the image shows; and empty the image. The file grows if the
 * disk has become longer, and never shrinks. The image is emptied only when the file durably holds everything, so that nothing is lost whatever happens
 * meanwhile. If this fails or is aborted, the image shows what it showed; the file below has changed in parts.
 *
 * Other overlays of the same file, and images between, show something else afterwards, as with every change of a backing file.
 * @throws ERR_NOT_FOUND     `base` is not in the chain
 * @throws ERR_NOT_SUPPORTED the image has no backing file
 * @throws ERR_IMAGE_LOCKED  somebody uses the image, or the base, another overlay's user for one
 * @throws as openImage; ERR_NO_SPACE, ERR_IO; the signal's reason
 */
export async function commitImage(path: string, options?: CommitOptions): Promise<CommittedImage> {
  checkPath('commitImage', path)
  const given = checkOptions('commitImage', options, commitSchema)
  const { base: name, keep = false, rateLimit } = given
  const work = chainWorkOf(given)
  const image = await openForWork(path, work)
  try {
    const depth = await depthOfBase(image, name)
    const base = await openWritable(DiskImage.layersOf(image), depth, work)
    const emptied = !keep && depth === 1
    const bytesWritten = await commitInto(image, base, { ...work, depth, empties: emptied, rateLimit })
    return { base: base.path, bytesWritten, emptied }
  } finally {
    await image.close()
  }
}

/** How disks that are open are committed. */
export type Committing = LongWork & {
  /** Of the base among the image's layers. */
  readonly depth: number
  readonly empties: boolean
  readonly rateLimit?: number | undefined
  readonly cache: Pick<CacheSettings, 'syncPolicy'>
}

/**
 * The same for disks that are open. Closes the base, and not the image.
 * @returns guest bytes written as data
 */
export async function commitInto(image: DiskImage, base: DiskImage, work: Committing): Promise<number> {
  let bytesWritten: number
  try {
    bytesWritten = await copyChanges(image, base, work.depth, work)
    await makeDurable(base, work.cache)
  } finally {
    await base.close()
  }
  if (work.empties) await empty(image)
  return bytesWritten
}

/** @returns the index of the base among the layers */
async function depthOfBase(image: DiskImage, name: string | undefined): Promise<number> {
  const layers = DiskImage.layersOf(image)
  if (layers.length === 1) {
    throw notSupported('Image does not have a backing file', { path: image.path })
  }
  if (name === undefined) return 1
  const wanted = await realpath(resolve(dirname(image.path), name)).catch(() => undefined)
  for (const [depth, layer] of layers.entries()) {
    if (depth === 0) continue
    if (layer.reference === name || (wanted !== undefined && (await realPathOf(layer)) === wanted))
      return depth
  }
  throw new Qcow2Error(
    'ERR_NOT_FOUND',
    `Did not find '${escapeName(name)}' in the backing chain of '${escapeName(image.path)}'`,
    { path: image.path },
  )
}

async function realPathOf({ backend }: Layer): Promise<string | undefined> {
  return realpath(backend.path).catch(() => undefined)
}

/** @returns bytes written as data */
async function copyChanges(
  image: DiskImage,
  base: DiskImage,
  depth: number,
  { signal, onProgress, rateLimit }: LongWork & Pick<Committing, 'rateLimit'>,
): Promise<number> {
  const limit = rateLimitOf(rateLimit)
  signal?.throwIfAborted()
  if (base.size < image.size) await base.resize(image.size)
  const progress = new ProgressReporter(onProgress, 'commit', image.size)
  let written = 0
  await runPieces(
    changesAbove(image, depth, (bytes) => progress.advance(bytes)),
    pieceSize,
    async ({ offset, length, zero }, memory) => {
      if (zero) await base.writeZeroes({ offset, length, unmap: true })
      else {
        const bytes = memory.subarray(0, length)
        await limit?.take(length, signal)
        await image.readInto(bytes, offset)
        await base.write(bytes, offset)
        written += length
      }
      progress.advance(length)
    },
    { requests, signal },
  )
  return written
}

/**
 * What the layers above `depth` say, piece by piece. Where one of them ends before those above it, they say that zeros follow: what lies deeper
 * does not show there. Nothing of the base is looked at, which is being written.
 * @param skipped  told of guest bytes that come from the base or from below it
 */
async function* changesAbove(
  image: DiskImage,
  depth: number,
  skipped: (bytes: number) => void,
): AsyncGenerator<Pick<Extent, 'offset' | 'length' | 'zero'>, void, undefined> {
  const above = DiskImage.layersOf(image).slice(0, depth)
  for await (const extent of extentsOf(above, { offset: 0, length: image.size }, () => undefined)) {
    if (!extent.allocated && extent.depth === depth - 1) {
      skipped(extent.length)
      continue
    }
    const longest = extent.zero ? zeroPieceSize : pieceSize
    const end = extent.offset + extent.length
    for (let offset = extent.offset; offset < end;) {
      // Up to a round place, so that pieces share no clusters with their neighbours.
      const length = Math.min(end - offset, longest - (offset % longest))
      yield { offset, length, zero: extent.zero }
      offset += length
    }
  }
}

/**
 * Everything is in the base for good, before anything is taken from the image: a crash between the two would lose what neither has.
 * In the modes that never sync nothing is promised, by the caller's wish.
 */
async function makeDurable(base: DiskImage, cache: Committing['cache']): Promise<void> {
  if (cache.syncPolicy !== 'never') await base.flush()
}

async function empty(image: DiskImage): Promise<void> {
  const top = DiskImage.layersOf(image)[0].format
  assert(top instanceof Qcow2Image, 'only a qcow2 image has a backing file')
  await top.empty()
}
