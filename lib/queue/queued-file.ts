import { invalid, outOfRange } from '../base/errors.js'
import { alignDown, alignUp, isAligned, isCount } from '../base/integers.js'
import type { QueueStats } from './backend.js'
import type { BlockQueue } from './block-queue.js'
import { Context } from './context.js'
import { closedError } from './system-error.js'

/**
 * A file with a queue for its ordered writes. All offsets and lengths are bytes.
 *
 *     const context = queue.context()
 *     await context.write(record, 4096)
 *     context.barrier()                 // the record is durable before the header that points to it
 *     await context.write(header, 0)
 *     await queue.flush()
 */
export class QueuedFile {
  readonly #backend: BlockQueue
  readonly #writes = new PendingWrites()

  /** @internal */
  constructor(backend: BlockQueue) {
    this.#backend = backend
  }

  get path(): string {
    return this.#backend.path
  }

  /** What offset and length of `context.write` must be multiples of; 1 where the page cache is used. */
  get alignment(): number {
    return this.#backend.alignment
  }

  /** A new chain of ordered writes; barriers order within it only. */
  context(): QueueContext {
    return new QueueContext(this.#backend, this.#writes)
  }

  /** The bytes as all contexts have written them; zeros past the end of the file. */
  async read(range: { readonly offset: number; readonly length: number }): Promise<Uint8Array> {
    if (typeof range !== 'object' || range === null)
      throw invalid('read: the range must be an object { offset, length }')
    const { offset, length } = range
    if (!isCount(length)) throw outOfRange(`read: length must be a whole number >= 0, not ${String(length)}`)
    const bytes = newBytes(length)
    await this.readInto(bytes, offset)
    return bytes
  }

  /** Fill `bytes` as `read` does. */
  async readInto(bytes: Uint8Array, offset: number): Promise<void> {
    checkRequest('read', bytes, offset)
    await this.#backend.readQueued(bytes, offset)
  }

  /**
   * Write beside the queue, unordered. Resolves when written; in the modes that sync every write, when durable.
   * `bytes` must not be changed or transferred until then.
   * @throws TypeError ERR_INVALID_ARGUMENT  a context's write to the same place still waits in the queue (with O_DIRECT: to the
   * same unit of `alignment` bytes): which of the two came last would be left to chance. Flush first
   */
  async write(bytes: Uint8Array, offset: number): Promise<void> {
    checkRequest('write', bytes, offset)
    await this.#writes.run(this.path, () => this.#writeNow(bytes, offset))
  }

  async #writeNow(bytes: Uint8Array, offset: number): Promise<void> {
    const { alignment, syncPolicy } = this.#backend
    const begin = alignDown(offset, alignment)
    if (this.#backend.pendingSection(begin, alignUp(offset + bytes.length, alignment) - begin) > 0) {
      throw invalid(`write: a queued write to offset ${offset} is still to come; flush the queue first`)
    }
    await this.#backend.write(bytes, offset)
    if (syncPolicy === 'write') await this.#backend.flush()
  }

  /** Resolves when all writes that have resolved are durable (cache modes `unsafe...`: when they are written). */
  async flush(): Promise<void> {
    await this.#backend.flush()
  }

  /** The counters of this file. */
  stats(): QueueStats {
    return this.#backend.stats()
  }

  /** Flushes, and closes the file, also if the flush fails. Waits for all requests. Closing twice does nothing. */
  async close(): Promise<void> {
    await this.#writes.close()
    await this.#backend.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/** Writes that have begun, of a file and its contexts: closing lets them end, also those that wait for room in the queue. */
class PendingWrites {
  readonly #pending = new Set<Promise<void>>()
  #closed = false

  /** @throws ERR_CLOSED  closing has begun */
  run(path: string, write: () => Promise<void>): Promise<void> {
    if (this.#closed) throw closedError(path)
    const written = write()
    this.#pending.add(written)
    const ended = (): void => void this.#pending.delete(written)
    written.then(ended, ended)
    return written
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.allSettled(this.#pending)
  }
}

/** One chain of ordered writes. */
export class QueueContext {
  readonly #backend: BlockQueue
  readonly #writes: PendingWrites
  readonly #context: Context
  /** Settles when all that was called so far has been queued; undefined: it has. */
  #behind: Promise<void> | undefined

  /** @internal */
  constructor(backend: BlockQueue, writes: PendingWrites) {
    this.#backend = backend
    this.#writes = writes
    this.#context = new Context(backend)
  }

  /**
   * Queue a write; copies `bytes` at once. Resolves when the queue has room for it, which is at once as a rule; in the modes that
   * sync every write, when it is durable.
   * @param offset  a multiple of the file's `alignment`, as must be the length of `bytes`
   */
  async write(bytes: Uint8Array, offset: number): Promise<void> {
    checkRequest('context.write', bytes, offset)
    const { alignment } = this.#backend
    if (!isAligned(offset, alignment) || !isAligned(bytes.length, alignment)) {
      throw invalid(`context.write: with O_DIRECT, offset and length must be multiples of ${alignment} bytes`)
    }
    if (bytes.length === 0) return
    await this.#writes.run(this.#backend.path, () => this.#writeNow(bytes, offset))
  }

  async #writeNow(bytes: Uint8Array, offset: number): Promise<void> {
    const room = this.#backend.admit(bytes.length)
    if (room === undefined && this.#behind === undefined) {
      this.#queue(bytes, offset)
    } else {
      const copy = bytes.slice()
      await this.#inTurn(async () => {
        await room
        this.#queue(copy, offset)
      })
    }
    if (this.#backend.syncPolicy === 'write') await this.#backend.durable(this.#context.section)
  }

  /** What this context wrote before is durable before what it writes from now on. */
  barrier(): void {
    if (this.#behind === undefined) this.#context.barrier()
    else void this.#inTurn(async () => this.#context.barrier())
  }

  #queue(bytes: Uint8Array, offset: number): void {
    try {
      this.#context.write(bytes, offset)
    } finally {
      this.#backend.release(bytes.length)
    }
  }

  /** Run `work` after all that was called before it. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#behind === undefined ? work() : this.#behind.then(work)
    const over = (): void => {
      if (this.#behind === behind) this.#behind = undefined
    }
    const behind: Promise<void> = done.then(over, over)
    this.#behind = behind
    return done
  }
}

/** @throws ERR_OUT_OF_RANGE  more than one array can hold, or than there is memory for */
function newBytes(length: number): Uint8Array {
  try {
    return new Uint8Array(length)
  } catch {
    throw outOfRange(`read: ${length} bytes do not fit into memory at once; read them in pieces`)
  }
}

function checkRequest(where: string, bytes: unknown, offset: unknown): void {
  if (!(bytes instanceof Uint8Array)) throw invalid(`${where}: bytes must be a Uint8Array or Buffer`)
  if (!isCount(offset) || !isCount(offset + bytes.length)) {
    throw outOfRange(
      `${where}: offset must be a whole number >= 0 that leaves room for the bytes, not ${String(offset)}`,
    )
  }
}
