import type { Extent } from '../image/layers.js'

/** A run of guest bytes that two disks store alike throughout, each in its way. */
export type Pair = {
  readonly offset: number
  readonly length: number
  readonly a: Extent
  readonly b: Extent
}

/** Walk two disks at once: runs within which both are stored alike throughout. */
export async function* pairs(
  as: AsyncIterator<Extent>,
  bs: AsyncIterator<Extent>,
): AsyncGenerator<Pair, void, undefined> {
  let a = await as.next()
  let b = await bs.next()
  for (let offset = 0; a.done !== true && b.done !== true;) {
    const aEnd = a.value.offset + a.value.length
    const bEnd = b.value.offset + b.value.length
    const end = Math.min(aEnd, bEnd)
    if (end > offset) yield { offset, length: end - offset, a: a.value, b: b.value }
    offset = end
    if (aEnd === end) a = await as.next()
    if (bEnd === end) b = await bs.next()
  }
}
