import { Readable, Writable } from 'node:stream'
import { outOfRange } from '../base/errors.js'
import { checkOptions, integerOption } from '../base/options.js'
import type { DiskImage } from './disk-image.js'

/** Bytes in one piece: long enough to pay for its request. */
const pieceSize = 256 * 1024

export type ReadStreamOptions = {
  /** First byte of the disk. Default 0. */
  readonly start?: number
  /** The last byte, included, as with `fs.createReadStream`. Default: the last one of the disk. */
  readonly end?: number
}

export type WriteStreamOptions = {
  /** Where the first byte goes. Default 0. */
  readonly start?: number
}

/** The bytes of a disk in order. */
export function createReadStream(image: DiskImage, options?: ReadStreamOptions): Readable {
  const { start = 0, end = image.size - 1 } = checkOptions('createReadStream', options, {
    start: integerOption({ min: 0 }),
    end: integerOption({ min: 0 }),
  })
  if (start > end + 1 || end >= image.size) {
    throw outOfRange(
      `createReadStream: bytes ${start} to ${end} are not within the disk of ${image.size} bytes`,
    )
  }
  let position = start
  return new Readable({
    highWaterMark: pieceSize,
    read(): void {
      const length = Math.min(pieceSize, end + 1 - position)
      if (length <= 0) {
        this.push(null)
        return
      }
      const offset = position
      position += length
      image.read({ offset, length }).then(
        (bytes) => this.push(bytes),
        (error: unknown) => this.destroy(error as Error),
      )
    },
  })
}

/**
 * Writes to a disk in order. It has finished when what was written is durable; what goes beyond the end of the disk is an
 * error, and so is what the disk refuses.
 */
export function createWriteStream(image: DiskImage, options?: WriteStreamOptions): Writable {
  const { start = 0 } = checkOptions('createWriteStream', options, { start: integerOption({ min: 0 }) })
  if (start > image.size) {
    throw outOfRange(`createWriteStream: byte ${start} is not within the disk of ${image.size} bytes`)
  }
  let position = start
  return new Writable({
    highWaterMark: pieceSize,
    decodeStrings: true,
    write(piece: Buffer, _encoding, done): void {
      const offset = position
      position += piece.length
      image.write(piece, offset).then(() => done(), done)
    },
    final(done): void {
      image.flush().then(() => done(), done)
    },
  })
}
