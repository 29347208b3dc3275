import { alignUp } from '../base/integers.js'
import type { FileExtent } from './backend.js'

/** The unit in which memory is taken: what a table's unit and most guest writes fill, so that little of it is empty. Bytes. */
const chunkSize = 4096

/**
 * The content of a file in memory. Takes room only for what was written, whatever the file's length.
 * All offsets and lengths are bytes.
 */
export class SparseBytes {
  /** By number: offset / chunkSize. What is missing is zeros. */
  readonly #chunks = new Map<number, Uint8Array>()
  #length = 0
  /** The numbers of #chunks, ascending; undefined when they have changed. */
  #ascending: number[] | undefined

  static from(bytes: Uint8Array): SparseBytes {
    const sparse = new SparseBytes()
    sparse.write(bytes, 0)
    return sparse
  }

  /** Of the file. */
  get length(): number {
    return this.#length
  }

  /** The room that it takes, in bytes. */
  get heldBytes(): number {
    return this.#chunks.size * chunkSize
  }

  /** Fill `bytes`; past the end are zeros. */
  read(bytes: Uint8Array, offset: number): void {
    eachPiece(offset, bytes.length, (number, from, to, done) => {
      const chunk = this.#chunks.get(number)
      if (chunk === undefined) bytes.fill(0, done, done + to - from)
      else bytes.set(chunk.subarray(from, to), done)
    })
  }

  write(bytes: Uint8Array, offset: number): void {
    eachPiece(offset, bytes.length, (number, from, to, done) => {
      let chunk = this.#chunks.get(number)
      if (chunk === undefined) {
        chunk = new Uint8Array(chunkSize)
        this.#chunks.set(number, chunk)
        this.#ascending = undefined
      }
      chunk.set(bytes.subarray(done, done + to - from), from)
    })
    this.extend(offset + bytes.length)
  }

  /** Make the range read as zeros and free its room. Leaves the length as it is. */
  clear(offset: number, length: number): void {
    const end = offset + length
    const first = Math.floor(offset / chunkSize)
    const last = Math.ceil(end / chunkSize) - 1
    // A terabyte of nothing must not be walked through.
    const numbers = last - first < this.#chunks.size ? range(first, last) : [...this.#chunks.keys()]
    for (const number of numbers) {
      const start = number * chunkSize
      const from = Math.max(offset - start, 0)
      const to = Math.min(end - start, chunkSize)
      if (from >= to) continue
      if (from > 0 || to < chunkSize) this.#chunks.get(number)?.fill(0, from, to)
      else if (this.#chunks.delete(number)) this.#ascending = undefined
    }
  }

  /** Make the file at least this long. */
  extend(length: number): void {
    if (length > this.#length) this.#length = length
  }

  /** Make the file this long. */
  truncate(length: number): void {
    // To the end of the last chunk, so that nothing is left behind the end.
    if (length < this.#length) this.clear(length, alignUp(this.#length, chunkSize) - length)
    this.#length = length
  }

  /** The run at `offset` that is held alike; it ends with the file. Past the end: a hole of length 0. */
  extent(offset: number): FileExtent {
    if (offset >= this.#length) return { length: 0, data: false }
    const number = Math.floor(offset / chunkSize)
    const data = this.#chunks.has(number)
    let end: number
    if (data) {
      end = number + 1
      while (this.#chunks.has(end)) end++
    } else {
      end = this.#nextChunk(number)
    }
    return { length: Math.min(end * chunkSize, this.#length) - offset, data }
  }

  /** All of it; of course only as long as it fits an array. */
  toBytes(): Uint8Array {
    const bytes = new Uint8Array(this.#length)
    for (const [number, chunk] of this.#chunks) {
      const start = number * chunkSize
      bytes.set(chunk.subarray(0, Math.min(chunkSize, this.#length - start)), start)
    }
    return bytes
  }

  /** The number of the first chunk behind `number` that is held, or infinity. */
  #nextChunk(number: number): number {
    this.#ascending ??= [...this.#chunks.keys()].sort((a, b) => a - b)
    let low = 0
    let high = this.#ascending.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#ascending[middle] as number) > number) high = middle
      else low = middle + 1
    }
    return this.#ascending[low] ?? Number.POSITIVE_INFINITY
  }
}

type Piece = (number: number, from: number, to: number, done: number) => void

/** Cut a range at the borders of chunks: the chunk's number, the part of it, and how much of the range came before. */
function eachPiece(offset: number, length: number, piece: Piece): void {
  for (let done = 0; done < length;) {
    const number = Math.floor((offset + done) / chunkSize)
    const from = offset + done - number * chunkSize
    const to = Math.min(chunkSize, from + length - done)
    piece(number, from, to, done)
    done += to - from
  }
}

function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index)
}
