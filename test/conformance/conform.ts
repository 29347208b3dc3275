import { join } from 'node:path'
import { checkImage, createImage, type DiskImage, imageInfo, openImage } from '../../lib/index.js'
import { addon } from '../../lib/native/addon.js'
import { makeBacking, shownOver } from '../support/image-shapes.js'
import { qemuCheckOf, qemuImg, qemuIoOn, qemuReadOf } from '../support/qemu.js'
import type { SeededRandom } from '../support/seeded-random.js'
import { backingOf, type ImageKind, sizeOf, type Ways, waysOf } from './image-kinds.js'

/** What is done to a disk, by whichever of the two; bytes. */
type Change =
  | { readonly kind: 'write' | 'compress'; readonly offset: number; readonly bytes: Buffer }
  | { readonly kind: 'zero' | 'unmap' | 'discard'; readonly offset: number; readonly length: number }

/** Without a library none is written, and what there is must not be lost either. */
const writesZstd = addon().codecs.zstd()

class Image {
  readonly #path: string
  readonly #kind: ImageKind
  readonly #ways: Ways
  readonly #random: SeededRandom
  readonly #content: Buffer
  /** Clusters that something was done to. */
  readonly #touched = new Set<number>()
  /** What the snapshot froze. */
  #frozen: Buffer | undefined

  constructor(path: string, kind: ImageKind, ways: Ways, shown: Buffer, random: SeededRandom) {
    this.#path = path
    this.#kind = kind
    this.#ways = ways
    this.#random = random
    this.#content = shown
  }

  async createdBy(who: 'us' | 'them'): Promise<void> {
    if (who === 'us') await createImage(this.#path, this.#ways.ours)
    else {
      const options = ['-o', this.#ways.theirs.join(',')]
      const create = ['create', ...this.#ways.secret, '-q', '-f', 'qcow2', ...options]
      await qemuImg(...create, this.#path, String(this.#content.length))
    }
    const { qcow2, virtualSize } = await imageInfo(this.#path)
    const { version, refcountBits, compressionType } = this.#kind
    must(virtualSize === this.#content.length, `the disk has ${virtualSize} bytes`)
    must(qcow2?.compat === (version === 2 ? '0.10' : '1.1'), `version: ${qcow2?.compat}`)
    must(qcow2.refcountBits === refcountBits, `refcounts of ${qcow2.refcountBits} bits`)
    must(qcow2.compressionType === compressionType, `compression type ${qcow2.compressionType}`)
  }

  async changedBy(who: 'us' | 'them', count: number): Promise<void> {
    const isCompressing = this.#kind.compressed === 'yes'
    const mayCompress =
      isCompressing && (who === 'them' || this.#kind.compressionType === 'zlib' || writesZstd)
    const changes = Array.from({ length: count }, () => {
      const change = this.#anyChange(mayCompress, who)
      this.#apply(change)
      return change
    })
    if (who === 'them') await qemuIoOn(['-d', 'unmap', ...this.#told], changes.map(commandOf))
    else {
      await this.#opened(async (image) => {
        for (const change of changes) await perform(image, change)
      })
    }
  }

  async frozenBy(who: 'us' | 'them'): Promise<void> {
    this.#frozen = Buffer.from(this.#content)
    const opened = this.#ways.secret.length === 0 ? [this.#path] : this.#told
    if (who === 'them') await qemuImg('snapshot', '-q', '-c', 'frozen', ...opened)
    else
      await this.#opened(async (image) => {
        await image.snapshots.create('frozen')
      })
  }

  /** How the stock tools are told of the image. */
  get #told(): readonly string[] {
    const { secret, named } = this.#ways
    return [...secret, ...named(this.#path)]
  }

  /** Both see the same, and find nothing wrong. */
  async mustConform(): Promise<void> {
    await this.#opened(async (image) => {
      must(image.size === this.#content.length, `we see a disk of ${image.size} bytes`)
      mustEqual(Buffer.from(await image.read({ offset: 0, length: image.size })), this.#content, 'we read')
    }, true)
    const seen = await qemuReadOf(this.#told, `${this.#path}.read-by-qemu`)
    mustEqual(seen, this.#content, 'qemu-img reads')
    const problem = await qemuCheckOf(this.#told)
    must(problem === '', problem)
    const result = await checkImage(this.#path)
    must('corruptions' in result, 'we find nothing to check')
    const { corruptions, leaks, checkErrors } = result
    must(corruptions + leaks + checkErrors === 0, `we find ${corruptions} corruptions, ${leaks} leaks`)
    if (this.#frozen !== undefined) await this.#mustShowFrozen(this.#frozen)
  }

  async #mustShowFrozen(frozen: Buffer): Promise<void> {
    const snapshot = await openImage(this.#path, {
      ...this.#ways.open,
      readOnly: true,
      snapshot: { name: 'frozen' },
    })
    try {
      mustEqual(
        Buffer.from(await snapshot.read({ offset: 0, length: snapshot.size })),
        frozen,
        'our snapshot',
      )
    } finally {
      await snapshot.close()
    }
  }

  async #opened(work: (image: DiskImage) => Promise<void>, readOnly = false): Promise<void> {
    const image = await openImage(this.#path, { ...this.#ways.open, readOnly })
    try {
      await work(image)
    } finally {
      await image.close()
    }
  }

  #anyChange(mayCompress: boolean, who: 'us' | 'them'): Change {
    const random = this.#random
    const { clusterSize } = this.#kind
    const size = this.#content.length
    const what = random.integer(10)
    if (mayCompress && what < 4) {
      const cluster = random.integer(Math.floor(size / clusterSize))
      // The stock tool puts no compressed cluster in the place of another.
      const kind = who === 'them' && this.#isTaken(cluster) ? 'write' : 'compress'
      const offset = cluster * clusterSize
      return { kind, offset, bytes: Buffer.alloc(clusterSize, random.between(1, 255)) }
    }
    const offset = random.integer(size / 512) * 512
    const length = Math.min(random.between(1, 3 * Math.max(1, clusterSize / 1024)) * 512, size - offset)
    if (what < 7) return { kind: 'write', offset, bytes: Buffer.alloc(length, random.between(1, 255)) }
    if (what < 8) return { kind: 'zero', offset, length }
    if (what < 9) return { kind: 'unmap', offset, length }
    // What a discard of a part of a cluster does is nobody's promise; and over a backing file version 2 has no zeros.
    const first = random.integer(Math.floor(size / clusterSize)) * clusterSize
    const kind = this.#kind.version === 2 && this.#kind.backing !== 'none' ? 'zero' : 'discard'
    return { kind, offset: first, length: clusterSize }
  }

  #isTaken(cluster: number): boolean {
    return this.#kind.preallocation !== 'off' || this.#touched.has(cluster)
  }

  #apply(change: Change): void {
    const { clusterSize } = this.#kind
    const length = 'bytes' in change ? change.bytes.length : change.length
    for (let at = change.offset; at < change.offset + length; at += clusterSize - (at % clusterSize)) {
      this.#touched.add(Math.floor(at / clusterSize))
    }
    if ('bytes' in change) this.#content.set(change.bytes, change.offset)
    else this.#content.fill(0, change.offset, change.offset + change.length)
  }
}

function commandOf(change: Change): string {
  const { offset } = change
  switch (change.kind) {
    case 'write':
      return `write -q -P ${change.bytes[0]} ${offset} ${change.bytes.length}`
    case 'compress':
      return `write -q -c -P ${change.bytes[0]} ${offset} ${change.bytes.length}`
    case 'zero':
      return `write -q -z ${offset} ${change.length}`
    case 'unmap':
      return `write -q -z -u ${offset} ${change.length}`
    case 'discard':
      return `discard -q ${offset} ${change.length}`
  }
}

async function perform(image: DiskImage, change: Change): Promise<void> {
  const { offset } = change
  if ('bytes' in change) {
    if (change.kind === 'write') await image.write(change.bytes, offset)
    else await image.writeCompressed(change.bytes, offset)
    return
  }
  const range = { offset, length: change.length }
  if (change.kind === 'discard') await image.discard(range)
  else await image.writeZeroes({ ...range, unmap: change.kind === 'unmap' })
}

function must(isSo: boolean, problem: string): asserts isSo {
  if (!isSo) throw new Error(problem)
}

function mustEqual(seen: Buffer, wanted: Buffer, who: string): void {
  must(seen.length === wanted.length, `${who} ${seen.length} bytes, where there are ${wanted.length}`)
  if (seen.equals(wanted)) return
  const at = seen.findIndex((byte, index) => byte !== wanted[index])
  throw new Error(`${who} ${seen[at]} at ${at}, where ${wanted[at]} was written`)
}

/** Changes by each of the two in turn. */
const changesEach = 4

/**
 * Make an image of that kind, change it in turn by both, and have both read and check it after each turn.
 * @param first  who makes it, and changes it first
 * @throws Error  what is different, or wrong
 */
export async function conform(
  folder: string,
  kind: ImageKind,
  first: 'us' | 'them',
  random: SeededRandom,
): Promise<void> {
  const shape = backingOf(kind)
  const backing = shape && (await makeBacking(folder, shape, random))
  const shown = shownOver(backing?.content, sizeOf(kind))
  const image = new Image(
    join(folder, 'disk.qcow2'),
    kind,
    waysOf(kind, folder, backing?.name),
    shown,
    random,
  )
  const second = first === 'us' ? 'them' : 'us'
  await image.createdBy(first)
  await image.changedBy(first, changesEach)
  await image.mustConform()
  if (kind.snapshot === 'yes') await image.frozenBy(second)
  await image.changedBy(second, changesEach)
  await image.mustConform()
  await image.changedBy(first, changesEach)
  await image.mustConform()
}
