import type { Disk } from './qcow2-disk.js'
import { readDisk } from './qcow2-disk.js'

/** A request of a guest. Offsets and lengths are bytes within the disk as it is when the request is made. */
export type Request =
  | { readonly kind: 'write'; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: 'zero'; readonly offset: number; readonly length: number; readonly unmap: boolean }
  | { readonly kind: 'discard'; readonly offset: number; readonly length: number }
  | { readonly kind: 'read'; readonly offset: number; readonly length: number }
  | { readonly kind: 'flush' }

/** A change of the bytes from `offset` on; `bytes` undefined: they become zeros. */
type Change = { readonly offset: number; readonly length: number; readonly bytes: Uint8Array | undefined }

export type ModelRules = {
  readonly clusterSize: number
  readonly version: 2 | 3
  /** Bytes of the backing file; 0 without one. */
  readonly backingSize: number
}

/** What a disk must look like: a byte array, and what requests that run at the same time may make of it. */
export class DiskModel {
  #bytes: Uint8Array
  readonly #rules: ModelRules

  /** @param bytes  what the disk shows at first */
  constructor(bytes: Uint8Array, rules: ModelRules) {
    this.#bytes = bytes
    this.#rules = rules
  }

  get size(): number {
    return this.#bytes.length
  }

  /** Bytes that growing exposes are zeros, whatever was there before. */
  resize(size: number): void {
    const resized = new Uint8Array(size)
    resized.set(this.#bytes.subarray(0, size))
    this.#bytes = resized
  }

  /**
   * Run requests at the same time, and see that each byte read meanwhile is an old one or that of a request, that afterwards each is
   * that of a request that covers it, and that all others are untouched.
   * @throws Error  what is wrong
   */
  async runTogether(disk: Disk, requests: readonly Request[]): Promise<void> {
    const changes = requests.flatMap((request) => this.#changesOf(request))
    const before = this.#bytes.slice()
    const running = requests.map(async (request) => {
      if (request.kind === 'read') {
        await this.#readMeanwhile(disk, request, before, changes)
        return
      }
      await this.#run(disk, request)
    })
    for (const outcome of await Promise.allSettled(running)) {
      if (outcome.status === 'rejected') throw outcome.reason
    }
    await this.#adopt(disk, changes)
  }

  /** Every byte of the disk must be the model's. */
  async mustEqual(disk: Disk, when: string): Promise<void> {
    if (disk.image.size !== this.size) throw new Error(`${when}: size ${disk.image.size}, not ${this.size}`)
    const seen = await readDisk(disk, 0, this.size)
    const at = firstDifference(seen, this.#bytes)
    if (at >= 0) throw new Error(`${when}: byte ${at} is ${seen[at]}, not ${this.#bytes[at]}`)
  }

  async #run(disk: Disk, request: Exclude<Request, { kind: 'read' }>): Promise<void> {
    const { image } = disk
    switch (request.kind) {
      case 'flush': {
        await image.flush()
        return
      }
      case 'write': {
        await image.write(request.bytes, request.offset)
        return
      }
      case 'zero': {
        await image.writeZeroes(request.offset, request.length, { unmap: request.unmap })
        return
      }
      case 'discard':
        if (this.#isRefused(request)) {
          await mustBeRefused(image.discard(request.offset, request.length))
          return
        }
        {
          await image.discard(request.offset, request.length)
          return
        }
    }
  }

  async #readMeanwhile(
    disk: Disk,
    request: { readonly offset: number; readonly length: number },
    before: Uint8Array,
    changes: readonly Change[],
  ): Promise<void> {
    const seen = await readDisk(disk, request.offset, request.length)
    const old = before.subarray(request.offset, request.offset + request.length)
    const first = firstDifference(seen, old)
    if (first < 0) return
    const right = explainedBy(changes, seen, request.offset)
    for (let at = first; at < seen.length; at++) {
      if (seen[at] === old[at] || right[at] === 1) continue
      throw new Error(`a read during changes: byte ${request.offset + at} is ${seen[at]}, was ${old[at]}`)
    }
  }

  /** The whole clusters that a discard is about. */
  #wholeClusters(request: {
    readonly offset: number
    readonly length: number
  }): [start: number, end: number] {
    const { clusterSize } = this.#rules
    const end = request.offset + request.length
    const start = Math.ceil(request.offset / clusterSize) * clusterSize
    return [start, end === this.size ? end : Math.floor(end / clusterSize) * clusterSize]
  }

  /** Version 2 cannot hide a backing file's bytes. */
  #isRefused(request: { readonly offset: number; readonly length: number }): boolean {
    const [start, end] = this.#wholeClusters(request)
    return start < end && this.#rules.version === 2 && this.#rules.backingSize > start
  }

  #changesOf(request: Request): Change[] {
    switch (request.kind) {
      case 'write':
        return [{ offset: request.offset, length: request.bytes.length, bytes: request.bytes }]
      case 'zero':
        return [{ offset: request.offset, length: request.length, bytes: undefined }]
      case 'discard': {
        const [start, end] = this.#wholeClusters(request)
        if (start >= end || this.#isRefused(request)) return []
        return [{ offset: start, length: end - start, bytes: undefined }]
      }
      default:
        return []
    }
  }

  /** Take over what the changes have come to, which where they overlap is for the disk to choose. */
  async #adopt(disk: Disk, changes: readonly Change[]): Promise<void> {
    const seen = await readDisk(disk, 0, this.size)
    const right = explainedBy(changes, seen, 0)
    const changed = new Uint8Array(this.size)
    for (const { offset, length } of changes) changed.fill(1, offset, offset + length)
    for (let at = 0; at < seen.length; at++) {
      if (changed[at] === 0 ? seen[at] === this.#bytes[at] : right[at] === 1) continue
      const expected = changed[at] === 0 ? `${this.#bytes[at]}` : 'that of a request that covers it'
      throw new Error(`after the requests byte ${at} is ${seen[at]}, not ${expected}`)
    }
    this.#bytes = seen
  }
}

/** Which of the bytes seen from `start` on are what one of the changes made them: 1, otherwise 0. */
function explainedBy(changes: readonly Change[], seen: Uint8Array, start: number): Uint8Array {
  const right = new Uint8Array(seen.length)
  for (const { offset, length, bytes } of changes) {
    const end = Math.min(offset + length - start, seen.length)
    for (let at = Math.max(offset - start, 0); at < end; at++) {
      if (seen[at] === (bytes === undefined ? 0 : bytes[at + start - offset])) right[at] = 1
    }
  }
  return right
}

function firstDifference(one: Uint8Array, other: Uint8Array): number {
  if (Buffer.compare(one, other) === 0) return -1
  return one.findIndex((byte, at) => byte !== other[at])
}

async function mustBeRefused(discard: Promise<void>): Promise<void> {
  const error = await discard.then(
    () => undefined,
    (reason: unknown) => reason as { code?: string },
  )
  if (error?.code !== 'ERR_NOT_SUPPORTED') {
    throw new Error('version 2 over a backing file must refuse to discard', { cause: error })
  }
}
