import { outOfRange } from '../base/errors.js'
import { stringOption } from '../base/options.js'
import type { BlockBackend, SyncPolicy } from './backend.js'
import { MemoryBackend } from './memory-backend.js'
import { MemoryLocks } from './memory-locks.js'
import { SparseBytes } from './sparse-bytes.js'

/** Looked at for zeros at a time, and the most that `runs` gives at a time. Bytes; whole units of what memory is taken in. */
const lookedAt = 4096
const longestRun = 256 * 1024

/** The longest array of bytes that every Node.js can have. */
const longestArray = 2 ** 32 - 1

/**
 * A file that lives in memory, to hold an image: to be given to `createImage`, `openImage`, `convertImage` and others in the place of a path. It takes
 * room for what was written, whatever its length, in units of 4 KiB. Users of it lock each other out as those of a file do. It has no folder: names in
 * the image that are relative lead nowhere.
 *
 * At any moment it holds what a crash could leave of the image, which is all of it once the image was flushed or closed.
 */
export class MemoryFile {
  /** For messages, in the place of a path. */
  readonly name: string
  readonly #locks = new MemoryLocks()
  #contents = new SparseBytes()

  /** Empty, which `createImage` takes for a file that is not there. @param name  for messages. Default 'memory' */
  constructor(name = 'memory') {
    this.name = stringOption(name, 'MemoryFile: the name')
  }

  /** A file that holds a copy of `bytes`; zeros take no room. */
  static from(bytes: Uint8Array, name?: string): MemoryFile {
    const file = new MemoryFile(name)
    const zeros = new Uint8Array(lookedAt)
    for (let offset = 0; offset < bytes.length; offset += lookedAt) {
      const piece = bytes.subarray(offset, offset + lookedAt)
      if (Buffer.compare(piece, zeros.subarray(0, piece.length)) !== 0) file.#contents.write(piece, offset)
    }
    file.#contents.extend(bytes.length)
    return file
  }

  /** Of the file, in bytes. */
  get length(): number {
    return this.#contents.length
  }

  /** The room that it takes in memory, in bytes. */
  get heldBytes(): number {
    return this.#contents.heldBytes
  }

  /**
   * A copy of the whole file.
   * @throws RangeError ERR_OUT_OF_RANGE  it is longer than an array can be: take `runs`
   */
  bytes(): Uint8Array {
    if (this.length > longestArray) {
      throw outOfRange(`'${this.name}' has ${this.length} bytes, more than an array can have; use runs()`)
    }
    return this.#contents.toBytes()
  }

  /** Copies of the parts that are held, in order, 256 KiB at most each; all else is zeros, up to `length`. */
  *runs(): Generator<{ readonly offset: number; readonly bytes: Uint8Array }, void, undefined> {
    for (let offset = 0; offset < this.length;) {
      const { length, data } = this.#contents.extent(offset)
      const taken = data ? Math.min(length, longestRun) : length
      if (data) {
        const bytes = new Uint8Array(taken)
        this.#contents.read(bytes, offset)
        yield { offset, bytes }
      }
      offset += taken
    }
  }

  /** Open it as a file is opened. There is no page cache that could be bypassed. @internal */
  openBackend(options: {
    readonly readOnly: boolean
    readonly syncPolicy: SyncPolicy
    readonly queueBytes?: number
    readonly queueNodes?: number
  }): BlockBackend {
    const { readOnly, syncPolicy, queueBytes, queueNodes } = options
    return new MemoryBackend({
      path: this.name,
      contents: this.#contents,
      locks: this.#locks.join(),
      readOnly,
      syncPolicy,
      ...(queueBytes === undefined ? {} : { queueBytes }),
      ...(queueNodes === undefined ? {} : { queueNodes }),
    })
  }

  /** For this package: an empty file of the same name. */
  another(): MemoryFile {
    return new MemoryFile(this.name)
  }

  /** For this package: hold what another file holds, as a file that is renamed to this one's name. Who has this one open keeps what was there. */
  become(other: MemoryFile): void {
    this.#contents = other.#contents
  }
}
