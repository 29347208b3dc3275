import type { Extent } from '../image/layers.js'

/** What a run of the guest's disk is, as a picture tells it. */
export type CellState = 'data' | 'compressed' | 'zero' | 'unallocated'

/** Layers that are told apart; deeper ones count as the last of these. */
export const layersShown = 5

/** A state and the layer that says so: an index of `kinds`. */
export type Kind = { readonly state: CellState; readonly depth: number }

/** What has nothing in any layer, and the other states of each layer. */
export const kinds: readonly Kind[] = [
  ...Array.from({ length: layersShown }, (_, depth) =>
    (['data', 'compressed', 'zero'] as const).map((state) => ({ state, depth })),
  ).flat(),
  { state: 'unallocated', depth: 0 },
]

/** Which kind a run is. @returns an index of `kinds` */
export function kindOf({ allocated, compressed, zero, depth }: Omit<Extent, 'offset' | 'length'>): number {
  if (!allocated) return kinds.length - 1
  const layer = Math.min(depth, layersShown - 1)
  return layer * 3 + (compressed ? 1 : zero ? 2 : 0)
}

/** A part of the picture: cells one after the other that hold one kind only, or one cell that holds several. */
export type CellRun = {
  /** Guest bytes. */
  readonly offset: number
  readonly length: number
  /** Cells, the first one and how many; the last of the disk may be shorter than the others. */
  readonly first: number
  readonly count: number
  /** Bytes of each kind that there is, in the order of `kinds`. */
  readonly shares: readonly { readonly kind: number; readonly bytes: number }[]
}

/** A stretch of a disk in cells of one size: as much as a picture can show, however many runs the disk has. */
export class MapCells {
  readonly offset: number
  readonly length: number
  /** Guest bytes of a cell; a power of two. */
  readonly cellBytes: number
  readonly cellCount: number
  readonly #bytes: Float64Array

  /**
   * @param offset  guest bytes: where the stretch begins  @param length  guest bytes
   * @param most    cells, at most
   */
  constructor(offset: number, length: number, most: number) {
    this.offset = offset
    this.length = length
    let cellBytes = 512
    while (Math.ceil(length / cellBytes) > most) cellBytes *= 2
    this.cellBytes = cellBytes
    this.cellCount = Math.ceil(length / cellBytes)
    this.#bytes = new Float64Array(this.cellCount * kinds.length)
  }

  /** Add the next run of the disk; what is not within the stretch is left out. */
  add(extent: Extent): void {
    const kind = kindOf(extent)
    const start = Math.max(0, extent.offset - this.offset)
    const end = Math.min(this.length, extent.offset + extent.length - this.offset)
    if (end <= start) return
    for (let cell = Math.floor(start / this.cellBytes); cell * this.cellBytes < end; cell++) {
      const from = Math.max(start, cell * this.cellBytes)
      const bytes = Math.min(end, (cell + 1) * this.cellBytes) - from
      this.#add(cell * kinds.length + kind, bytes)
    }
  }

  #add(at: number, bytes: number): void {
    this.#bytes[at] = (this.#bytes[at] ?? 0) + bytes
  }

  /** Bytes of each kind that there is, in the order of `kinds`. */
  totals(): CellRun['shares'] {
    const sums = kinds.map(() => 0)
    for (const [at, bytes] of this.#bytes.entries()) {
      const kind = at % kinds.length
      sums[kind] = (sums[kind] ?? 0) + bytes
    }
    return sharesOf(sums)
  }

  /** All cells, in order. */
  *cellRuns(): Generator<CellRun> {
    let pending: CellRun | undefined
    for (let cell = 0; cell < this.cellCount; cell++) {
      const run = this.#cell(cell)
      const joined = pending === undefined ? undefined : join(pending, run)
      if (pending !== undefined && joined === undefined) yield pending
      pending = joined ?? run
    }
    if (pending !== undefined) yield pending
  }

  #cell(cell: number): CellRun {
    const start = cell * this.cellBytes
    const bytes = this.#bytes.subarray(cell * kinds.length, (cell + 1) * kinds.length)
    return {
      offset: this.offset + start,
      length: Math.min(this.cellBytes, this.length - start),
      first: cell,
      count: 1,
      shares: sharesOf([...bytes]),
    }
  }
}

function sharesOf(bytes: readonly number[]): CellRun['shares'] {
  return bytes.map((sum, kind) => ({ kind, bytes: sum })).filter((share) => share.bytes > 0)
}

/** Two neighbours as one, if both hold the same kind and nothing else. */
function join(run: CellRun, next: CellRun): CellRun | undefined {
  const [share, other] = [run.shares[0], next.shares[0]]
  if (run.shares.length !== 1 || next.shares.length !== 1 || share === undefined) return undefined
  if (other?.kind !== share.kind) return undefined
  return {
    ...run,
    length: run.length + next.length,
    count: run.count + next.count,
    shares: [{ kind: share.kind, bytes: share.bytes + other.bytes }],
  }
}
