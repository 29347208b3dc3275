/** Longest reads that this is for, and how much is read with one of them. Bytes. */
const longestRead = 16 * 1024
const windowBytes = 64 * 1024

/** Reads one behind the other before anything is read with them. */
const readsInOrder = 2

/** After a window that the page cache did not have, so many reads do without. */
const readsWithout = 16

/**
 * Small reads from the page cache that go on where the last one ended: so much is read with one of them that the next need no system call.
 * A window is good for one moment (see `Requests.moment`), in which the event loop does not turn and nobody is told that anything has
 * changed: so nobody can tell that a byte was read a little early. Others who change the file could tell it, by a call that waits for them (Atomics.wait,
 * execFileSync, fs.writeSync): so this is for files from which locks keep all others.
 */
export class ReadAhead {
  readonly #readAtOnce: (bytes: Uint8Array, offset: number) => boolean
  #window: Uint8Array | undefined
  #from = 0
  #to = 0
  #moment = -1
  #next = -1
  #inOrder = 0

  /** @param readAtOnce  false: the page cache does not have all of it */
  constructor(readAtOnce: (bytes: Uint8Array, offset: number) => boolean) {
    this.#readAtOnce = readAtOnce
  }

  /** @param length  of the file, bytes  @returns whether `bytes` are filled; false says nothing of the file */
  read(bytes: Uint8Array, offset: number, length: number, requests: Moments): boolean {
    const end = offset + bytes.length
    this.#inOrder = offset === this.#next ? this.#inOrder + 1 : 0
    this.#next = end
    if (bytes.length > longestRead) return false
    const has = requests.moment === this.#moment && offset >= this.#from && end <= this.#to
    if (!has && (this.#inOrder < readsInOrder || !this.#fill(offset, length, requests) || end > this.#to))
      return false
    const at = offset - this.#from
    bytes.set((this.#window as Uint8Array).subarray(at, at + bytes.length))
    return true
  }

  #fill(offset: number, fileLength: number, requests: Moments): boolean {
    const length = Math.min(windowBytes, fileLength - offset)
    if (length <= 0) return false
    this.#window ??= new Uint8Array(windowBytes)
    this.#moment = -1
    if (!this.#readAtOnce(this.#window.subarray(0, length), offset)) {
      this.#inOrder = -readsWithout
      return false
    }
    this.#from = offset
    this.#to = offset + length
    this.#moment = requests.beginMoment()
    return true
  }
}

type Moments = { readonly moment: number; beginMoment(): number }
