import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type CacheMode, checkImage, createImage, type DiskImage, openImage } from '../../lib/index.js'
import type { SeededRandom } from '../support/seeded-random.js'

export const cacheModes: readonly CacheMode[] = [
  'none',
  'writeback',
  'writethrough',
  'directsync',
  'unsafe',
  'unsafe-direct',
]

/** Bytes. */
const diskSize = 6 * 1024 * 1024
const lanes = 8
const longest = 96 * 1024

/** Requests made, and what was found wrong. */
export type Outcome = { readonly requests: number; readonly problems: readonly string[] }

/**
 * Several images at once, each with many requests at a time whose answers are known; closed, looked at by check, opened in another cache mode,
 * and so on.
 */
export async function imageRound(folder: string, random: SeededRandom): Promise<Outcome> {
  const images = 1 + random.integer(3)
  const outcomes = await Promise.all(
    Array.from({ length: images }, (_, index) => {
      const path = join(folder, `${random.integer(2 ** 30)}-${index}`)
      return oneImage(path, random.fork()).finally(() => rm(path, { force: true }))
    }),
  )
  return {
    requests: outcomes.reduce((sum, { requests }) => sum + requests, 0),
    problems: outcomes.flatMap(({ problems }) => problems),
  }
}

async function oneImage(path: string, random: SeededRandom): Promise<Outcome> {
  const format = random.chance(0.2) ? 'raw' : 'qcow2'
  const clusterSize = random.pick([512, 4096, 65536, 262144])
  const isQcow2 = format === 'qcow2'
  await createImage(path, {
    format,
    size: diskSize,
    ...(isQcow2
      ? { clusterSize, refcountBits: random.pick([1, 16, 64]), lazyRefcounts: random.chance(0.2) }
      : {}),
  })
  const model = new Uint8Array(diskSize)
  const problems: string[] = []
  let requests = 0
  for (let session = 0; session < 2; session++) {
    const cache = random.pick(cacheModes)
    const image = await openImage(path, { format, readOnly: false, cache })
    const count = 40 + random.integer(120)
    const work = Array.from({ length: lanes }, (_, lane) =>
      new Lane(image, model, lane, random.fork()).work(count, problems),
    )
    // Closing waits for all of them, or comes when they are over.
    if (random.chance(0.3)) await Promise.all(work.slice(0, 1))
    else await Promise.all(work)
    await Promise.all([...work, ...(random.chance(0.5) ? [image.flush()] : [])])
    await image.close()
    requests += count * lanes
    if (!isQcow2) continue
    const { corruptions, leaks } = (await checkImage(path, { format })) as {
      corruptions: number
      leaks: number
    }
    if (corruptions + leaks > 0) problems.push(`${path}: ${corruptions} corruptions, ${leaks} leaks`)
  }
  return { requests, problems }
}

/** A part of the disk that one request at a time is made to; it begins and ends within clusters that others have a part of. */
class Lane {
  readonly #image: DiskImage
  readonly #model: Uint8Array
  readonly #first: number
  readonly #length: number
  readonly #random: SeededRandom

  constructor(image: DiskImage, model: Uint8Array, lane: number, random: SeededRandom) {
    this.#image = image
    this.#model = model
    this.#length = Math.floor(diskSize / lanes) - 700
    this.#first = lane * Math.floor(diskSize / lanes) + 350
    this.#random = random
  }

  async work(count: number, problems: string[]): Promise<void> {
    for (let request = 0; request < count; request++) await this.#request(problems)
  }

  async #request(problems: string[]): Promise<void> {
    const random = this.#random
    const length = 1 + random.integer(random.chance(0.7) ? 9000 : longest)
    const offset = this.#first + random.integer(this.#length - length)
    const choice = random.integer(100)
    if (choice < 45) {
      const bytes = random.bytes(length)
      await this.#image.write(bytes, offset, { fua: random.chance(0.05) })
      this.#model.set(bytes, offset)
    } else if (choice < 80) await this.#compare(offset, length, problems)
    else if (choice < 90) {
      await this.#image.writeZeroes({ offset, length, unmap: random.chance(0.5) })
      this.#model.fill(0, offset, offset + length)
    } else if (choice < 94) await this.#compress(offset)
    else await this.#image.flush()
  }

  async #compare(offset: number, length: number, problems: string[]): Promise<void> {
    const seen = await this.#image.read({ offset, length })
    if (Buffer.compare(seen, this.#model.subarray(offset, offset + length)) !== 0) {
      problems.push(`${this.#image.path}: other bytes at ${offset} to ${offset + length}`)
    }
  }

  /** A whole cluster, if there is one in the lane. */
  async #compress(near: number): Promise<void> {
    const { clusterSize, format } = this.#image
    const offset = Math.ceil(near / clusterSize) * clusterSize
    if (format === 'raw' || offset + clusterSize > this.#first + this.#length) return
    const bytes = new Uint8Array(clusterSize).fill(1 + this.#random.integer(255))
    await this.#image.writeCompressed(bytes, offset)
    this.#model.set(bytes, offset)
  }
}
