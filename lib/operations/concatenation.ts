import type { Extent } from '../image/layers.js'
import type { ReadableDisk } from './salvage.js'

/** Disks one behind the other, read as if they were one. */
export class Concatenation {
  readonly size: number
  readonly #disks: readonly { readonly disk: ReadableDisk; readonly start: number; readonly end: number }[]

  constructor(disks: readonly ReadableDisk[]) {
    let start = 0
    this.#disks = disks.map((disk) => {
      const part = { disk, start, end: start + disk.size }
      start = part.end
      return part
    })
    this.size = start
  }

  async readInto(bytes: Uint8Array, offset: number): Promise<void> {
    const end = offset + bytes.length
    for (const part of this.#disks) {
      const from = Math.max(offset, part.start)
      const to = Math.min(end, part.end)
      if (from < to) await part.disk.readInto(bytes.subarray(from - offset, to - offset), from - part.start)
    }
  }

  /** The extents of all disks, in order, without gaps. */
  async *extents(): AsyncGenerator<Extent, void, undefined> {
    for (const part of this.#disks) {
      for await (const extent of part.disk.extents()) yield { ...extent, offset: extent.offset + part.start }
    }
  }
}
