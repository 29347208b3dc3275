import { alignDown, alignUp } from '../base/integers.js'
import { Qcow2Error } from '../base/errors.js'
import { sectorSize } from '../base/units.js'
import { DiskImage } from '../image/disk-image.js'
import type { Extent } from '../image/layers.js'

/** What copying needs of a source. */
export type ReadableDisk = Pick<DiskImage, 'size' | 'readInto' | 'extents'>

/** A part of a disk that could not be read, and is zeros in the copy. */
export type LostRun = {
  /** Guest bytes; of the whole, where several disks are put one behind the other. */
  readonly offset: number
  readonly length: number
  /** What was said of its first bytes. */
  readonly reason: string
}

/** Most runs that are remembered one by one: a disk that fails at every second sector must not fill the memory. */
const mostLostRuns = 10_000

/** What a copy had to do without. Pieces are read side by side, so that it is told in any order. */
export class Losses {
  /** Guest bytes. */
  bytes = 0
  readonly #runs: LostRun[] = []

  add(run: LostRun): void {
    this.bytes += run.length
    if (this.#runs.length < mostLostRuns) this.#runs.push(run)
  }

  /** In order, neighbours as one. Of very many, the first that were met. */
  get runs(): LostRun[] {
    const joined: LostRun[] = []
    for (const run of this.#runs.sort((a, b) => a.offset - b.offset)) {
      const before = joined.at(-1)
      if (before !== undefined && before.offset + before.length === run.offset)
        joined[joined.length - 1] = { ...before, length: before.length + run.length }
      else joined.push(run)
    }
    return joined
  }
}

/**
 * Disks of which all is read that can be read: what cannot shows as zeros, and is told to `losses`. Damage of an image and failures of the
 * host's disk are gone past; everything else is thrown as ever: a closed image, memory, a feature that nobody here can read.
 * @param disks  to be put one behind the other
 */
export function salvagedDisks(disks: readonly DiskImage[], losses: Losses): ReadableDisk[] {
  let start = 0
  return disks.map((disk) => {
    const salvaged = new SalvagedDisk(disk, start, smallestCluster(disk), losses)
    start += disk.size
    return salvaged
  })
}

/** Bytes that every layer has in one place: where the tables say nothing sound of one of them, they say it of all. */
function smallestCluster(disk: DiskImage): number {
  const sizes = DiskImage.layersOf(disk).flatMap(({ format }) => {
    const { clusterSize, subclusterSize = clusterSize } = format
    return clusterSize < sectorSize ? [] : [subclusterSize]
  })
  return Math.min(...sizes, 2 ** 21)
}

export class SalvagedDisk implements ReadableDisk {
  readonly #disk: ReadableDisk
  readonly #start: number
  readonly #unit: number
  readonly #losses: Losses

  /** @param unit  bytes: where an entry is damaged, so many at a multiple of it are lost */
  constructor(disk: ReadableDisk, start: number, unit: number, losses: Losses) {
    this.#disk = disk
    this.#start = start
    this.#unit = unit
    this.#losses = losses
  }

  get size(): number {
    return this.#disk.size
  }

  /** In halves, down to what has failed: a cluster whose entry is damaged, a sector that the host cannot read. */
  async readInto(bytes: Uint8Array, offset: number): Promise<void> {
    try {
      await this.#disk.readInto(bytes, offset)
    } catch (error) {
      const damage = damageOf(error)
      const middle = middleOf(offset, bytes.length, damage.code === 'ERR_CORRUPT' ? this.#unit : sectorSize)
      if (middle === undefined) {
        bytes.fill(0)
        this.#losses.add({ offset: this.#start + offset, length: bytes.length, reason: damage.message })
        return
      }
      await this.readInto(bytes.subarray(0, middle - offset), offset)
      await this.readInto(bytes.subarray(middle - offset), middle)
    }
  }

  /** What the tables say nothing sound of counts as data: reading it tells what is lost. */
  async *extents(): AsyncGenerator<Extent, void, undefined> {
    const { size } = this.#disk
    let window = size
    for (let position = 0; position < size;) {
      const length = Math.min(window, size - position)
      try {
        for await (const extent of this.#disk.extents({ offset: position, length })) {
          position = extent.offset + extent.length
          yield extent
        }
        window = length * 2
      } catch (error) {
        damageOf(error)
        // Step by step up to the damage, and past it, then in longer steps again.
        const first = Math.min(alignUp(position + 1, this.#unit), size) - position
        if (length <= first) {
          yield { ...unknown, offset: position, length }
          position += length
        }
        window = this.#unit
      }
    }
  }
}

const unknown = { allocated: true, zero: false, data: true, compressed: false, depth: 0 } as const

/** @throws what is no damage of the source */
function damageOf(error: unknown): Qcow2Error {
  if (error instanceof Qcow2Error && (error.code === 'ERR_CORRUPT' || error.code === 'ERR_IO')) return error
  throw error
}

/** Where to cut a run in two, at a multiple of `unit`; undefined: there is none within it. */
function middleOf(offset: number, length: number, unit: number): number | undefined {
  const half = alignDown(offset + Math.floor(length / 2), unit)
  const middle = half > offset ? half : alignUp(offset + 1, unit)
  return middle < offset + length ? middle : undefined
}
