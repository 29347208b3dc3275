import { stockBitmapFlags } from './bitmap-model.js'
import { type MixedChain, randomSize, stockAttempt, stockName } from './mixed-chain.js'
import { mostSnapshots, resized } from './mixed-session.js'
import { qemuImg, qemuIoOn, qemuReadOf } from './qemu.js'
import type { SeededRandom } from './seeded-random.js'

/**
 * The stock tool has made a disk longer: the rest of what was its last cluster may show what it held before the disk was cut there once.
 * @param before  bytes of the disk
 */
export async function adoptTail(chain: MixedChain, before: number): Promise<void> {
  const [image] = chain
  const end = Math.min(Math.ceil(before / image.clusterSize) * image.clusterSize, image.content.length)
  if (before >= end) return
  const seen = await qemuReadOf(stockName(chain), `${image.path}.copy`)
  seen.copy(image.content, before, before, end)
}

/** What the stock tools do to the top of a chain, at random, beside what it must lead to. They are the judge of what their own operations mean. */
export class StockSession {
  readonly #random: SeededRandom
  readonly #log: string[]
  readonly #chain: MixedChain

  constructor(chain: MixedChain, random: SeededRandom, log: string[]) {
    this.#chain = chain
    this.#random = random
    this.#log = log
  }

  async step(): Promise<void> {
    const choice = this.#random.integer(100)
    const [image] = this.#chain
    if (choice < 45) await this.#requests()
    else if (choice < 60) await this.#createSnapshot()
    else if (choice < 67) await this.#applySnapshot()
    else if (choice < 75) await this.#deleteSnapshot()
    else if (choice < 82) await this.#resize()
    else if (image.version === 3) await this.#changeBitmaps()
  }

  async #requests(): Promise<void> {
    const [image] = this.#chain
    const before = Buffer.from(image.content)
    const commands: string[] = []
    const discards: { from: number; to: number }[] = []
    for (let left = this.#random.between(1, 8); left > 0; left--) {
      const offset = this.#random.integer(before.length / 512) * 512
      const length = Math.min(this.#random.between(1, 200) * 512, before.length - offset)
      const kind = this.#random.pick(['write', 'write', 'write', 'write -z', 'write -z -u', 'discard'])
      image.bitmaps.touch(offset, length)
      if (kind === 'discard') {
        discards.push({ from: offset, to: offset + length })
        commands.push(`discard -q ${offset} ${length}`)
        continue
      }
      const pattern = kind === 'write' ? this.#random.between(1, 255) : 0
      commands.push(`${kind} -q ${pattern === 0 ? '' : `-P ${pattern} `}${offset} ${length}`)
      image.content.fill(pattern, offset, offset + length)
    }
    this.#log.push(...commands.map((command) => `qemu-io ${command}`))
    await qemuIoOn(stockName(this.#chain, { unmaps: true }), commands)
    if (discards.length === 0) return
    // What a discard leaves, only the tool can say; elsewhere it must be what was written.
    const seen = await qemuReadOf(stockName(this.#chain), `${image.path}.copy`)
    for (const { from, to } of discards) seen.copy(image.content, from, from, to)
  }

  async #createSnapshot(): Promise<void> {
    const [image] = this.#chain
    if (image.snapshots.length >= mostSnapshots) return
    const told = stockName(this.#chain)
    if (!(await this.#tried('snapshot', '-c', 'by-stock', ...told))) return
    const listed = await qemuImg('snapshot', '-l', ...told)
    const ids = [...listed.matchAll(/^(\d+) +by-stock/gm)].map(([, id]) => Number(id))
    const size = image.content.length
    image.snapshots.push({
      ...{ id: String(Math.max(...ids)), name: 'by-stock', size },
      content: Buffer.from(image.content),
    })
  }

  async #applySnapshot(): Promise<void> {
    const [image] = this.#chain
    if (image.snapshots.length === 0) return
    const { id, content, size } = this.#random.pick(image.snapshots)
    if (content === undefined) return
    if (!(await this.#tried('snapshot', '-a', id, ...stockName(this.#chain)))) return
    image.content = Buffer.from(content)
    image.bitmaps.resize(size, { marksGrowth: false })
  }

  async #deleteSnapshot(): Promise<void> {
    const [image] = this.#chain
    const gone = image.snapshots[0]
    if (gone === undefined) return
    // By its number if that is nobody's name.
    const isNamed = image.snapshots.some(({ name }) => name === gone.id)
    if (isNamed || !(await this.#tried('snapshot', '-d', gone.id, ...stockName(this.#chain)))) return
    image.snapshots = image.snapshots.filter((other) => other !== gone)
  }

  async #resize(): Promise<void> {
    const [image] = this.#chain
    const size = randomSize(this.#random, image.clusterSize)
    const shrink = size < image.content.length ? ['--shrink'] : []
    if (!(await this.#tried('resize', '-q', ...shrink, ...stockName(this.#chain), String(size)))) return
    const before = image.content.length
    resized(image, size, false)
    await adoptTail(this.#chain, before)
  }

  async #changeBitmaps(): Promise<void> {
    const [image] = this.#chain
    const step = image.bitmaps.anyStep(this.#random)
    const args = ['bitmap', ...stockBitmapFlags(step), ...stockName([image], { alone: true }), step.name]
    this.#log.push(`qemu-img ${args.join(' ')}`)
    await qemuImg(...args)
  }

  /** @returns false: it refuses that, and has changed nothing */
  async #tried(...args: string[]): Promise<boolean> {
    const isDone = await stockAttempt([this.#chain[0]], ...args)
    this.#log.push(`qemu-img ${args.join(' ')}${isDone ? '' : ', refused'}`)
    return isDone
  }
}
