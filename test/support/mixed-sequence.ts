import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { amendImage, type AmendOptions, commitImage, openImage, rebaseImage } from '../../lib/index.js'
import { BitmapModel } from './bitmap-model.js'
import { refcountWidths, shownOver } from './image-shapes.js'
import {
  attempt,
  describe,
  makeForeignBase,
  makeImage,
  type MixedChain,
  type MixedImage,
  opened,
  stockAttempt,
  stockName,
} from './mixed-chain.js'
import { adoptBitmaps, judge } from './mixed-judge.js'
import { MixedSession, resized } from './mixed-session.js'
import { adoptTail, StockSession } from './mixed-stock.js'
import type { SeededRandom } from './seeded-random.js'

/** Images of a chain, at most. */
const longestChain = 4

/**
 * A disk of any kind that is written, discarded, compressed, resized, frozen and set back, tracked by bitmaps, put on other images and committed into them, amended,
 * closed and opened, by us and by the stock tools in turn, beside a model of all that.
 */
export class MixedSequence {
  /** One line for each thing done: the story of a failure. */
  readonly log: string[]
  readonly #random: SeededRandom
  readonly #folder: string
  #chain: MixedChain
  #images = 1

  private constructor(folder: string, random: SeededRandom, chain: MixedChain, log: string[]) {
    this.#folder = folder
    this.#random = random
    this.#chain = chain
    this.log = log
  }

  static async begin(folder: string, random: SeededRandom, log: string[]): Promise<MixedSequence> {
    const below = random.chance(0.3) ? [await makeForeignBase(folder, random)] : []
    const image = await makeImage(folder, 'image0', below, random)
    log.push(...[image, ...below].map(describe))
    return new MixedSequence(folder, random, [image, ...below], log)
  }

  /** @throws Error  what differs */
  async run(rounds: number): Promise<void> {
    for (let round = 0; round < rounds; round++) {
      const choice = this.#random.integer(100)
      if (choice < 45)
        await MixedSession.run(this.#chain, this.#random.between(2, 14), this.#random, this.log)
      else if (choice < 65) {
        const stock = new StockSession(this.#chain, this.#random, this.log)
        for (let left = this.#random.between(1, 3); left > 0; left--) await stock.step()
      } else if (choice < 77) await this.#amend()
      else if (this.#chain.length === 1) await this.#overlay()
      else if (choice < 83) await this.#overlay()
      else if (choice < 93) await this.#commit()
      else await this.#rebase()
      await judge(this.#chain, this.#random)
    }
    for (let depth = 1; depth < this.#chain.length; depth++)
      await judge(this.#chain.slice(depth), this.#random)
  }

  /** A new image on top, made while the disk is closed, or open and written to. */
  async #overlay(): Promise<void> {
    if (this.#chain.length >= longestChain) return
    const name = `image${this.#images++}`
    if (this.#random.chance(0.6)) {
      const image = await makeImage(this.#folder, name, this.#chain, this.#random)
      this.log.push(`overlay ${describe(image)}`)
      this.#chain = [image, ...this.#chain]
      return
    }
    const [below] = this.#chain
    const version = this.#random.pick([3, 3, 2] as const)
    const shape = {
      clusterSize: this.#random.pick([512, 4096, 65536]),
      refcountBits: version === 2 ? 16 : this.#random.pick<number>([...refcountWidths]),
    }
    const path = join(this.#folder, `${name}.qcow2`)
    const image: MixedImage = {
      ...{ name: `${name}.qcow2`, path, format: 'qcow2', version, ...shape },
      ...{ extendedL2: false, encrypted: false, dataFile: undefined, dataFileRaw: false },
      ...{
        bitmaps: new BitmapModel(below.content.length),
        snapshots: [],
        content: Buffer.from(below.content),
      },
    }
    const disk = await openImage(below.path, opened)
    try {
      const bytes = this.#random.bytes(Math.min(5000, below.content.length))
      await disk.write(bytes, 0)
      below.content.set(bytes, 0)
      below.bitmaps.touch(0, bytes.length)
      this.log.push(`write 0 ${bytes.length}, overlay while it is open: ${describe(image)}`)
      await disk.createOverlay(path, { ...shape, compat: version === 2 ? '0.10' : '1.1', encrypt: false })
      const more = this.#random.bytes(Math.min(9000, below.content.length))
      await disk.write(more, 0)
      image.content = Buffer.from(below.content)
      image.content.set(more, 0)
    } finally {
      await disk.close()
    }
    this.#chain = [image, ...this.#chain]
  }

  async #commit(): Promise<void> {
    const [top, ...below] = this.#chain
    const depth = this.#random.chance(0.7) ? 1 : this.#random.between(1, below.length)
    const base = below[depth - 1]
    if (base === undefined) return
    const keep = this.#random.chance(0.3)
    const byStock = this.#random.chance(0.3)
    this.log.push(`commit into ${base.name}${keep ? ', keep' : ''}${byStock ? ', by stock' : ''}`)
    const grows = top.content.length > base.content.length
    if (byStock) {
      const into = depth > 1 ? ['-b', base.path] : keep ? ['-d'] : []
      if (!(await stockAttempt(this.#chain, 'commit', '-q', ...into, ...stockName(this.#chain)))) {
        this.log.push('refused')
        this.#chain = [top, ...(await this.#adopted(below))]
        return
      }
    } else {
      const must = grows && base.version === 2 && base.snapshots.length > 0
      const committing = commitImage(top.path, { ...opened, base: base.path, keep })
      if (!(await attempt(committing, { must }))) {
        this.log.push('refused')
        return
      }
    }
    const before = shownOver(base.content, Math.max(base.content.length, top.content.length))
    const end = base.content.length
    if (grows) resized(base, top.content.length, !byStock)
    top.content.copy(base.content)
    if (byStock && grows) for (const from of [0, depth]) await this.#adoptTailFrom(from, end)
    await adoptBitmaps(base, before)
    await adoptBitmaps(top, top.content)
    if (depth > 1) await this.#adopted(below.slice(0, depth - 1))
    // What they do not have themselves has changed, unless the base's own tables answer for it.
    for (const image of [top, ...below.slice(0, depth - 1)]) forgetSnapshots(image)
    await judge(below.slice(depth - 1), this.#random)
  }

  async #rebase(): Promise<void> {
    const [top, ...below] = this.#chain
    const choice = this.#random.integer(3)
    const target =
      choice === 0
        ? []
        : choice === 1 && below.length > 1
          ? below.slice(this.#random.between(1, below.length - 1))
          : [await makeForeignBase(await this.#otherFolder(), this.#random)]
    const name = target[0]?.path ?? ''
    // It has no way to be told how to open what is encrypted.
    const byStock = this.#random.chance(0.3) && !target.some(({ encrypted }) => encrypted)
    this.log.push(`rebase onto '${name}'${byStock ? ', by stock' : ''}`)
    if (byStock) {
      const onto = target[0] === undefined ? ['-b', ''] : ['-b', name, '-F', target[0].format]
      if (!(await stockAttempt([top], 'rebase', ...onto, ...stockName(this.#chain)))) {
        this.log.push('refused')
        return
      }
    } else {
      const onto =
        target[0] === undefined
          ? { backingFile: null }
          : { backingFile: name, backingFormat: target[0].format }
      if (!(await attempt(rebaseImage(top.path, { ...opened, ...onto }), { may: isTight(top) }))) {
        this.log.push('refused')
        return
      }
    }
    await adoptBitmaps(top, top.content)
    forgetSnapshots(top)
    this.#chain = [top, ...target]
  }

  async #amend(): Promise<void> {
    const [top] = this.#chain
    const kind = this.#random.pick(['refcount_bits', 'refcount_bits', 'compat', 'lazy_refcounts', 'size'])
    // It takes minutes to change all the counts that there could be in blocks as large as the largest clusters.
    const byStock = top.clusterSize <= 65536 && this.#random.chance(0.3)
    const bits = this.#random.pick<number>([...refcountWidths])
    const version = top.version === 2 ? 3 : 2
    const isLazy = this.#random.chance(0.5)
    const size = Math.max(512, top.content.length + this.#random.between(-40, 40) * 512)
    const compat = version === 2 ? '0.10' : '1.1'
    const wanted: Record<string, { ours: AmendOptions; stock: string }> = {
      refcount_bits: { ours: { refcountBits: bits }, stock: `refcount_bits=${bits}` },
      compat: { ours: { compat }, stock: `compat=${compat}` },
      lazy_refcounts: {
        ours: { lazyRefcounts: isLazy },
        stock: `lazy_refcounts=${isLazy ? 'on' : 'off'}`,
      },
      size: { ours: { size }, stock: `size=${size}` },
    }
    const { ours, stock } = wanted[kind] as { ours: AmendOptions; stock: string }
    this.log.push(`amend ${stock}${byStock ? ', by stock' : ''}`)
    // It lets bitmaps go, and leaks their clusters; and it cuts without being asked twice.
    if (byStock && kind === 'compat' && version === 2 && top.bitmaps.all.size > 0) return
    if (byStock && top.encrypted && kind === 'compat') return
    const isDone = byStock
      ? await stockAttempt([top], 'amend', '-o', stock, ...stockName(this.#chain))
      : await this.#amendByUs(kind, ours, { bits, isLazy, size })
    if (!isDone) {
      this.log.push('refused')
      return
    }
    if (kind === 'refcount_bits') top.refcountBits = bits
    else if (kind === 'compat') top.version = version
    else if (kind === 'size') {
      const before = top.content.length
      resized(top, size, !byStock)
      if (byStock) await adoptTail(this.#chain, before)
    }
  }

  #amendByUs(
    kind: string,
    options: AmendOptions,
    { bits, isLazy, size }: { bits: number; isLazy: boolean; size: number },
  ): Promise<boolean> {
    const [top] = this.#chain
    const { version, snapshots, bitmaps, content } = top
    const isOld = version === 2
    const hasNeeds = top.extendedL2 || top.dataFile !== undefined || top.refcountBits !== 16
    const hasOthers = snapshots.some((one) => one.size !== content.length)
    const must = {
      refcount_bits: isOld && bits !== 16,
      compat: !isOld && (hasNeeds || hasOthers || bitmaps.all.size > 0),
      lazy_refcounts: isOld && isLazy,
      size: isOld && snapshots.length > 0 && size !== content.length,
    }[kind]
    const { dataFile, ...others } = opened
    return attempt(amendImage(top.path, { ...others, openDataFile: dataFile, ...options }), {
      must: must === true,
      // Counts may have no room in so few bits, and strings none in so small a header.
      may:
        must === true ||
        (kind === 'refcount_bits' && bits <= 8) ||
        (kind === 'compat' && isTight(top)) ||
        (kind === 'size' && isOld && snapshots.length > 0),
    })
  }

  async #adoptTailFrom(depth: number, before: number): Promise<void> {
    const [image, ...below] = this.#chain.slice(depth)
    if (image !== undefined) await adoptTail([image, ...below], before)
  }

  /** Images whose files have not changed, but what they stand on: they show what the stock tool says, and then we must say the same. */
  async #adopted(images: MixedImage[]): Promise<MixedImage[]> {
    for (const image of images) {
      const disk = await openImage(image.path, { ...opened, readOnly: true, format: image.format })
      image.content = Buffer.from(await disk.read({ offset: 0, length: disk.size }))
      await disk.close()
      forgetSnapshots(image)
    }
    return images
  }

  async #otherFolder(): Promise<string> {
    const folder = join(this.#folder, `other${this.#images++}`)
    await mkdir(folder)
    return folder
  }
}

/** A header of one small cluster may have no room for another name or for the feature names. */
const isTight = ({ clusterSize }: MixedImage): boolean => clusterSize <= 4096

function forgetSnapshots(image: MixedImage): void {
  for (const snapshot of image.snapshots) snapshot.content = undefined
}
