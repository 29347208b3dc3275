import * as fs from 'node:fs'
import { type Section, section } from '../../lib/base/units.js'
import type { BlockBackend, FileExtent, QueueStats } from '../../lib/queue/backend.js'

/**
 * A file behind the port, with node:fs and without a queue: every node is written at once. For tests of what is
 * read or laid out, not of order. Counts what it is asked for.
 */
export class FileBackend implements BlockBackend {
  readonly path: string
  readonly readOnly: boolean
  readonly direct = false
  readonly syncPolicy = 'never'
  readonly alignment = 1
  readonly poisoned = undefined
  reads = 0
  bytesRead = 0
  largestRead = 0
  writes = 0
  readonly #descriptor: number
  #section = 0

  constructor(path: string, options: { readOnly: boolean; create?: boolean }) {
    this.path = path
    this.readOnly = options.readOnly
    this.#descriptor = fs.openSync(path, options.create ? 'w+' : options.readOnly ? 'r' : 'r+')
  }

  get length(): number {
    return fs.fstatSync(this.#descriptor).size
  }

  get durableSection(): Section {
    return section(this.#section)
  }

  async read(bytes: Uint8Array, offset: number): Promise<void> {
    this.reads++
    this.bytesRead += bytes.length
    this.largestRead = Math.max(this.largestRead, bytes.length)
    let done = 0
    while (done < bytes.length) {
      const got = fs.readSync(this.#descriptor, bytes, done, bytes.length - done, offset + done)
      if (got === 0) break
      done += got
    }
    bytes.fill(0, done)
  }

  readQueued(bytes: Uint8Array, offset: number): Promise<void> {
    return this.read(bytes, offset)
  }

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    this.#put(bytes, offset)
  }

  async writeDurably(bytes: Uint8Array, offset: number): Promise<void> {
    this.#put(bytes, offset)
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    this.#put(new Uint8Array(length), offset)
  }

  async punch(offset: number, length: number): Promise<void> {
    const within = Math.min(length, this.length - offset)
    if (within > 0) this.#put(new Uint8Array(within), offset)
  }

  async allocate(offset: number, length: number): Promise<void> {
    if (offset + length > this.length) await this.truncate(offset + length)
  }

  async truncate(length: number): Promise<void> {
    this.writes++
    fs.ftruncateSync(this.#descriptor, length)
  }

  async extent(offset: number): Promise<FileExtent> {
    return { length: this.length - offset, data: true }
  }

  enqueue(bytes: Uint8Array, offset: number, earliest: Section): Section {
    this.#put(bytes, offset)
    this.#section = Math.max(this.#section + 1, earliest)
    return section(this.#section)
  }

  sectionAfterData(): Section {
    return section(this.#section + 1)
  }

  pendingSection(): Section {
    return section(0)
  }

  onProgress(): void {}
  countBarrier(): void {}
  admit(): undefined {}
  release(): void {}
  async flush(): Promise<void> {}
  async durable(): Promise<void> {}
  lock(): undefined {}
  unlock(): void {}

  stats(): QueueStats {
    throw new Error('this backend has no queue to count')
  }

  async close(): Promise<void> {
    fs.closeSync(this.#descriptor)
  }

  #put(bytes: Uint8Array, offset: number): void {
    this.writes++
    let done = 0
    while (done < bytes.length) {
      done += fs.writeSync(this.#descriptor, bytes, done, bytes.length - done, offset + done)
    }
  }
}
