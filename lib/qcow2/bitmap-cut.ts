import type { BitmapCut, DirtyRange } from '../queue/format-image.js'
import { type Bitmap } from './bitmap-state.js'
import type { SparseBits } from './bitmap-bits.js'
import { bitsFor, onePage } from './bitmap-table.js'
import type { Parts } from './parts.js'

/**
 * What a bitmap says: its changes as they are when this is called, and its pages. In memory, as many bytes as the bitmap has at most. The pages stay
 * where they are while this runs: the caller sees to it.
 */
export async function cutOf(
  parts: Pick<Parts, 'geometry' | 'backend'>,
  bitmap: Bitmap,
  size: number,
): Promise<BitmapCut> {
  const { clusterSize } = parts.geometry
  const bits: SparseBits = bitmap.changes.clone()
  const pages = bitmap.pages.slice()
  const count = bitsFor(size, bitmap.granularityBits)
  for (const [index, page] of pages.entries()) {
    if (page === onePage) bits.set(index * clusterSize * 8, (index + 1) * clusterSize * 8 - 1)
    else if (page > onePage) {
      const bytes = new Uint8Array(clusterSize)
      await parts.backend.read(bytes, page)
      bits.add(bytes, index * clusterSize)
    }
  }
  const granularity = 2 ** bitmap.granularityBits
  return {
    name: bitmap.name,
    granularity,
    size,
    *ranges(): Generator<DirtyRange, void, undefined> {
      for (const { first, end } of bits.runs(count)) {
        const offset = first * granularity
        yield { offset, length: Math.min(end * granularity, size) - offset }
      }
    },
  }
}
