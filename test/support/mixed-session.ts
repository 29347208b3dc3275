import { type CacheMode, type DiskImage, openImage } from '../../lib/index.js'
import { ourBitmapStep } from './bitmap-model.js'
import { attempt, type MixedImage, opened, randomSize } from './mixed-chain.js'
import { mustEqual } from './mixed-judge.js'
import type { SeededRandom } from './seeded-random.js'

const modes: readonly CacheMode[] = [
  ...['writeback', 'writeback', 'none', 'unsafe', 'writethrough', 'directsync', 'unsafe-direct'],
] as readonly CacheMode[]

/** Most internal snapshots of an image at a time: refcounts of four bits count them. */
export const mostSnapshots = 6

type Range = { readonly offset: number; readonly length: number }

/** What a guest and its manager do with an open disk, at random, beside what it must lead to. */
export class MixedSession {
  readonly #random: SeededRandom
  readonly #log: string[]
  readonly #disk: DiskImage
  readonly #image: MixedImage
  /** Version 2 cannot hide what is below; as far as that reaches, discards are refused. */
  readonly #shownThrough: number

  private constructor(
    disk: DiskImage,
    image: MixedImage,
    shownThrough: number,
    random: SeededRandom,
    log: string[],
  ) {
    this.#disk = disk
    this.#image = image
    this.#shownThrough = shownThrough
    this.#random = random
    this.#log = log
  }

  /** Open the top of a chain, do so many things, and close it. @throws Error  something differs, or fails */
  static async run(
    chain: readonly [MixedImage, ...MixedImage[]],
    steps: number,
    random: SeededRandom,
    log: string[],
  ): Promise<void> {
    const [image, below] = chain
    const mode = random.pick(modes)
    // Small caches, so that tables are evicted and read again.
    const small = random.chance(0.3) ? { l2CacheBytes: 0, refcountCacheBytes: 0 } : {}
    log.push(`open ${image.name}, cache ${mode}${'l2CacheBytes' in small ? ', no table caches' : ''}`)
    const disk = await openImage(image.path, { ...opened, cache: { mode, ...small } })
    const shownThrough = image.version === 2 ? (below?.content.length ?? 0) : 0
    const session = new MixedSession(disk, image, shownThrough, random, log)
    try {
      for (let left = steps; left > 0; left--) await session.#step()
      await session.#readAll()
    } finally {
      await disk.close()
    }
  }

  async #step(): Promise<void> {
    const choice = this.#random.integer(100)
    if (choice < 40) await this.#changes()
    else if (choice < 48) await this.#compressed()
    else if (choice < 52) await this.#disk.flush()
    else if (choice < 57) await this.#readAll()
    else if (choice < 65) await this.#resize()
    else if (choice < 73) await this.#createSnapshot()
    else if (choice < 79) await this.#applySnapshot()
    else if (choice < 84) await this.#deleteSnapshot()
    else await this.#changeBitmaps()
  }

  async #readAll(): Promise<void> {
    const { content } = this.#image
    const seen = Buffer.from(await this.#disk.read({ offset: 0, length: this.#disk.size }))
    mustEqual(seen, content, 'our reading while it is open')
  }

  /** Some at the same time, of ranges that do not overlap: they meet in clusters and tables. */
  async #changes(): Promise<void> {
    const size = this.#image.content.length
    const count = this.#random.pick([1, 2, 4, 12])
    const points = Array.from({ length: count * 2 }, () => this.#anyOffset(size)).sort((a, b) => a - b)
    const running: Promise<unknown>[] = []
    for (let index = 0; index < points.length; index += 2) {
      const offset = points[index] ?? 0
      const length = Math.min((points[index + 1] ?? 0) - offset, 200_000)
      if (length > 0) running.push(this.#change({ offset, length }))
    }
    if (this.#random.chance(0.2)) running.push(this.#disk.flush())
    // All of them, so that none is still running when the first failure is told.
    for (const outcome of await Promise.allSettled(running))
      if (outcome.status === 'rejected') throw outcome.reason
  }

  #anyOffset(below: number): number {
    const offset = this.#random.integer(below + 1)
    if (this.#random.chance(0.3)) return offset - (offset % this.#image.clusterSize)
    return this.#random.chance(0.5) ? offset - (offset % 512) : offset
  }

  #change({ offset, length }: Range): Promise<unknown> {
    const { content, bitmaps, clusterSize } = this.#image
    const kind = this.#random.pick(['write', 'write', 'write', 'zeroes', 'discard'])
    this.#log.push(`${kind} ${offset} ${length}`)
    bitmaps.touch(offset, length)
    const end = offset + length
    if (kind === 'write') {
      const bytes = this.#random.bytes(length)
      content.set(bytes, offset)
      return this.#disk.write(bytes, offset, { fua: this.#random.chance(0.1) })
    }
    if (kind === 'zeroes') {
      content.fill(0, offset, end)
      return this.#disk.writeZeroes({ offset, length, unmap: this.#random.chance(0.5) })
    }
    // Whole clusters, and the last one of the disk if it is covered up to the end.
    const first = Math.ceil(offset / clusterSize) * clusterSize
    const last = end === content.length ? end : Math.floor(end / clusterSize) * clusterSize
    const must = first < last && first < this.#shownThrough
    if (first < last && !must) content.fill(0, first, last)
    return attempt(this.#disk.discard({ offset, length }), { must })
  }

  async #compressed(): Promise<void> {
    const { content, clusterSize, bitmaps, encrypted, dataFile } = this.#image
    const clusters = Math.floor(content.length / clusterSize)
    if (clusters === 0) return
    const offset = this.#random.integer(clusters) * clusterSize
    const count = this.#random.between(1, Math.min(3, clusters - offset / clusterSize))
    const bytes = Buffer.alloc(count * clusterSize, this.#random.bytes(64))
    this.#log.push(`compressed ${offset} ${bytes.length}`)
    const must = encrypted || dataFile !== undefined
    if (!must) content.set(bytes, offset)
    // Bytes are marked before anybody looks at what is to be done to them.
    bitmaps.touch(offset, bytes.length)
    await attempt(this.#disk.writeCompressed(bytes, offset), { must })
  }

  async #resize(): Promise<void> {
    const image = this.#image
    const before = image.content.length
    const size = this.#random.chance(0.5)
      ? randomSize(this.#random, image.clusterSize)
      : Math.max(512, before + this.#random.between(-40, 40) * 512)
    const preallocation = size > before && this.#random.chance(0.2) ? 'metadata' : 'off'
    this.#log.push(`resize ${before} -> ${size}, preallocation ${preallocation}`)
    const may = image.version === 2 && image.snapshots.length > 0
    const must = may && size !== before
    const isDone = await attempt(this.#disk.resize(size, { shrink: true, preallocation }), { must, may })
    if (isDone) resized(image, size, true)
    else this.#log.push('refused')
  }

  async #createSnapshot(): Promise<void> {
    const image = this.#image
    if (image.snapshots.length >= mostSnapshots) return
    const name = this.#random.pick(['a', 'b', '1', '2', 'größer', 'with blanks in it'])
    this.#log.push(`create snapshot ${name}`)
    const must = image.dataFile !== undefined
    let id = ''
    const making = this.#disk.snapshots.create(name).then((made) => void (id = made.id))
    if (await attempt(making, { must, may: must || isNarrow(image) }))
      image.snapshots.push({ id, name, content: Buffer.from(image.content), size: image.content.length })
    else this.#log.push('refused')
  }

  async #applySnapshot(): Promise<void> {
    const image = this.#image
    if (image.snapshots.length === 0) return
    const { id, content, size } = this.#random.pick(image.snapshots)
    // Nobody can say what it shows before both tools have.
    if (content === undefined) return
    this.#log.push(`apply snapshot ${id}`)
    const isOther = image.version === 2 && size !== image.content.length
    const must = image.bitmaps.all.size > 0 || isOther
    if (await attempt(this.#disk.snapshots.apply({ id }), { must, may: must || isNarrow(image) })) {
      image.content = Buffer.from(content)
      image.bitmaps.resize(size, { marksGrowth: false })
    } else this.#log.push('refused')
  }

  async #deleteSnapshot(): Promise<void> {
    const image = this.#image
    if (image.snapshots.length === 0) return
    const gone = this.#random.pick(image.snapshots)
    this.#log.push(`delete snapshot ${gone.id}`)
    await this.#disk.snapshots.delete({ id: gone.id, name: gone.name })
    image.snapshots = image.snapshots.filter((other) => other !== gone)
  }

  async #changeBitmaps(): Promise<void> {
    const { bitmaps, version } = this.#image
    if (version === 2) {
      await attempt(this.#disk.bitmaps.add('never'), { must: true })
      return
    }
    const step = bitmaps.anyStep(this.#random)
    this.#log.push(`bitmap ${Object.values(step).join(' ')}`)
    await ourBitmapStep(this.#disk, step)
  }
}

/** Counts may be too narrow for another snapshot: of clusters, and of those that many compressed ones share. */
export const isNarrow = ({ refcountBits }: MixedImage): boolean => refcountBits <= 8

/** Make a disk as long as it has become. */
export function resized(image: MixedImage, size: number, marksGrowth: boolean): void {
  const content = Buffer.alloc(size)
  image.content.copy(content, 0, 0, size)
  image.content = content
  image.bitmaps.resize(size, { marksGrowth })
}
