import { assert } from '../base/assert.js'
import { throwIfAborted } from '../base/abort.js'
import { alignDown } from '../base/integers.js'
import type { BlockBackend } from '../queue/backend.js'
import type { CompactCounts } from './compact-counts.js'
import type { ClusterMap, Move, Unit } from './compact-map.js'
import type { CompactOrdering } from './compact-ordering.js'
import { eachPointer, levels } from './compact-pointers.js'
import type { Geometry } from './geometry.js'
import type { GuestData } from './guest-data.js'
import { readHeader } from './open-metadata.js'

/** What is moved between two pairs of syncs. Enough that the syncs cost little, and little enough that an abort is answered soon. */
const batchBytes = 64 * 1024 * 1024
/** One request. */
const pieceBytes = 1024 * 1024
/** Copied at the same time. */
const piecesAtOnce = 4

/** What moving works with. Nothing else uses the image meanwhile. */
export type MoveWork = {
  readonly backend: BlockBackend
  readonly geometry: Geometry
  readonly map: ClusterMap
  readonly counts: CompactCounts
  readonly ordering: CompactOrdering
  /** Where the bytes of a guest's plain clusters depend on their place: what decrypts and encrypts them. */
  readonly data: GuestData | undefined
  readonly signal: AbortSignal | undefined
  /** So many clusters are where they belong. */
  readonly onMoved: (clusters: number) => void
}

/** A field that names a unit which is moved. */
type Reference = { readonly at: number; readonly move: Move }

/**
 * Move units to free clusters (E25). A batch after the other: counts up and copies, a barrier, all fields that refer to them, a barrier, counts down. From the
 * header down, level by level, so that what has been moved is looked for where it then stands.
 * @param moves  by ascending `first`; what they go to is free, durably
 * @throws the signal's reason, ERR_NO_SPACE, ERR_IO: then the image is whole, with some of it moved; at worst it leaks
 */
export async function moveUnits(work: MoveWork, moves: readonly Move[]): Promise<void> {
  let left = moves
  for (const level of levels) {
    if (left.length === 0) return
    const index = new MoveIndex(left, work.geometry.clusterSize)
    const references: Reference[] = []
    const guestData = new Set<Move>()
    const visit: Parameters<typeof eachPointer>[2] = ({ at, host, isGuestData }) => {
      const move = index.find(host)
      if (move === undefined) return
      references.push({ at, move })
      if (isGuestData) guestData.add(move)
    }
    await eachPointer(work.backend, level, visit, () => throwIfAborted(work.signal))
    references.sort((a, b) => a.move.first - b.move.first)
    const found = new Set(references.map(({ move }) => move))
    let next = 0
    for (const batch of batchesOf([...found], work.geometry)) {
      const inBatch = new Set(batch)
      const from = next
      while (next < references.length && inBatch.has((references[next] as Reference).move)) next++
      const here = references.slice(from, next)
      await moveBatch(work, batch, here, guestData)
      if (level === 'roots' || level === 'blocks') {
        const { header } = await readHeader(work.backend)
        await work.counts.load(header)
      }
      await lowerCounts(work, batch)
    }
    left = left.filter((move) => !found.has(move))
  }
  assert(left.length === 0, 'whatever is in use is referred to')
}

/** Which unit a byte of the file belongs to. */
class MoveIndex {
  readonly #moves: readonly Move[]
  readonly #clusterSize: number

  constructor(moves: readonly Move[], clusterSize: number) {
    this.#moves = moves
    this.#clusterSize = clusterSize
  }

  find(host: number): Move | undefined {
    const cluster = Math.floor(host / this.#clusterSize)
    let low = 0
    let high = this.#moves.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#moves[middle] as Move).first <= cluster) low = middle + 1
      else high = middle
    }
    const move = this.#moves[low - 1]
    return move !== undefined && cluster < move.first + move.clusters ? move : undefined
  }
}

/** @param moves  by ascending `first` */
function* batchesOf(moves: readonly Move[], { clusterSize }: Geometry): Generator<Move[]> {
  let batch: Move[] = []
  let bytes = 0
  for (const move of moves) {
    batch.push(move)
    bytes += move.clusters * clusterSize
    if (bytes < batchBytes) continue
    yield batch
    batch = []
    bytes = 0
  }
  if (batch.length > 0) yield batch
}

async function moveBatch(
  work: MoveWork,
  batch: readonly Move[],
  references: readonly Reference[],
  guestData: ReadonlySet<Move>,
): Promise<void> {
  const { map, counts, ordering } = work
  throwIfAborted(work.signal)
  try {
    for (const { first, clusters, to } of batch) {
      for (let step = 0; step < clusters; step++) {
        assert(map.isFree(to + step) && !map.isFree(first + step), 'what is used goes to what is free')
        counts.set(to + step, map.counts.get(first + step))
      }
    }
    // Before the copies: what is copied may be the very block that counts them.
    await counts.write()
    await copyAll(work, batch, guestData)
    await ordering.copied()
  } catch (error) {
    await uncount(work, batch)
    throw error
  }
  await switchReferences(work, references)
  await ordering.switched()
  for (const move of batch) map.moved(move)
}

/** Nothing refers to the new places. Does what it can: what cannot be written is a leak, and the caller has a better error to report. */
async function uncount({ counts, backend }: MoveWork, batch: readonly Move[]): Promise<void> {
  for (const { clusters, to } of batch) for (let step = 0; step < clusters; step++) counts.set(to + step, 0)
  if (backend.poisoned === undefined) await counts.write().catch(() => undefined)
}

async function lowerCounts(
  { counts, backend, geometry: { clusterSize }, onMoved }: MoveWork,
  batch: readonly Move[],
): Promise<void> {
  let moved = 0
  for (const { first, clusters } of batch) {
    for (let step = 0; step < clusters; step++) counts.set(first + step, 0)
    moved += clusters
  }
  // No barrier behind it: a crash that loses some of it leaks.
  await counts.write()
  // At once, since the next batch may need the space. What the host cannot take is cut off in the end, most of it.
  for (const { first, clusters } of runsOf(batch))
    await backend.punch(first * clusterSize, clusters * clusterSize).catch(() => undefined)
  onMoved(moved)
}

function* runsOf(batch: readonly Move[]): Generator<Unit> {
  let run: Unit | undefined
  for (const { first, clusters } of batch) {
    if (run !== undefined && run.first + run.clusters === first) {
      run = { first: run.first, clusters: run.clusters + clusters }
      continue
    }
    if (run !== undefined) yield run
    run = { first, clusters }
  }
  if (run !== undefined) yield run
}

type Piece = { readonly from: number; readonly to: number; readonly bytes: number; readonly data: boolean }

async function copyAll(work: MoveWork, batch: readonly Move[], guestData: ReadonlySet<Move>): Promise<void> {
  const pieces = piecesOf(batch, guestData, work.geometry)
  const copyOn = async (): Promise<void> => {
    for (let next = pieces.next(); next.done !== true; next = pieces.next()) {
      throwIfAborted(work.signal)
      await copyPiece(work, next.value)
    }
  }
  const outcomes = await Promise.allSettled(Array.from({ length: piecesAtOnce }, copyOn))
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
}

/** What is adjacent in both places is copied in one. */
function* piecesOf(
  batch: readonly Move[],
  guestData: ReadonlySet<Move>,
  { clusterSize }: Geometry,
): Generator<Piece> {
  let piece: Piece | undefined
  for (const move of batch) {
    for (let step = 0; step < move.clusters; step++) {
      const from = (move.first + step) * clusterSize
      const to = (move.to + step) * clusterSize
      const data = guestData.has(move)
      if (
        piece?.data === data &&
        piece.bytes + clusterSize <= pieceBytes &&
        piece.from + piece.bytes === from &&
        piece.to + piece.bytes === to
      ) {
        piece = { ...piece, bytes: piece.bytes + clusterSize }
        continue
      }
      if (piece !== undefined) yield piece
      piece = { from, to, bytes: clusterSize, data }
    }
  }
  if (piece !== undefined) yield piece
}

async function copyPiece(
  { backend, geometry, data }: MoveWork,
  { from, to, bytes, data: isGuestData }: Piece,
): Promise<void> {
  const buffer = new Uint8Array(bytes)
  if (isGuestData && data !== undefined) {
    // Where the guest has it makes no difference to LUKS.
    await data.read(buffer, from, 0)
    await data.write(buffer, to, 0)
    return
  }
  await backend.read(buffer, from)
  const { clusterSize } = geometry
  const zeros = new Uint8Array(clusterSize)
  for (let start = 0; start < bytes;) {
    const isZero = (at: number): boolean => Buffer.compare(buffer.subarray(at, at + clusterSize), zeros) === 0
    const startsZero = isZero(start)
    let end = start + clusterSize
    while (end < bytes && isZero(end) === startsZero) end += clusterSize
    // What takes no space, or need not, takes none afterwards.
    if (startsZero) await backend.writeZeroes(to + start, end - start, { unmap: true })
    else await backend.write(buffer.subarray(start, end), to + start)
    start = end
  }
}

/** Rewrite fields in place, slice by slice. Each lies within a sector: a crash shows the old one or the new one, and both are right. */
async function switchReferences(
  { backend, geometry }: MoveWork,
  references: readonly Reference[],
): Promise<void> {
  const { sliceSize, clusterSize } = geometry
  const bySlice = new Map<number, Reference[]>()
  for (const reference of references) {
    const slice = alignDown(reference.at, sliceSize)
    const others = bySlice.get(slice)
    if (others === undefined) bySlice.set(slice, [reference])
    else others.push(reference)
  }
  for (const [slice, fields] of bySlice) {
    const bytes = new Uint8Array(sliceSize)
    await backend.read(bytes, slice)
    const view = new DataView(bytes.buffer)
    for (const { at, move } of fields) {
      const distance = BigInt(move.to - move.first) * BigInt(clusterSize)
      view.setBigUint64(at - slice, view.getBigUint64(at - slice) + distance)
    }
    await backend.write(bytes, slice)
  }
}
