import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { createImage, type DiskImage, openImage, Qcow2Error } from '../../lib/index.js'
import type { CacheMode } from '../../lib/index.js'
import {
  compatOf,
  describeShape,
  makeBacking,
  randomShape,
  randomSize,
  type Shape,
  shownOver,
} from './image-shapes.js'
import { qemuCheck, qemuImg, qemuIo, qemuRead } from './qemu.js'
import type { SeededRandom } from './seeded-random.js'

/** Who runs the operations of a phase. */
export type Performer = 'ours' | 'qemu'

/** A disk under test beside the byte array that it must equal. */
export class SequenceRun {
  readonly shape: Shape
  /** One line for each thing done: the story of a failure. */
  readonly log: string[] = []
  readonly #random: SeededRandom
  readonly #path: string
  #content: Buffer
  #image: DiskImage | undefined

  private constructor(shape: Shape, path: string, content: Buffer, random: SeededRandom) {
    this.shape = shape
    this.#path = path
    this.#content = content
    this.#random = random
  }

  /** Create the image, by us or by the stock tool. */
  static async begin(folder: string, random: SeededRandom, creator: Performer): Promise<SequenceRun> {
    const shape = randomShape(random)
    const backing = shape.backing && (await makeBacking(folder, shape.backing, random))
    const path = join(folder, 'disk.qcow2')
    const run = new SequenceRun(shape, path, shownOver(backing?.content, shape.size), random)
    run.log.push(`create by ${creator}: ${describeShape(shape)}`)
    if (creator === 'ours') {
      await createImage(path, {
        size: shape.size,
        clusterSize: shape.clusterSize,
        compat: compatOf(shape),
        refcountBits: shape.refcountBits,
        extendedL2: shape.extendedL2 === true,
        ...(backing && shape.backing
          ? { backingFile: backing.name, backingFormat: shape.backing.format }
          : {}),
        ...(shape.dataFile === undefined
          ? {}
          : { dataFile: join(folder, 'data.raw'), dataFileRaw: shape.dataFile === 'raw' }),
      })
    } else {
      const { clusterSize, refcountBits } = shape
      // The stock tools look for a relative name where they run.
      const data =
        shape.dataFile === undefined
          ? ''
          : `,data_file=${join(folder, 'data.raw')},data_file_raw=${shape.dataFile === 'raw' ? 'on' : 'off'}`
      const extended = shape.extendedL2 === true ? ',extended_l2=on' : ''
      const options = `cluster_size=${clusterSize},compat=${compatOf(shape)},refcount_bits=${refcountBits}${data}${extended}`
      const over = backing && shape.backing ? ['-b', backing.name, '-F', shape.backing.format] : []
      await qemuImg('create', '-q', '-f', 'qcow2', '-o', options, ...over, path, String(shape.size))
    }
    return run
  }

  /** Some operations by one performer; then both read the disk. @throws Error  what differs */
  async phase(performer: Performer, operations: number): Promise<void> {
    if (performer === 'ours') await this.#ourPhase(operations)
    else await this.#qemuPhase(operations)
    const problem = await qemuCheck(this.#path)
    if (problem !== '') throw new Error(problem)
    const seen = await qemuRead(this.#path)
    // The stock tool is the judge of what its own operations mean.
    if (performer === 'qemu') this.#content = seen
    else this.#mustEqual(seen, 'qemu-img convert')
    const image = await openImage(this.#path, { readOnly: true, dataFile: 'allow' })
    try {
      this.#mustEqual(
        Buffer.from(await image.read({ offset: 0, length: image.size })),
        'our reading of a closed image',
      )
    } finally {
      await image.close()
    }
    if (this.shape.dataFile !== 'raw') return
    // The stock tool writes whole clusters, behind the end of the disk too.
    const data = await readFile(join(dirname(this.#path), 'data.raw'))
    this.#mustEqual(data.subarray(0, this.#content.length), 'the raw data file')
  }

  async #ourPhase(operations: number): Promise<void> {
    await this.#open()
    try {
      for (let index = 0; index < operations; index++) await this.#ourOperation()
      const image = this.#opened()
      this.#mustEqual(Buffer.from(await image.read({ offset: 0, length: image.size })), 'our reading')
    } finally {
      const image = this.#image
      this.#image = undefined
      await image?.close()
    }
  }

  async #open(): Promise<void> {
    const cache = this.#random.pick<CacheMode>([
      'writeback',
      'writeback',
      'none',
      'unsafe',
      'writethrough',
      'directsync',
      'unsafe-direct',
    ])
    // Small caches, so that tables are evicted and read again.
    const small = this.#random.chance(0.3) ? { l2CacheBytes: 0, refcountCacheBytes: 0 } : {}
    this.log.push(`open, cache=${cache}${'l2CacheBytes' in small ? ', no table caches' : ''}`)
    this.#image = await openImage(this.#path, { cache: { mode: cache, ...small }, dataFile: 'allow' })
  }

  #opened(): DiskImage {
    if (this.#image === undefined) throw new Error('the image is open during a phase')
    return this.#image
  }

  async #ourOperation(): Promise<void> {
    const random = this.#random
    const choice = random.integer(100)
    if (choice < 35) await this.#together(1)
    else if (choice < 60) await this.#together(random.between(2, 12))
    else if (choice < 70) await this.#readSome()
    else if (choice < 80) {
      this.log.push('flush')
      await this.#opened().flush()
    } else if (choice < 90) await this.#resize()
    else if (choice < 97) await this.#together(random.between(13, 40))
    else {
      this.log.push('close')
      await this.#opened().close()
      await this.#open()
    }
  }

  /** Several changes at the same time, of ranges that do not overlap: they meet in clusters and tables. */
  async #together(count: number): Promise<void> {
    const random = this.#random
    const size = this.#content.length
    if (size === 0) return
    const points = Array.from({ length: count * 2 }, () => this.#anyOffset(size)).sort((a, b) => a - b)
    const started: Promise<void>[] = []
    for (let index = 0; index < points.length; index += 2) {
      const offset = points[index] ?? 0
      const length = Math.min((points[index + 1] ?? 0) - offset, 300_000)
      if (length > 0) started.push(this.#change(offset, length))
    }
    if (random.chance(0.2)) started.push(this.#opened().flush())
    // All of them, so that none is still running when the first failure is told.
    for (const outcome of await Promise.allSettled(started)) {
      if (outcome.status === 'rejected') throw outcome.reason
    }
  }

  #anyOffset(below: number): number {
    const offset = this.#random.integer(below + 1)
    const { clusterSize } = this.shape
    if (this.#random.chance(0.3)) return offset - (offset % clusterSize)
    return this.#random.chance(0.5) ? offset - (offset % 512) : offset
  }

  /** Start one change, and make the byte array what it must lead to. */
  #change(offset: number, length: number): Promise<void> {
    const random = this.#random
    const image = this.#opened()
    const end = offset + length
    const kind = random.integer(10)
    if (kind < 6) {
      const fua = random.chance(0.1)
      this.log.push(`write ${offset} ${length}${fua ? ' fua' : ''}`)
      const bytes = random.bytes(length)
      this.#content.set(bytes, offset)
      return image.write(bytes, offset, { fua })
    }
    if (kind < 8) {
      const unmap = random.chance(0.5)
      this.log.push(`zeroes ${offset} ${length}${unmap ? ' unmap' : ''}`)
      this.#content.fill(0, offset, end)
      return image.writeZeroes({ offset, length, unmap })
    }
    this.log.push(`discard ${offset} ${length}`)
    // Whole clusters, and the last one of the disk if it is covered up to the end.
    const { clusterSize, version, backing } = this.shape
    const first = Math.ceil(offset / clusterSize) * clusterSize
    const last = end === this.#content.length ? end : Math.floor(end / clusterSize) * clusterSize
    const discarded = image.discard({ offset, length })
    if (first >= last) return discarded
    if (version === 2 && backing !== undefined && first < backing.size) return refused(discarded)
    this.#content.fill(0, first, last)
    return discarded
  }

  async #readSome(): Promise<void> {
    const size = this.#content.length
    const offset = this.#anyOffset(size)
    const length = Math.min(this.#anyOffset(size), size - offset)
    this.log.push(`read ${offset} ${length}`)
    const bytes = Buffer.from(await this.#opened().read({ offset, length }))
    this.#mustEqual(bytes, 'a read', offset, offset + length)
  }

  async #resize(): Promise<void> {
    const { clusterSize } = this.shape
    const size = this.#random.chance(0.5)
      ? randomSize(this.#random, clusterSize)
      : Math.max(0, this.#content.length + this.#random.between(-40, 40) * 512)
    this.log.push(`resize ${this.#content.length} -> ${size}`)
    await this.#opened().resize(size, { shrink: true })
    const resized = Buffer.alloc(size)
    this.#content.copy(resized, 0, 0, size)
    this.#content = resized
    if (this.#opened().size !== size)
      throw new Error(`size is ${this.#opened().size} after resizing to ${size}`)
  }

  async #qemuPhase(operations: number): Promise<void> {
    const commands: string[] = []
    const random = this.#random
    const sectors = this.#content.length / 512
    if (sectors === 0) return
    for (let index = 0; index < operations; index++) {
      const offset = random.integer(sectors) * 512
      const length = Math.min(random.between(1, 300) * 512, this.#content.length - offset)
      const kind = random.integer(10)
      if (kind < 6) commands.push(`write -q -P ${random.between(1, 255)} ${offset} ${length}`)
      else if (kind < 7) commands.push(`write -q -z ${offset} ${length}`)
      else if (kind < 8) commands.push(`write -q -z -u ${offset} ${length}`)
      else if (kind < 9) commands.push(`flush`)
      else if (this.shape.version === 3) commands.push(`discard -q ${offset} ${length}`)
    }
    this.log.push(...commands.map((command) => `qemu-io ${command}`))
    await qemuIo(this.#path, commands, ['-f', 'qcow2', '-d', 'unmap'])
  }

  #mustEqual(seen: Buffer, reader: string, from = 0, to = this.#content.length): void {
    const expected = this.#content.subarray(from, to)
    if (seen.equals(expected)) return
    if (seen.length !== expected.length) {
      throw new Error(`${reader}: ${seen.length} bytes where ${expected.length} are right`)
    }
    const at = seen.findIndex((byte, index) => byte !== expected[index])
    throw new Error(`${reader}: byte ${from + at} is ${seen[at]} where ${expected[at]} is right`)
  }
}

/** Version 2 has no zero flag: over a backing file a discarded cluster would show the backing file's bytes again. */
async function refused(discarded: Promise<void>): Promise<void> {
  const error = await discarded.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (error instanceof Qcow2Error && error.code === 'ERR_NOT_SUPPORTED') return
  throw new Error('a discard in a version 2 image over a backing file must be refused', { cause: error })
}
