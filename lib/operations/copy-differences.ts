import { assert } from '../base/assert.js'
import { alignUp } from '../base/integers.js'
import { sectorSize } from '../base/units.js'
import { DiskImage } from '../image/disk-image.js'
import type { Extent } from '../image/layers.js'
import { Qcow2Image } from '../qcow2/image.js'
import { cutIntoPieces, type Piece } from './copy-pieces.js'
import { type Pair, pairs } from './extent-pairs.js'
import { runPieces } from './run-pieces.js'
import { differentRuns, zeroRuns } from './zero-scan.js'

export type DifferencesOptions = {
  readonly signal: AbortSignal | undefined
  /** Told of every piece that is done: guest bytes. */
  readonly onDone: (bytes: number) => void
}

/** Guest bytes compared at a time, at least. */
const pieceSize = 1024 * 1024

/** What needs no look, in one piece: only told of as done. */
const samePieceSize = 2 ** 40

const requests = 8

/**
 * Copy into an image what it shows of its backing files, wherever another chain shows something else: by whole clusters, or subclusters where it has them. Afterwards it shows the same on either.
 * @param other  undefined: zeros
 * @returns bytes written as data
 */
export async function copyDifferences(
  image: DiskImage,
  other: DiskImage | undefined,
  options: DifferencesOptions,
): Promise<number> {
  const { clusterSize, subclusterSize = clusterSize } = DiskImage.layersOf(image)[0].format
  const unit = Math.max(subclusterSize, sectorSize)
  const data = alignUp(pieceSize, unit)
  let written = 0
  await runPieces(
    cutIntoPieces(compared(image, other), image.size, unit, { data, zero: samePieceSize }),
    2 * data,
    async ({ offset, length, zero }, memory) => {
      if (!zero) {
        const [old, now] = [memory.subarray(0, length), memory.subarray(data, data + length)]
        await Promise.all([image.readInto(old, offset), readOther(other, now, offset)])
        for (const { start, end } of differentRuns(old, now, unit)) {
          // Others add to the sum meanwhile.
          const kept = await keep(image, old.subarray(start, end), offset + start, unit)
          written += kept
        }
      }
      options.onDone(length)
    },
    { requests, signal: options.signal },
  )
  return written
}

/** Write what is to be kept. @param unit  bytes: of a cluster or subcluster, as it is allocated @returns bytes written as data */
async function keep(image: DiskImage, bytes: Uint8Array, offset: number, unit: number): Promise<number> {
  let written = 0
  const top = DiskImage.layersOf(image)[0].format
  assert(top instanceof Qcow2Image, 'only a qcow2 image has a backing file')
  for (const { start, end, zero } of zeroRuns(bytes, unit)) {
    const place = offset + start
    // Not as a guest's zeros: behind the end of the old backing file they would need nothing, and the new one may be longer.
    if (zero) await top.hideBacking(place, end - start)
    else {
      await image.write(bytes.subarray(start, end), place)
      written += end - start
    }
  }
  return written
}

/** Bytes of the other chain; past its end are zeros. */
async function readOther(other: DiskImage | undefined, bytes: Uint8Array, offset: number): Promise<void> {
  const covered = Math.max(0, Math.min(bytes.length, (other?.size ?? 0) - offset))
  bytes.fill(0, covered)
  if (covered > 0) await other?.readInto(bytes.subarray(0, covered), offset)
}

/** The disk in order: what is the same on either chain without a look (here called zero), and what has to be looked at. */
async function* compared(
  image: DiskImage,
  other: DiskImage | undefined,
): AsyncGenerator<Piece, void, undefined> {
  for await (const pair of pairs(image.extents(), extentsOfOther(other, image.size))) {
    yield { offset: pair.offset, length: pair.length, zero: isSame(image, other, pair) }
  }
}

async function* extentsOfOther(
  other: DiskImage | undefined,
  size: number,
): AsyncGenerator<Extent, void, undefined> {
  const covered = Math.min(size, other?.size ?? 0)
  if (other !== undefined) yield* other.extents({ length: covered })
  const nothing = { allocated: false, zero: true, data: false, compressed: false, depth: 0 }
  if (covered < size) yield { offset: covered, length: size - covered, ...nothing }
}

function isSame(image: DiskImage, other: DiskImage | undefined, { offset, a, b }: Pair): boolean {
  const isOwn = a.allocated && a.depth === 0
  if (isOwn || (a.zero && b.zero)) return true
  if (other === undefined || a.hostOffset === undefined || b.hostOffset === undefined) return false
  // One file may stand in both chains.
  const one = DiskImage.layersOf(image)[a.depth]?.identity
  const isOneFile = one !== undefined && one === DiskImage.layersOf(other)[b.depth]?.identity
  return isOneFile && a.hostOffset + offset - a.offset === b.hostOffset + offset - b.offset
}
