import { assert } from '../base/assert.js'
import { alignUp } from '../base/integers.js'
import { addon } from './addon.js'

/** One slab serves some hundred pieces: asking for its address costs as much as using it. Bytes. */
const slabBytes = 1024 ** 2

/** What is kept for the next who asks, at most; more is left to the garbage collector. Bytes. */
const mostKeptBytes = 4 * 1024 ** 2

/**
 * Hands out memory whose address is a multiple of an alignment, as O_DIRECT demands, inside ordinary ArrayBuffers: those that a
 * native library brings along are forbidden in Electron. A slab is allocated with room to spare, and its pieces begin where
 * they should.
 */
export class AlignedMemory {
  readonly #alignment: number
  /** Pieces that came back, by length. */
  readonly #kept = new Map<number, Uint8Array[]>()
  #keptBytes = 0
  /** The unused rest of the newest slab; begins aligned. */
  #rest: Uint8Array = new Uint8Array(0)

  /** @param alignment  bytes, a power of two up to 1 MiB */
  constructor(alignment: number) {
    assert(
      alignment >= 1 && alignment <= 1024 ** 2 && Number.isInteger(Math.log2(alignment)),
      'a power of two',
    )
    this.#alignment = alignment
  }

  /** @returns memory that holds anything: zeros, or what somebody left there */
  take(length: number): Uint8Array {
    const kept = this.#kept.get(length)?.pop()
    if (kept !== undefined) {
      this.#keptBytes -= length
      return kept
    }
    const size = alignUp(length, this.#alignment)
    // A large piece gets a slab of its own: it would otherwise waste the rest of the newest.
    if (size > slabBytes / 4) return this.#newSlab(size).subarray(0, length)
    if (size > this.#rest.length) this.#rest = this.#newSlab(slabBytes)
    const piece = this.#rest.subarray(0, length)
    this.#rest = this.#rest.subarray(size)
    return piece
  }

  /** Give back what `take` gave, when nobody uses it any more. May be forgotten: then the garbage collector does it. */
  give(piece: Uint8Array): void {
    if (this.#keptBytes + piece.length > mostKeptBytes) return
    this.#keptBytes += piece.length
    const kept = this.#kept.get(piece.length)
    if (kept === undefined) this.#kept.set(piece.length, [piece])
    else kept.push(piece)
  }

  #newSlab(size: number): Uint8Array {
    const bytes = new Uint8Array(size + this.#alignment)
    const misalignment = addon().misalignment(bytes, this.#alignment)
    const skipped = misalignment === 0 ? 0 : this.#alignment - misalignment
    return bytes.subarray(skipped, skipped + size)
  }
}
