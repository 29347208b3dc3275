import { divideRoundingUp } from '../base/integers.js'

/** A run of set bits: from `first`, up to `end`, which is not one of them. */
export type BitRun = { readonly first: number; readonly end: number }

/** A chunk whose bits are all set takes no memory. */
type Chunk = Uint8Array | 'ones'

/**
 * A set of bits of which most are 0, in chunks of bytes that come with their first bit: what a bitmap has gained since it was stored. The lowest
 * bit of a byte comes first, as in the file. Numbers of bits go up to 2^32, beyond what bit operators can do.
 */
export class SparseBits {
  readonly #chunkBytes: number
  readonly #chunkBits: number
  readonly #chunks: Map<number, Chunk>

  /** @param chunkBytes  divides whatever bytes are asked for later */
  constructor(chunkBytes: number, chunks = new Map<number, Chunk>()) {
    this.#chunkBytes = chunkBytes
    this.#chunkBits = chunkBytes * 8
    this.#chunks = chunks
  }

  get isEmpty(): boolean {
    return this.#chunks.size === 0
  }

  /** Set the bits from `first` to `last`, both included. */
  set(first: number, last: number): void {
    let index = Math.floor(first / this.#chunkBits)
    const lastIndex = Math.floor(last / this.#chunkBits)
    for (let from = first; index <= lastIndex; index++) {
      const start = index * this.#chunkBits
      const to = Math.min(last, start + this.#chunkBits - 1)
      this.#setWithin(index, from - start, to - start)
      from = to + 1
    }
  }

  #setWithin(index: number, first: number, last: number): void {
    let chunk = this.#chunks.get(index)
    if (chunk === 'ones') return
    if (first === 0 && last === this.#chunkBits - 1) {
      this.#chunks.set(index, 'ones')
      return
    }
    if (chunk === undefined) this.#chunks.set(index, (chunk = new Uint8Array(this.#chunkBytes)))
    const firstByte = first >>> 3
    const lastByte = last >>> 3
    const head = (0xff << (first & 7)) & 0xff
    const tail = 0xff >>> (7 - (last & 7))
    if (firstByte === lastByte) chunk[firstByte] = (chunk[firstByte] as number) | (head & tail)
    else {
      chunk[firstByte] = (chunk[firstByte] as number) | head
      chunk.fill(0xff, firstByte + 1, lastByte)
      chunk[lastByte] = (chunk[lastByte] as number) | tail
    }
  }

  /** Set whatever is set in these bytes, of which the first stands for the bits from `byte * 8` on. Whole chunks. */
  add(bytes: Uint8Array, byte: number): void {
    for (let done = 0; done < bytes.length; done += this.#chunkBytes) {
      const index = (byte + done) / this.#chunkBytes
      const piece = bytes.subarray(done, done + this.#chunkBytes)
      if (piece.every((value) => value === 0)) continue
      const chunk = this.#chunks.get(index)
      if (chunk === 'ones') continue
      if (chunk === undefined) this.#chunks.set(index, Uint8Array.from(piece))
      else orInto(chunk, piece)
    }
  }

  /** Set in `bytes` what is set here, from the bit `byte * 8` on. Whole chunks. @returns whether a bit was not set there before */
  copyInto(bytes: Uint8Array, byte: number): boolean {
    let isNew = false
    for (let done = 0; done < bytes.length; done += this.#chunkBytes) {
      const chunk = this.#chunks.get((byte + done) / this.#chunkBytes)
      if (chunk === undefined) continue
      const piece = bytes.subarray(done, done + this.#chunkBytes)
      const ones = chunk === 'ones' ? new Uint8Array(this.#chunkBytes).fill(0xff) : chunk
      if (orInto(piece, ones)) isNew = true
    }
    return isNew
  }

  /** The numbers, in order, of the pages of so many bytes that hold any set bit. */
  pages(pageBytes: number): number[] {
    const chunksInPage = pageBytes / this.#chunkBytes
    const pages = new Set<number>()
    for (const index of this.#chunks.keys()) pages.add(Math.floor(index / chunksInPage))
    return [...pages].sort((one, other) => one - other)
  }

  /** Forget the bits from `bits` on. */
  truncate(bits: number): void {
    const kept = Math.floor(bits / this.#chunkBits)
    const within = bits % this.#chunkBits
    for (const [index, chunk] of this.#chunks) {
      if (index < kept) continue
      if (index > kept || within === 0) this.#chunks.delete(index)
      else {
        const cut = chunk === 'ones' ? new Uint8Array(this.#chunkBytes).fill(0xff) : chunk
        clearFrom(cut, within)
        this.#chunks.set(index, cut)
      }
    }
  }

  clone(): SparseBits {
    const chunks = new Map<number, Chunk>()
    for (const [index, chunk] of this.#chunks) {
      chunks.set(index, chunk === 'ones' ? chunk : Uint8Array.from(chunk))
    }
    return new SparseBits(this.#chunkBytes, chunks)
  }

  /** The runs of set bits below `bits`, in order; none touches the next. */
  *runs(bits: number): Generator<BitRun, void, undefined> {
    let first = -1
    let end = -1
    for (const index of [...this.#chunks.keys()].sort((one, other) => one - other)) {
      const start = index * this.#chunkBits
      if (start >= bits) break
      const chunk = this.#chunks.get(index) as Chunk
      const found = chunk === 'ones' ? [{ first: 0, end: this.#chunkBits }] : runsIn(chunk)
      for (const run of found) {
        if (start + run.first === end) end = start + run.end
        else {
          if (first >= 0) yield { first, end }
          first = start + run.first
          if (first >= bits) return
          end = start + run.end
        }
      }
    }
    if (first >= 0) yield { first, end: Math.min(end, bits) }
  }
}

/** Clear the bits of `bytes` from number `bits` on. @returns whether one was set */
export function clearFrom(bytes: Uint8Array, bits: number): boolean {
  let wasSet = false
  const firstWhole = divideRoundingUp(bits, 8)
  if (bits % 8 !== 0) {
    const mask = (1 << (bits % 8)) - 1
    const byte = bytes[firstWhole - 1] as number
    wasSet = (byte & ~mask) !== 0
    bytes[firstWhole - 1] = byte & mask
  }
  for (let at = firstWhole; at < bytes.length; at++) {
    if (bytes[at] !== 0) wasSet = true
    bytes[at] = 0
  }
  return wasSet
}

function orInto(bytes: Uint8Array, more: Uint8Array): boolean {
  let isNew = false
  for (let at = 0; at < more.length; at++) {
    const before = bytes[at] as number
    const after = before | (more[at] as number)
    if (after === before) continue
    isNew = true
    bytes[at] = after
  }
  return isNew
}

function* runsIn(bytes: Uint8Array): Generator<BitRun, void, undefined> {
  let first = -1
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] as number
    if (byte === (first < 0 ? 0 : 0xff)) continue
    for (let bit = 0; bit < 8; bit++) {
      const isSet = (byte & (1 << bit)) !== 0
      if (isSet && first < 0) first = at * 8 + bit
      else if (!isSet && first >= 0) {
        yield { first, end: at * 8 + bit }
        first = -1
      }
    }
  }
  if (first >= 0) yield { first, end: bytes.length * 8 }
}
