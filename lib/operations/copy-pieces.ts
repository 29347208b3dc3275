import { alignDown, alignUp } from '../base/integers.js'

/** A part of a disk to be copied. 'zero': known to read as zeros without looking. */
export type Piece = { readonly offset: number; readonly length: number; readonly zero: boolean }

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
  for await (const run of joinAlike(alignRuns(joinAlike(extents), size, unit))) {
    const longest = run.zero ? limits.zero : limits.data
    const end = run.offset + run.length
    for (let offset = run.offset; offset < end; offset += longest) {
      yield { offset, length: Math.min(longest, end - offset), zero: run.zero }
    }
  }
}

/** What a run of data shares with the zeros beside it is data; what two runs of data share goes with the first. */
async function* alignRuns(
  runs: AsyncIterable<Piece>,
  size: number,
  unit: number,
): AsyncGenerator<Piece, void, undefined> {
  let done = 0
  for await (const { offset, length, zero } of runs) {
    const runEnd = offset + length
    const inUnits = zero ? alignDown(runEnd, unit) : Math.min(alignUp(runEnd, unit), size)
    const end = runEnd === size ? size : inUnits
    if (end <= done) continue
    yield { offset: done, length: end - done, zero }
    done = end
  }
}

/** Neighbours of a kind become one. */
async function* joinAlike(pieces: AsyncIterable<Piece>): AsyncGenerator<Piece, void, undefined> {
  let pending: Piece | undefined
  for await (const { offset, length, zero } of pieces) {
    if (pending?.zero === zero) pending = { ...pending, length: pending.length + length }
    else {
      if (pending !== undefined) yield pending
      pending = { offset, length, zero }
    }
  }
  if (pending !== undefined) yield pending
}
