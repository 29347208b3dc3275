import { type Extent, findSparseLayers, type Layer, lookUpExtent } from './layers.js'

/** Most bytes asked for at once: bounds the time in which closing or aborting is not noticed. */
const lookUpSize = 2 ** 40

/**
 * All runs of a range in order, without gaps; neighbours that are alike are one.
 * @param stillOpen  called before each look-up; throws when the image has been closed
 */
export async function* extentsOf(
  layers: readonly Layer[],
  range: { offset: number; length: number },
  stillOpen: () => void,
): AsyncGenerator<Extent, void, undefined> {
  const end = range.offset + range.length
  const sparse = await findSparseLayers(layers)
  let pending: Extent | undefined
  for (let position = range.offset; position < end;) {
    stillOpen()
    // The image may have become smaller since the last step.
    const size = layers[0]?.format.size ?? 0
    const wanted = Math.min(end, size) - position
    if (wanted <= 0) break
    const found = await lookUpExtent(layers, position, Math.min(wanted, lookUpSize), sparse)
    position += found.length
    if (pending === undefined) pending = found
    else if (alike(pending, found)) pending = { ...pending, length: pending.length + found.length }
    else {
      yield pending
      pending = found
    }
  }
  if (pending !== undefined) yield pending
}

/** Whether `b`, which follows `a`, only makes it longer. */
function alike(a: Extent, b: Extent): boolean {
  return (
    a.allocated === b.allocated &&
    a.zero === b.zero &&
    a.data === b.data &&
    a.compressed === b.compressed &&
    a.depth === b.depth &&
    (a.hostOffset === undefined ? b.hostOffset === undefined : b.hostOffset === a.hostOffset + a.length)
  )
}
