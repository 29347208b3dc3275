import { isAligned } from '../base/integers.js'
import type { BlockBackend } from '../queue/backend.js'
import { entryBytes, type Geometry } from './geometry.js'

export type InspectOptions = {
  /** Parts of one kind that are listed, of any one table; further ones are counted. */
  readonly most: number
  readonly signal: AbortSignal | undefined
}

/** Entries of tables that are gone through for one image, all tables together: of tables of 8-byte entries half a GiB. */
const mostEntries = 2 ** 26

/** Tables are read in pieces of this many bytes. */
const pieceBytes = 1024 * 1024

/** What the parts of one inspection share: the file, and what may still be spent on it. */
export class Inspection {
  readonly backend: BlockBackend
  /** Of the file, as the inspection began. */
  readonly fileBytes: number
  readonly options: InspectOptions
  readonly #entries: number
  #entriesLeft: number

  /** @param entries  how many are gone through at most */
  constructor(backend: BlockBackend, options: InspectOptions, entries = mostEntries) {
    this.backend = backend
    this.fileBytes = backend.length
    this.options = options
    this.#entries = entries
    this.#entriesLeft = entries
  }

  /** Bytes of the file; what lies past its end is left out. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    this.options.signal?.throwIfAborted()
    const bytes = new Uint8Array(Math.max(0, Math.min(length, this.fileBytes - offset)))
    if (bytes.length > 0) await this.backend.read(bytes, offset)
    return bytes
  }

  /** Whether that many entries may still be gone through. */
  hasRoomFor(entries: number): boolean {
    return entries <= this.#entriesLeft
  }

  /**
   * Go through a table in pieces, as far as the file has it.
   * @param entries  that the table has
   * @param visit    given each piece, and where in the table it begins
   * @returns why it was not read, if it was not
   */
  async eachPiece(
    table: { readonly offset: number; readonly length: number; readonly entries: number },
    visit: (view: DataView, from: number) => void,
  ): Promise<string | undefined> {
    if (!this.hasRoomFor(table.entries)) {
      return `not read: of one image ${this.#entries} entries are looked at`
    }
    this.#entriesLeft -= table.entries
    for (let from = 0; from < table.length; from += pieceBytes) {
      const bytes = await this.read(table.offset + from, Math.min(pieceBytes, table.length - from))
      if (bytes.length === 0) break
      // Half an entry at the end of the file says nothing.
      const whole = bytes.length - (bytes.length % entryBytes)
      visit(new DataView(bytes.buffer, 0, whole), from)
    }
    return undefined
  }

  /**
   * Why something cannot stand where the image says that it does; `isReadable`: some of it may be there all the same.
   * @param aligned  to clusters; undefined: it stands anywhere
   */
  placeProblem(
    offset: number | bigint,
    length: number,
    aligned: Pick<Geometry, 'clusterSize'> | undefined,
  ): { readonly problem: string | undefined; readonly isReadable: boolean } {
    const unreadable = (problem: string): { problem: string; isReadable: boolean } => ({
      problem,
      isReadable: false,
    })
    if (typeof offset === 'bigint') return unreadable(`its offset ${offset} is not below 2^53`)
    if (offset === 0) return unreadable('its offset is 0, where the header is')
    if (aligned !== undefined && !isAligned(offset, aligned.clusterSize)) {
      return unreadable(`its offset 0x${offset.toString(16)} is not cluster aligned`)
    }
    const end = `the file ends after ${this.fileBytes} bytes`
    if (offset >= this.fileBytes) return unreadable(`it is not within the file: ${end}`)
    if (offset + length > this.fileBytes) return { problem: `${end}, within it`, isReadable: true }
    return { problem: undefined, isReadable: true }
  }
}
