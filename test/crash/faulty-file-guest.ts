import { accessSync, copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { type CacheMode, checkImage, type DiskImage, openImage, Qcow2Error } from '../../lib/index.js'
import { bytesOf, Expected, type GuestLine } from '../kills/guest-log.js'
import { qemuCheck } from '../support/qemu.js'
import { SeededRandom } from '../support/seeded-random.js'
import { describeValue, readPayload, valueAt } from './payload.js'
import { unhandledRejections } from './unhandled.js'

/**
 * A guest on a real file whose system calls go wrong (native/test/faulty_calls.cc is preloaded). Usage: ORDERS START DISK OUTCOMES: files. It runs
 * one order after the other, each on a fresh copy of START, looks at what is left, and writes down what came of each.
 */
export type FaultOrder = {
  readonly call: 'pread' | 'pwrite' | 'fdatasync' | 'fallocate' | 'ftruncate'
  /** The name of an errno; 'short': a part is transferred. */
  readonly error: string
  /** The first call that is hit, from 1. */
  readonly from: number
  /** 0: only that one; else every such a one from there on. */
  readonly every: number
  readonly cache: CacheMode
  readonly seed: number
}

export type FaultOutcome = {
  /** Calls that went wrong. */
  readonly hit: number
  /** Of all calls of this kind. */
  readonly seen: number
  /** Codes of what rejected, closing included. */
  readonly codes: readonly string[]
  /** Flushes that succeeded after a change or a flush had been told of a failed sync. */
  readonly lies: number
  readonly promises: number
  /** What is wrong; undefined: nothing. */
  readonly problem: string | undefined
}

const writers = 4
const requestsEach = 14
/** Sectors, of one writer; and of one request at most. */
const stripe = 256
const longest = 20

const [ordersFile = '', start = '', disk = '', outcomesFile = ''] = process.argv.slice(2)
const reportFile = process.env['FAULTY_REPORT'] ?? ''

/** Looking at a path that does not exist tells the preloaded library what to do. */
function tellLibrary(path: string): void {
  try {
    accessSync(path)
  } catch {
    return
  }
}

class FaultyGuest {
  readonly lines: GuestLine[] = []
  readonly codes: string[] = []
  lies = 0
  problem: string | undefined
  readonly #image: DiskImage
  readonly #seed: number
  readonly #shown = new Map<number, readonly number[]>()
  #isPoisoned = false
  #lastId = 0

  constructor(image: DiskImage, seed: number) {
    this.#image = image
    this.#seed = seed
  }

  async work(lane: number): Promise<void> {
    const random = new SeededRandom(this.#seed * writers + lane)
    for (let request = 0; request < requestsEach; request++) {
      const id = ++this.#lastId
      if (random.chance(0.25)) {
        await this.#flush(id)
        continue
      }
      const sectors = 1 + random.integer(longest)
      const lba = lane * stripe + random.integer(stripe - sectors)
      if (random.chance(0.25)) {
        await this.attempt(() => this.#read(lba, sectors))
        continue
      }
      const value = random.chance(0.2) ? 0 : id
      this.lines.push({ what: 'submitted', id, lba, sectors, value })
      const range = { offset: lba * 512, length: sectors * 512, unmap: random.chance(0.5) }
      const isDone = await this.attempt(() =>
        value === 0
          ? this.#image.writeZeroes(range)
          : this.#image.write(bytesOf(lba, sectors, value), range.offset),
      )
      if (isDone) this.lines.push({ what: 'ended', id })
      for (let at = lba; at < lba + sectors; at++) {
        const before = isDone ? [] : this.#mayShow(at)
        this.#shown.set(at, [...before, value])
      }
    }
  }

  /** One lane's requests come one after the other: it sees what it has written last, and of what failed old or new. */
  async #read(lba: number, sectors: number): Promise<void> {
    const bytes = await this.#image.read({ offset: lba * 512, length: sectors * 512 })
    for (let step = 0; step < sectors; step++) {
      const { lba: stampedLba, generation } = readPayload(bytes, step * 512)
      const value = valueAt(lba + step, stampedLba, generation)
      if (!this.#mayShow(lba + step).includes(value))
        this.problem ??= `read: lba ${lba + step} shows ${describeValue(value)}`
    }
  }

  #mayShow(lba: number): readonly number[] {
    return this.#shown.get(lba) ?? [0]
  }

  async #flush(id: number): Promise<void> {
    const mustFail = this.#isPoisoned
    this.lines.push({ what: 'flushing', id })
    if (!(await this.attempt(() => this.#image.flush()))) return
    this.lines.push({ what: 'flushed', id })
    if (mustFail) this.lies++
  }

  /** @returns whether it succeeded */
  async attempt(request: () => Promise<unknown>): Promise<boolean> {
    try {
      await request()
      return true
    } catch (error) {
      if (error instanceof Qcow2Error) {
        this.codes.push(error.code)
        this.#isPoisoned ||= error.code === 'ERR_POISONED'
      } else this.problem ??= `no clean error: ${String(error)}`
      return false
    }
  }
}

async function obey(order: FaultOrder, isForStock: boolean): Promise<FaultOutcome> {
  const { call, error, from, every, cache, seed } = order
  copyFileSync(start, disk)
  const errno = error === 'short' ? 0 : (constants.errno as Record<string, number>)[error]
  const rejections = unhandledRejections()
  const image = await openImage(disk, { format: 'qcow2', cache })
  tellLibrary(`/faulty-calls/${call}/${errno}/${from}/${every}`)
  const guest = new FaultyGuest(image, seed)
  await Promise.all(Array.from({ length: writers }, (_, lane) => guest.work(lane)))
  // Nothing of what the guest expects: but the file grows, and is cut.
  const { size } = image
  await guest.attempt(() => image.resize(size + stripe * 512, { preallocation: 'metadata' }))
  if (image.size > size) await guest.attempt(() => image.resize(size, { shrink: true }))
  const isClosed = await guest.attempt(() => image.close())
  tellLibrary('/faulty-calls-report')
  const [hit = 0, seen = 0] = readFileSync(reportFile, 'utf8').split(' ').map(Number)
  const expected = new Expected(guest.lines, cache === 'writethrough' || cache === 'directsync', () => 0)
  let problem = guest.problem ?? (await rejections.end())
  problem ??= await inspect(expected, isForStock)
  if (problem === undefined && isClosed && guest.lies > 0) problem = 'a flush succeeded after a failed one'
  return { hit, seen, codes: guest.codes, lies: guest.lies, promises: expected.promises, problem }
}

async function inspect(expected: Expected, isForStock: boolean): Promise<string | undefined> {
  const found = await checkImage(disk)
  if (!('corruptions' in found)) return 'no qcow2 image any more'
  if (found.corruptions > 0) return `corrupt: ${found.findings[0]?.text}`
  const verdict = isForStock ? await qemuCheck(disk) : ''
  if (verdict !== '' && !verdict.includes('exits with 3')) return verdict
  await using image = await openImage(disk, { format: 'qcow2', readOnly: true })
  for (const lba of expected.lbas) {
    const payload = readPayload(await image.read({ offset: lba * 512, length: 512 }), 0)
    const value = valueAt(lba, payload.lba, payload.generation)
    if (!expected.mayShow(lba, value))
      return `content: lba ${lba} shows ${describeValue(value)}, where it may show ${expected.describe(lba)}`
  }
  return undefined
}

const orders = JSON.parse(readFileSync(ordersFile, 'utf8')) as FaultOrder[]
const outcomes: FaultOutcome[] = []
for (const [index, order] of orders.entries()) outcomes.push(await obey(order, index % 20 === 0))
writeFileSync(outcomesFile, JSON.stringify(outcomes))
