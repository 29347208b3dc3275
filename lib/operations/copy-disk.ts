import { alignUp } from '../base/integers.js'
import { DiskImage } from '../image/disk-image.js'
import type { Concatenation } from './concatenation.js'
import { cutIntoPieces, type Piece } from './copy-pieces.js'
import type { RateLimit } from './rate-limit.js'
import { runPieces } from './run-pieces.js'
import { differentRuns, zeroRuns } from './zero-scan.js'

/** Bytes of data in one piece, at least: long enough to pay for its requests, short enough to run many side by side. */
const pieceSize = 1024 * 1024

/** Bytes of zeros in one piece, at least: they cost little. */
const zeroPieceSize = 64 * 1024 * 1024

/** Raw images have no clusters; this is what file systems allocate. */
const rawUnit = 4096

export type CopyOptions = {
  /** The target's disk reads as zeros: zeros need not be written. */
  readonly readsAsZeros: boolean
  /** The target shows a backing file: what is equal there need not be written. */
  readonly hasBacking: boolean
  /** Shortest run of zeros that becomes a hole, in bytes; 0: none does. */
  readonly sparseSize: number
  /** Write compressed clusters. */
  readonly compress: boolean
  /** Pieces in flight. */
  readonly requests: number
  /** Of data that is read. */
  readonly limit: RateLimit | undefined
  readonly signal: AbortSignal | undefined
  /** Told of every piece that is done: guest bytes. */
  readonly onCopied: (bytes: number) => void
  /** Told of every write of data that has ended: guest bytes. What it throws ends the copy. */
  readonly onWritten?: (bytes: number) => void
}

/**
 * Copy a whole disk. Several pieces are on their way at a time, each in memory of its own.
 * @returns bytes written as data
 */
export async function copyDisk(
  source: Concatenation,
  target: DiskImage,
  options: CopyOptions,
): Promise<number> {
  const [{ format }] = DiskImage.layersOf(target)
  const { clusterSize, subclusterSize = clusterSize } = format
  // What is compressed is whole clusters.
  const unit = Math.max(options.compress ? clusterSize : subclusterSize, rawUnit)
  const dense = options.sparseSize === 0
  const copier = new Copier(source, target, options, unit)
  const data = alignUp(pieceSize, unit)
  const pieces = cutIntoPieces(source.extents(), source.size, unit, {
    data,
    zero: dense ? data : alignUp(zeroPieceSize, unit),
  })
  await runPieces(
    pieces,
    data,
    async (piece, memory) => {
      await copier.copy(piece, memory)
      options.onCopied(piece.length)
    },
    options,
  )
  return copier.bytesWritten
}

class Copier {
  bytesWritten = 0
  readonly #source: Concatenation
  readonly #target: DiskImage
  readonly #options: CopyOptions
  /** Bytes; what the target allocates, and not too little of it. */
  readonly #unit: number
  readonly #sparseUnit: number

  constructor(source: Concatenation, target: DiskImage, options: CopyOptions, unit: number) {
    this.#source = source
    this.#target = target
    this.#options = options
    this.#unit = unit
    this.#sparseUnit = options.sparseSize === 0 ? unit : alignUp(options.sparseSize, unit)
  }

  async copy(piece: Piece, memory: Uint8Array): Promise<void> {
    const { offset, length } = piece
    if (piece.zero && this.#options.sparseSize !== 0) return this.#copyZeros(offset, length)
    const bytes = memory.subarray(0, length)
    if (piece.zero) bytes.fill(0)
    else {
      await this.#options.limit?.take(length, this.#options.signal)
      await this.#source.readInto(bytes, offset)
    }
    if (!this.#options.hasBacking) return this.#copyBytes(bytes, offset)
    const shown = await this.#target.read({ offset, length })
    for (const { start, end } of differentRuns(shown, bytes, this.#unit)) {
      await this.#copyBytes(bytes.subarray(start, end), offset + start)
    }
  }

  async #copyBytes(bytes: Uint8Array, offset: number): Promise<void> {
    if (this.#options.sparseSize === 0) return this.#write(bytes, offset)
    for (const run of zeroRuns(bytes, this.#sparseUnit)) {
      if (run.zero) await this.#copyZeros(offset + run.start, run.end - run.start)
      else await this.#write(bytes.subarray(run.start, run.end), offset + run.start)
    }
  }

  async #copyZeros(offset: number, length: number): Promise<void> {
    if (this.#options.readsAsZeros) return
    if (this.#options.hasBacking && (await this.#isZero(offset, length))) return
    await this.#target.writeZeroes({ offset, length, unmap: true })
  }

  async #write(bytes: Uint8Array, offset: number): Promise<void> {
    this.bytesWritten += bytes.length
    await (this.#options.compress
      ? this.#target.writeCompressed(bytes, offset)
      : this.#target.write(bytes, offset))
    this.#options.onWritten?.(bytes.length)
  }

  async #isZero(offset: number, length: number): Promise<boolean> {
    for await (const extent of this.#target.extents({ offset, length })) if (!extent.zero) return false
    return true
  }
}
