import { openSync, writeSync } from 'node:fs'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import type { CacheMode, DiskImage } from '../../lib/index.js'
import { openImage } from '../../lib/index.js'
import { SeededRandom } from '../support/seeded-random.js'
import { bytesOf, formatLine, type GuestLine } from './guest-log.js'

/**
 * A guest that is ended in the middle of its work. Usage: node guest.js '{ "path", "cache", "seed", "requests", "end" }'
 *
 * It writes, zeroes and flushes at random, several requests at a time, tells of each in a file, and after so many requests ends
 * as it is told to; 'wait': it goes on until somebody kills it.
 */
export type GuestOrders = {
  readonly path: string
  /** Where it tells of its requests. */
  readonly log: string
  readonly format: 'qcow2' | 'raw'
  readonly cache: CacheMode
  readonly seed: number
  /** After which it ends. */
  readonly requests: number
  readonly end: 'wait' | 'kill' | 'exit' | 'throw' | 'terminate'
}

const writers = 6
/** Sectors of one request, at most. */
const longest = 48

class Guest {
  readonly #orders: GuestOrders
  readonly #image: DiskImage
  readonly #log: number
  #requests = 0
  #lastId = 0
  #ended = false

  constructor(orders: GuestOrders, image: DiskImage) {
    this.#orders = orders
    this.#image = image
    this.#log = openSync(orders.log, 'w')
  }

  /** @param lane  the stripe of the disk that belongs to this writer: requests to one place come one after the other */
  async work(lane: number): Promise<void> {
    const random = new SeededRandom(this.#orders.seed * writers + lane)
    const stripe = Math.floor(this.#image.size / 512 / writers)
    while (!this.#ended) {
      if (++this.#requests === this.#orders.requests) this.#end()
      const id = ++this.#lastId
      if (random.chance(0.15)) {
        this.#tell({ what: 'flushing', id })
        await this.#image.flush()
        this.#tell({ what: 'flushed', id })
        continue
      }
      const sectors = 1 + random.integer(longest)
      const lba = lane * stripe + random.integer(stripe - sectors)
      const value = random.chance(0.15) ? 0 : id
      this.#tell({ what: 'submitted', id, lba, sectors, value })
      if (value === 0 && random.chance(0.7)) {
        await this.#image.writeZeroes({ offset: lba * 512, length: sectors * 512, unmap: random.chance(0.5) })
      } else await this.#image.write(bytesOf(lba, sectors, value), lba * 512)
      this.#tell({ what: 'ended', id })
    }
  }

  /** At once, and whole: what is told here survives whatever happens next. */
  #tell(line: GuestLine): void {
    writeSync(this.#log, formatLine(line))
  }

  #end(): void {
    const { end } = this.#orders
    if (end === 'wait') return
    this.#ended = true
    if (end === 'kill') process.kill(process.pid, 'SIGKILL')
    if (end === 'exit') process.exit(0)
    if (end === 'terminate') parentPort?.postMessage('now')
    // Outside of every promise: nobody can catch it.
    if (end === 'throw')
      setImmediate(() => {
        throw new Error('the guest ends as it was told to')
      })
  }
}

async function live(orders: GuestOrders): Promise<void> {
  const { path, format, cache } = orders
  const image = await openImage(path, { format, cache })
  const guest = new Guest(orders, image)
  process.stdout.write('at work\n')
  await Promise.all(Array.from({ length: writers }, (_, lane) => guest.work(lane)))
  // It works on until the end comes from outside.
  await new Promise(() => undefined)
}

async function main(): Promise<void> {
  if (!isMainThread) {
    await live(workerData as GuestOrders)
    return
  }
  const orders = JSON.parse(process.argv[2] ?? '') as GuestOrders
  if (orders.end !== 'terminate') {
    await live(orders)
    return
  }
  const worker = new Worker(new URL(import.meta.url), { workerData: orders })
  worker.once('message', () => void worker.terminate().then(() => process.exit(0)))
}

await main()
