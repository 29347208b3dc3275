import { alignDown, alignUp } from '../base/integers.js'

/** A part of a disk to be copied. 'zero': known to read as zeros without looking. */
export type Piece = { readonly offset: number; readonly length: number; readonly zero: boolean }

type Run = { readonly start: number; readonly end: number; readonly zero: boolean }

/**
 * Cut a disk into pieces that begin and end at multiples of `unit` (or at its end), so that no two of them touch the same
 * cluster of the target. A unit that holds any data is data as a whole.
 * @param extents  the whole disk in order, without gaps
 * @param size     bytes of the disk
 * @param limits   bytes: the longest piece of either kind, multiples of `unit`
 */
export async function* cutIntoPieces(
  extents: AsyncIterable<Piece>,
  size: number,
  unit: number,
  limits: { data: number; zero: number },
): AsyncGenerator<Piece, void, undefined> {
  let done = 0
  for await (const run of joinAlike(extents)) {
    // What a data run shares with the zeros beside it is data; what two data runs share went with the first.
    const end =
      run.end === size ? size : run.zero ? alignDown(run.end, unit) : Math.min(alignUp(run.end, unit), size)
    if (end <= done) continue
    const longest = run.zero ? limits.zero : limits.data
    while (done < end) {
      const piece = { offset: done, length: Math.min(longest, end - done), zero: run.zero }
      done += piece.length
      yield piece
    }
  }
}

async function* joinAlike(extents: AsyncIterable<Piece>): AsyncGenerator<Run, void, undefined> {
  let pending: { start: number; end: number; zero: boolean } | undefined
  for await (const { offset, length, zero } of extents) {
    if (pending?.zero === zero) {
      pending.end = offset + length
      continue
    }
    if (pending !== undefined) yield pending
    pending = { start: offset, end: offset + length, zero }
  }
  if (pending !== undefined) yield pending
}
