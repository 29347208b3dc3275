import { type LongWork, ProgressReporter } from '../base/abort.js'
import { alignUp } from '../base/integers.js'
import {
  booleanOption,
  checkOptions,
  checkPath,
  enumOption,
  integerOption,
  longWorkSchema,
} from '../base/options.js'
import { sectorSize } from '../base/units.js'
import { writeTarget } from '../image/atomic-target.js'
import { type BackingGate, backingOption } from '../image/backing-gate.js'
import { type DataFileGate, dataFileOption } from '../image/data-file-gate.js'
import type { DiskImage } from '../image/disk-image.js'
import { openImage } from '../image/open.js'
import { type ImageFormat, imageFormats } from '../image/probe.js'
import { checkShape, layImageAt, resolveShape } from './create.js'
import { runPieces } from './run-pieces.js'

export type DdOptions = LongWork & {
  /** Of the target. Default 'raw'. */
  readonly format?: ImageFormat
  /** Of the source. Default: probed. */
  readonly sourceFormat?: ImageFormat
  /** Guest bytes of a block, the unit of the other two: 1 to 2^31 - 1. Default 512. */
  readonly blockSize?: number
  /** Where in the source to stop, in blocks. Default: its end. */
  readonly count?: number
  /** Where in the source to begin, in blocks. */
  readonly skip?: number
  /** Which files the source may refer to. Default 'same-directory'. */
  readonly backing?: BackingGate
  /** Whether external data files of the source may be opened. Default 'deny'. */
  readonly sourceDataFile?: DataFileGate
  readonly forceShare?: boolean
  /** Replace a file that exists. */
  readonly overwrite?: boolean
  readonly locking?: 'auto' | 'off'
}

export type DdResult = {
  /** Guest bytes of the new disk: whole sectors of 512. */
  readonly size: number
  /** `skip` lies behind the end of the source, and the new disk is empty. */
  readonly skippedPastEnd: boolean
}

/** Largest block. */
const mostBlockBytes = 2 ** 31 - 1

const ddSchema = {
  format: enumOption(imageFormats),
  sourceFormat: enumOption(imageFormats),
  blockSize: integerOption({ min: 1, max: mostBlockBytes }),
  count: integerOption({ min: 0 }),
  skip: integerOption({ min: 0 }),
  backing: backingOption,
  sourceDataFile: dataFileOption,
  forceShare: booleanOption,
  overwrite: booleanOption,
  locking: enumOption(['auto', 'off']),
  ...longWorkSchema,
}

const pieceSize = 1024 * 1024
const requests = 8

/** In what is made anew nothing needs a sync before the end, which `writeTarget` makes. */
const unsafeCache = { direct: false, syncPolicy: 'never' } as const

/**
 * Copy a part of a disk, in blocks, into a new image that holds nothing else: from block `skip` to block `count` of the source, both counted from its
 * beginning. Zeros are written like other bytes. The target appears under its name when it is complete and durable, or not at all.
 * @throws ERR_EXISTS        there is a target, and `overwrite` is not set
 * @throws ERR_IMAGE_LOCKED  the source is being written, or the target is in use
 * @throws as openImage and createImage; the signal's reason
 */
export async function ddImage(source: string, target: string, options?: DdOptions): Promise<DdResult> {
  checkPath('ddImage', source)
  checkPath('ddImage', target)
  const given = checkOptions('ddImage', options, ddSchema)
  const { blockSize = sectorSize, skip = 0, count, backing, locking = 'auto', signal, sourceFormat } = given
  const input = await openImage(source, {
    readOnly: true,
    locking,
    forceShare: given.forceShare ?? false,
    ...(sourceFormat === undefined ? {} : { format: sourceFormat }),
    ...(backing === undefined ? {} : { backing }),
    ...(given.sourceDataFile === undefined ? {} : { dataFile: given.sourceDataFile }),
    ...(signal === undefined ? {} : { signal }),
  })
  try {
    const end = Math.min(input.size, count === undefined ? input.size : count * blockSize)
    const start = skip * blockSize
    const range = { offset: start, length: Math.max(0, end - start) }
    const size = alignUp(range.length, sectorSize)
    const shape = resolveShape('ddImage', { format: given.format ?? 'raw' })
    checkShape(shape, size)
    await writeTarget(
      target,
      { overwrite: given.overwrite === true, locking: locking !== 'off', signal },
      async (temporary) => {
        await layImageAt(temporary, undefined, shape, size, { signal, cache: unsafeCache })
        const output = await openImage(temporary, { format: shape.format, cache: 'unsafe', locking })
        await copyRange(input, output, range, given)
      },
    )
    return { size, skippedPastEnd: start > input.size }
  } finally {
    await input.close()
  }
}

/** Copies to the beginning of `output`, and closes that. */
async function copyRange(
  input: DiskImage,
  output: DiskImage,
  range: { readonly offset: number; readonly length: number },
  { signal, onProgress }: LongWork,
): Promise<void> {
  const progress = new ProgressReporter(onProgress, 'copy', range.length)
  try {
    await runPieces(
      pieces(range.length),
      pieceSize,
      async ({ offset, length }, memory) => {
        const bytes = memory.subarray(0, length)
        await input.readInto(bytes, range.offset + offset)
        await output.write(bytes, offset)
        progress.advance(length)
      },
      { requests, signal },
    )
  } finally {
    await output.close()
  }
}

async function* pieces(length: number): AsyncGenerator<{ offset: number; length: number }, void, undefined> {
  for (let offset = 0; offset < length; offset += pieceSize)
    yield { offset, length: Math.min(pieceSize, length - offset) }
}
