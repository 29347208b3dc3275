import { stat } from 'node:fs/promises'
import { sectorSize } from '../base/units.js'
import type { BlockBackend } from '../queue/backend.js'
import type { BackingSource, FormatImage } from '../queue/format-image.js'
import type { OpenDataFile } from './data-file.js'
import type { FileIdentity } from './image-file.js'

/** One image of a chain. */
export type Layer = {
  readonly format: FormatImage
  /** The file that `format` reads: for holes. `format.close()` closes it. */
  readonly backend: BlockBackend
  /** Where `format` has its plain clusters, if not in that file. It closes that too. */
  readonly dataFile?: OpenDataFile | undefined
  /** Which file it is, if it was opened by its path. */
  readonly identity?: FileIdentity | undefined
  /** The name that the image above has for it. */
  readonly reference?: string | undefined
  /** Nobody named its format, and it looked like nothing else. */
  readonly rawWasGuessed?: boolean
  /** It belongs to another disk, which is open: see BackingAnswer. */
  readonly isBorrowed?: boolean
}

/** What a chain of layers stores at a run of guest bytes. */
export type Extent = {
  /** Guest bytes. */
  readonly offset: number
  readonly length: number
  /** Some layer says what these bytes are; otherwise they are zeros because nothing was ever written. */
  readonly allocated: boolean
  /** Known to read as zeros without looking at the bytes. */
  readonly zero: boolean
  /** There are bytes on the host, be they zeros. */
  readonly data: boolean
  readonly compressed: boolean
  /** Which layer says so: 0 is the image itself, 1 its backing file, ... */
  readonly depth: number
  /** Where the bytes stand in the file of that layer, if they stand there as they are; of zeros, where there is room for them. */
  readonly hostOffset?: number
}

/**
 * Which layers have clusters in use that are holes of their file, as preallocated ones are. Judged as QEMU judges it, by the size of
 * the file and the space it takes; where none are to be expected, nobody has to ask the file for each run.
 */
export async function findSparseLayers(layers: readonly Layer[]): Promise<boolean[]> {
  return Promise.all(
    layers.map(async ({ format, backend, dataFile, identity }) => {
      if (format.format === 'raw' || dataFile !== undefined) return false
      const clusters = Math.ceil(backend.length / format.clusterSize)
      // What was not opened by its path has no file of that name.
      const { blocks } =
        identity === undefined ? { blocks: 0 } : await stat(backend.path).catch(() => ({ blocks: 0 }))
      const onDisk = Math.floor((blocks * sectorSize) / format.clusterSize)
      return clusters >= Math.max(Math.floor((onDisk * 10) / 9), onDisk + 2)
    }),
  )
}

/**
 * What stands at `offset`, looked up through all layers that cover it.
 * @param length  > 0 and within the size of the first layer
 * @param sparse  by layer: see findSparseLayers
 * @returns a run of at most `length` bytes
 */
export async function lookUpExtent(
  layers: readonly Layer[],
  offset: number,
  length: number,
  sparse: readonly boolean[],
): Promise<Extent> {
  let run = length
  let depth = 0
  let hostOffset: number | undefined
  for (; ; depth++) {
    const layer = layers[depth]
    // Below the last layer, and past the end of a shorter one, are zeros. The deepest layer that covers them says so.
    if (layer === undefined || offset >= layer.format.size) break
    const mapping = await layer.format.mapping(offset, Math.min(run, layer.format.size - offset))
    run = mapping.length
    const found = { offset, allocated: true, depth, compressed: false }
    switch (mapping.type) {
      case 'unallocated':
        hostOffset = mapping.hostOffset
        continue
      case 'compressed':
        return { ...found, length: run, zero: false, data: true, compressed: true }
      case 'zero': {
        const where = mapping.hostOffset === undefined ? {} : { hostOffset: mapping.hostOffset }
        return { ...found, length: run, zero: true, data: false, ...where }
      }
      case 'data': {
        if (mapping.encrypted === true) return { ...found, length: run, zero: false, data: true }
        const where = { hostOffset: mapping.hostOffset }
        if (sparse[depth] !== true) return { ...found, length: run, zero: false, data: true, ...where }
        const hole = await fileRun(layer.backend, mapping.hostOffset, run)
        return { ...found, length: hole.length, zero: !hole.data, data: true, ...where }
      }
    }
  }
  return {
    offset,
    length: run,
    allocated: false,
    zero: true,
    data: false,
    compressed: false,
    depth: Math.max(0, depth - 1),
    ...(hostOffset === undefined ? {} : { hostOffset }),
  }
}

/** How a file stores a run of its bytes. What lies past its end is a hole. */
async function fileRun(
  backend: BlockBackend,
  offset: number,
  length: number,
): Promise<{ length: number; data: boolean }> {
  const extent = await backend.extent(offset)
  return extent.length === 0
    ? { length, data: false }
    : { ...extent, length: Math.min(length, extent.length) }
}

/** The layers below an image, as the format asks for them. */
export class LayersBelow implements BackingSource {
  readonly #layers: readonly Layer[]
  readonly #top: FormatImage

  /** @param layers  at least one; the first is the backing file of the image above */
  constructor(layers: readonly [Layer, ...Layer[]]) {
    this.#layers = layers
    this.#top = layers[0].format
  }

  get size(): number {
    return this.#top.size
  }

  read(bytes: Uint8Array, offset: number): Promise<void> {
    const covered = this.#top.size - offset
    if (bytes.length <= covered) return this.#top.read(bytes, offset)
    if (covered <= 0) {
      bytes.fill(0)
      return Promise.resolve()
    }
    bytes.fill(0, covered)
    return this.#top.read(bytes.subarray(0, covered), offset)
  }

  async readsAsZeros(offset: number, length: number): Promise<boolean> {
    const end = Math.min(offset + length, this.#top.size)
    for (let position = offset; position < end;) {
      const extent = await lookUpExtent(this.#layers, position, end - position, [])
      if (!extent.zero) return false
      position += extent.length
    }
    return true
  }
}

/** Up to the end of the disk is whole as well. */
export function isWholeClusters({ clusterSize, size }: FormatImage, offset: number, length: number): boolean {
  const end = offset + length
  return offset % clusterSize === 0 && (end % clusterSize === 0 || end === size)
}

/** The image may be an overlay that came in between, with larger clusters: what are parts of those is written as it is. */
export function writeCompressedOn(image: FormatImage, bytes: Uint8Array, offset: number): Promise<void> {
  return image.writeCompressed !== undefined && isWholeClusters(image, offset, bytes.length)
    ? image.writeCompressed(bytes, offset)
    : image.write(bytes, offset)
}
