import { corrupt } from '../base/errors.js'
import type { Geometry } from './geometry.js'
import { firstByteOf } from './l2-entry.js'
import type { Slice } from './table-cache.js'

/** Slices whose marks stand in one piece of memory. */
const marksPerPage = 32768

/**
 * Entries of L2 tables that point behind the end of the file as this session has found it. Nobody can have written them there soundly, and when
 * the file grows their clusters become somebody else's: so each slice is looked at once, before this session can have changed it, against
 * the length that the file had. What has been found sound is marked: a bit for each slice of the disk's tables, so that it is trusted when it
 * comes back from the file with entries of this session.
 *
 * A slice with such an entry is never trusted: its other clusters are read and written in place, and no entry of it is changed.
 */
export class WildEntries {
  readonly #geometry: Geometry
  readonly #fileBytes: number
  readonly #slicesPerTable: number
  #trusted = new Map<number, Uint8Array>()

  /** What was trusted when a snapshot was made, by the host offset of its L1 table. */
  readonly #frozen = new Map<number, Map<number, Uint8Array>>()

  /** @param fileBytes  the length of the file when it was opened */
  constructor(geometry: Geometry, fileBytes: number) {
    this.#geometry = geometry
    this.#fileBytes = fileBytes
    this.#slicesPerTable = geometry.clusterSize / geometry.sliceSize
  }

  /**
   * Whether all entries of a slice may be believed, but for what has happened to the file since. Cheap from the second time on.
   * @param tableIndex  of the L1 entry  @param entryIndex  of an entry of the slice, in the table
   */
  areNone(slice: Slice, tableIndex: number, entryIndex: number): boolean {
    if (slice.trusted) return true
    const number =
      tableIndex * this.#slicesPerTable + Math.floor(entryIndex / this.#geometry.l2EntriesPerSlice)
    if (!this.#isTrusted(number)) {
      if (this.#find(slice) >= 0) return false
      this.#trust(number)
    }
    slice.trusted = true
    return true
  }

  /** The table at this place is one that this session has made, and all zeros. */
  trustNewTable(tableIndex: number): void {
    const first = tableIndex * this.#slicesPerTable
    for (let number = first; number < first + this.#slicesPerTable; number++) this.#trust(number)
  }

  /** A snapshot of the disk as it is now, known by its L1 table, has tables that this session has looked at, or made. */
  frozen(l1: number): void {
    this.#frozen.set(l1, copyOf(this.#trusted))
  }

  /**
   * Other tables are the disk's from now on: those of a snapshot. Of one that this session has made is known what was looked at when it was made; one
   * that was there before has nothing that this session wrote, and is looked at as if the image had just been opened.
   */
  applied(l1: number): void {
    this.#trusted = copyOf(this.#frozen.get(l1) ?? new Map())
  }

  /** Below this no host offset is wild. Bytes. */
  get from(): number {
    return this.#fileBytes
  }

  /** Of the host offset in an entry of a slice that is not trusted. */
  isWild(host: number): boolean {
    return host >= this.#fileBytes
  }

  /** @throws ERR_CORRUPT  the host offset of an entry of a slice that is not trusted is wild. @param place  of the entry */
  refuse(host: number, place: number): void {
    if (!this.isWild(host)) return
    const what = `host offset ${host} lies behind the end of the file as it was opened`
    throw corrupt('L2 entry', place, what)
  }

  /** @throws ERR_CORRUPT  a slice that is not trusted would be changed */
  refuseChange(slice: Slice): void {
    const at = this.#find(slice)
    if (at < 0) return
    this.refuse(this.#hostAt(slice, at), slice.host + at)
  }

  /** @returns the byte offset in the slice of the first wild entry; -1: there is none */
  #find(slice: Slice): number {
    const { l2EntryBytes, sliceSize } = this.#geometry
    for (let at = 0; at < sliceSize; at += l2EntryBytes) {
      if (this.isWild(this.#hostAt(slice, at))) return at
    }
    return -1
  }

  #hostAt({ view }: Slice, at: number): number {
    return firstByteOf(view.getUint32(at), view.getUint32(at + 4), this.#geometry.clusterBits)
  }

  #isTrusted(number: number): boolean {
    const page = this.#trusted.get(Math.floor(number / marksPerPage))
    const within = number % marksPerPage
    return page !== undefined && ((page[within >>> 3] ?? 0) & (1 << (within & 7))) !== 0
  }

  #trust(number: number): void {
    const index = Math.floor(number / marksPerPage)
    let page = this.#trusted.get(index)
    if (page === undefined) this.#trusted.set(index, (page = new Uint8Array(marksPerPage / 8)))
    const within = number % marksPerPage
    page[within >>> 3] = (page[within >>> 3] ?? 0) | (1 << (within & 7))
  }
}

function copyOf(marks: ReadonlyMap<number, Uint8Array>): Map<number, Uint8Array> {
  return new Map(Array.from(marks, ([index, page]) => [index, page.slice()]))
}
