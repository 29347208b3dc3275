import { type LongWork, ProgressReporter } from '../base/abort.js'
import { alignDown } from '../base/integers.js'
import { booleanOption, checkOptions, enumOption, longWorkSchema } from '../base/options.js'
import { sectorSize } from '../base/units.js'
import { type BackingGate, backingOption } from '../image/backing-gate.js'
import { type DataFileGate, dataFileOption } from '../image/data-file-gate.js'
import { cacheOption, type CacheMode, type CacheOptions, cacheOptionsOf } from '../image/cache-modes.js'
import type { DiskImage } from '../image/disk-image.js'
import { encryptionOption } from '../image/encryption-option.js'
import type { Extent } from '../image/layers.js'
import { checkLocation, type ImageLocation } from '../image/location.js'
import { openImage } from '../image/open.js'
import { type ImageFormat, imageFormats } from '../image/probe.js'
import type { Encryption } from '../qcow2/encryption.js'
import { type Pair, pairs } from './extent-pairs.js'
import { isZero } from './zero-scan.js'

export type CompareOptions = LongWork & {
  /** Of the first image. Default: probed. */
  readonly format?: ImageFormat
  /** Of the second. */
  readonly secondFormat?: ImageFormat
  /** Sizes and allocation must be alike too. Otherwise a longer disk must go on with zeros. */
  readonly strict?: boolean
  readonly backing?: BackingGate
  /** Whether external data files may be opened. Default 'deny'. */
  readonly dataFile?: DataFileGate
  readonly forceShare?: boolean
  readonly cache?: CacheMode | CacheOptions
  readonly locking?: 'auto' | 'off'
  /** What opens the images of both chains that are encrypted. */
  readonly encryption?: Encryption
  /** Of the second chain; default: `encryption`. */
  readonly secondEncryption?: Encryption
  /** Of the second chain; default: `backing`. */
  readonly secondBacking?: BackingGate
  /** Of the second chain; default: `dataFile`. */
  readonly secondDataFile?: DataFileGate
}

export type Comparison = {
  readonly identical: boolean
  /** Bytes; may differ between disks that count as identical. */
  readonly sizes: readonly [number, number]
  /** Why they are not identical; `offset` is that of the first sector of 512 that differs. */
  readonly difference?:
    { readonly type: 'content' | 'allocation'; readonly offset: number } | { readonly type: 'size' }
}

/** Compared at a time, in bytes. */
const pieceSize = 1024 * 1024

/**
 * Whether two disks have the same content.
 * @throws as openImage, DiskImage.read; the signal's reason
 */
export async function compareImages(
  first: ImageLocation,
  second: ImageLocation,
  options?: CompareOptions,
): Promise<Comparison> {
  checkLocation('compareImages', first)
  checkLocation('compareImages', second)
  const { strict, cache, signal, onProgress, format, ...rest } = checkOptions('compareImages', options, {
    format: enumOption(imageFormats),
    secondFormat: enumOption(imageFormats),
    strict: booleanOption,
    backing: backingOption,
    dataFile: dataFileOption,
    forceShare: booleanOption,
    cache: cacheOption,
    locking: enumOption(['auto', 'off']),
    encryption: encryptionOption,
    secondEncryption: encryptionOption,
    secondBacking: backingOption,
    secondDataFile: dataFileOption,
    ...longWorkSchema,
  })
  const { secondFormat, secondEncryption, secondBacking, secondDataFile, ...given } = rest
  const common = {
    readOnly: true,
    ...given,
    ...(cache === undefined ? {} : { cache: cacheOptionsOf(cache) }),
    ...(signal === undefined ? {} : { signal }),
  }
  const a = await openImage(first, { ...common, ...(format === undefined ? {} : { format }) })
  try {
    const b = await openImage(second, {
      ...common,
      ...(secondFormat === undefined ? {} : { format: secondFormat }),
      ...(secondEncryption === undefined ? {} : { encryption: secondEncryption }),
      ...(secondBacking === undefined ? {} : { backing: secondBacking }),
      ...(secondDataFile === undefined ? {} : { dataFile: secondDataFile }),
    })
    try {
      return await compareDisks(a, b, { strict: strict === true, signal, onProgress })
    } finally {
      await b.close()
    }
  } finally {
    await a.close()
  }
}

/** The same for disks that are open. */
export async function compareDisks(
  a: DiskImage,
  b: DiskImage,
  options: LongWork & { readonly strict: boolean },
): Promise<Comparison> {
  const sizes = [a.size, b.size] as const
  const progress = new ProgressReporter(options.onProgress, 'compare', Math.max(a.size, b.size))
  if (options.strict && a.size !== b.size) return { identical: false, sizes, difference: { type: 'size' } }
  const common = Math.min(a.size, b.size)
  for await (const run of pairs(a.extents({ length: common }), b.extents({ length: common }))) {
    if (options.strict && !storedAlike(run.a, run.b)) {
      return { identical: false, sizes, difference: { type: 'allocation', offset: run.offset } }
    }
    const offset = await firstDifference(a, b, run, options.signal, progress)
    if (offset !== undefined) return { identical: false, sizes, difference: { type: 'content', offset } }
  }
  const longer = a.size > b.size ? a : b
  for await (const extent of longer.extents({ offset: common })) {
    const offset = await firstNonZero(longer, extent, options.signal, progress)
    if (offset !== undefined) return { identical: false, sizes, difference: { type: 'content', offset } }
  }
  return { identical: true, sizes }
}

function storedAlike(a: Extent, b: Extent): boolean {
  return (
    a.allocated === b.allocated &&
    a.zero === b.zero &&
    a.data === b.data &&
    (a.hostOffset === undefined) === (b.hostOffset === undefined)
  )
}

async function firstDifference(
  a: DiskImage,
  b: DiskImage,
  run: Pair,
  signal: AbortSignal | undefined,
  progress: ProgressReporter,
): Promise<number | undefined> {
  if (run.a.zero && run.b.zero) {
    progress.advance(run.length)
    return undefined
  }
  if (run.a.zero) return firstNonZero(b, run, signal, progress)
  if (run.b.zero) return firstNonZero(a, run, signal, progress)
  for (const { offset, length } of cut(run)) {
    signal?.throwIfAborted()
    const [left, right] = await Promise.all([a.read({ offset, length }), b.read({ offset, length })])
    if (Buffer.compare(left, right) !== 0)
      return offset + alignDown(firstDifferentByte(left, right), sectorSize)
    progress.advance(length)
  }
  return undefined
}

async function firstNonZero(
  disk: DiskImage,
  run: { offset: number; length: number; zero?: boolean },
  signal: AbortSignal | undefined,
  progress: ProgressReporter,
): Promise<number | undefined> {
  if (run.zero === true) {
    progress.advance(run.length)
    return undefined
  }
  for (const { offset, length } of cut(run)) {
    signal?.throwIfAborted()
    const bytes = await disk.read({ offset, length })
    if (!isZero(bytes))
      return (
        offset +
        alignDown(
          bytes.findIndex((byte) => byte !== 0),
          sectorSize,
        )
      )
    progress.advance(length)
  }
  return undefined
}

function* cut(run: { offset: number; length: number }): Generator<{ offset: number; length: number }> {
  for (let done = 0; done < run.length; done += pieceSize) {
    yield { offset: run.offset + done, length: Math.min(pieceSize, run.length - done) }
  }
}

/** @returns the index of the first byte that differs; they do differ */
function firstDifferentByte(a: Uint8Array, b: Uint8Array): number {
  let at = 0
  while (Buffer.compare(a.subarray(at, at + sectorSize), b.subarray(at, at + sectorSize)) === 0)
    at += sectorSize
  while (a[at] === b[at]) at++
  return at
}
