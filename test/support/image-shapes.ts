import { join } from 'node:path'
import { qemuImg, qemuIo } from './qemu.js'
import type { SeededRandom } from './seeded-random.js'

/** How a qcow2 image of a test is made. */
export type Shape = {
  readonly version: 2 | 3
  readonly clusterSize: number
  readonly refcountBits: number
  readonly extendedL2?: boolean
  /** Guest bytes, whole sectors. */
  readonly size: number
  readonly backing: BackingShape | undefined
  /** The guest's data are in a file of their own. */
  readonly dataFile?: 'plain' | 'raw' | undefined
}

export type BackingShape = {
  readonly format: 'raw' | 'qcow2'
  /** Guest bytes; less or more than the overlay's. */
  readonly size: number
}

export const clusterSizes = [512, 4096, 65536, 2 * 1024 * 1024] as const
/** Of images with extended L2 entries. */
export const extendedClusterSizes = [16384, 32768, 65536, 2 * 1024 * 1024] as const
export const refcountWidths = [1, 2, 4, 8, 16, 32, 64] as const

/** A size of a few clusters, whole sectors, seldom whole clusters. */
export function randomSize(random: SeededRandom, clusterSize: number): number {
  const most = Math.min(Math.max(clusterSize * 40, 256 * 1024), 5 * 1024 * 1024)
  return random.between(1, most / 512) * 512
}

export function randomShape(random: SeededRandom): Shape {
  const extendedL2 = random.chance(0.3)
  const version = !extendedL2 && random.chance(0.3) ? 2 : 3
  const clusterSize = random.pick<number>(extendedL2 ? extendedClusterSizes : clusterSizes)
  const size = randomSize(random, clusterSize)
  const backing = random.chance(0.5)
    ? {
        format: random.pick(['raw', 'qcow2']),
        size: random.chance(0.3) ? size : randomSize(random, clusterSize),
      }
    : undefined
  return {
    version,
    clusterSize,
    extendedL2,
    size,
    backing,
    refcountBits: version === 2 ? 16 : random.pick(refcountWidths),
    dataFile:
      version === 3 && !extendedL2 && random.chance(0.3)
        ? backing === undefined
          ? random.pick(['plain', 'raw'])
          : 'plain'
        : undefined,
  }
}

export function describeShape(shape: Shape): string {
  const { backing } = shape
  const over = backing === undefined ? '' : ` over ${backing.format} of ${backing.size} bytes`
  const entries = shape.extendedL2 === true ? ', extended' : ''
  const data = shape.dataFile === undefined ? '' : `, ${shape.dataFile} data file`
  return `version ${shape.version}, clusters ${shape.clusterSize}${entries}, refcounts ${shape.refcountBits} bits, ${shape.size} bytes${over}${data}`
}

/** What `qemu-img create -o` and `createImage` call it. */
export const compatOf = (shape: Shape): '0.10' | '1.1' => (shape.version === 2 ? '0.10' : '1.1')

/**
 * Make a backing file by the stock tools: bytes other than zero with holes among them.
 * @returns its name, beside the overlay, and what its guest sees
 */
export async function makeBacking(
  folder: string,
  shape: BackingShape,
  random: SeededRandom,
): Promise<{ name: string; content: Buffer }> {
  const name = `base.${shape.format}`
  const path = join(folder, name)
  const content = Buffer.alloc(shape.size)
  await qemuImg('create', '-q', '-f', shape.format, path, String(shape.size))
  const commands: string[] = []
  for (let index = 0; index < 8; index++) {
    const offset = random.integer(shape.size / 512) * 512
    const length = Math.min(random.between(1, 256) * 512, shape.size - offset)
    const pattern = random.between(1, 255)
    content.fill(pattern, offset, offset + length)
    commands.push(`write -q -P ${pattern} ${offset} ${length}`)
  }
  await qemuIo(path, commands, ['-f', shape.format])
  return { name, content }
}

/** What an overlay of `size` bytes shows before it is written: the backing file, then zeros. */
export function shownOver(backing: Buffer | undefined, size: number): Buffer {
  const shown = Buffer.alloc(size)
  backing?.copy(shown, 0, 0, size)
  return shown
}
