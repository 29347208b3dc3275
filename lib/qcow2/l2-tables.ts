import { corrupt } from '../base/errors.js'
import { type GuestOffset, type HostOffset, hostOffset } from '../base/units.js'
import type { Allocator } from './allocator.js'
import type { Allocation, RefcountParts } from './refcount-parts.js'
import { checkPlaceInDataFile, type DataFile } from './data-file.js'
import type { DeferredFrees } from './deferred-frees.js'
import { l1Index, l2Index, l2SliceOffset } from './geometry.js'
import type { L1Table } from './l1-table.js'
import { hostOf, type L2Entry, decodeL2Entry, isWritableInPlace, type L2EntryRules } from './l2-entry.js'
import {
  alikeFrom,
  decodeExtended,
  emptyEntry,
  type ExtendedEntry,
  isAllAllocated,
  subclusterEntry,
  touchedSubclusters,
} from './subclusters.js'
import type { Slice, TableCache } from './table-cache.js'
import type { UnsyncedClusters } from './unsynced-clusters.js'
import { WildEntries } from './wild-entries.js'

/** One guest cluster's place: the slice that maps it, and the entry's byte offset in the slice. */
export type EntryPlace = { readonly slice: Slice; readonly at: number }

/** A run of guest bytes that are mapped alike. */
export type MappedRun = { readonly entry: L2Entry; readonly length: number }

/** What stands for a missing slice: load it, then look again. */
export type MissingSlice = { readonly load: HostOffset }

type L2Parts = RefcountParts & {
  readonly version: 2 | 3
  readonly l1: L1Table
  readonly l2Cache: TableCache
  readonly dataFile: DataFile | undefined
  readonly allocator: Allocator
  readonly frees: DeferredFrees
  readonly unsynced: UnsyncedClusters
}

const unallocated: L2Entry = { type: 'unallocated' }

/** The L2 tables: finding the entries of guest bytes, and making a table writable. qcow2 spec, "Cluster mapping". */
export class L2Tables {
  readonly #parts: L2Parts
  readonly #rules: L2EntryRules
  readonly #wild: WildEntries
  readonly #salvaging: boolean
  /** Tables being made, by L1 index: two requests share one. */
  readonly #making = new Map<number, Promise<void>>()

  /** What tells entries of this session from those that it has found, snapshot by snapshot. */
  get wild(): Pick<WildEntries, 'frozen' | 'applied'> {
    return this.#wild
  }

  /** @param options  `salvaging`: tables may be behind the end of the file, and say nothing then */
  constructor(parts: L2Parts, { salvaging = false }: { readonly salvaging?: boolean } = {}) {
    this.#parts = parts
    this.#salvaging = salvaging
    const { clusterBits, extendedL2 } = parts.geometry
    const hasDataFile = parts.dataFile !== undefined
    this.#rules = { version: parts.version, clusterBits, extendedL2, hasDataFile }
    // Places in a data file are the guest's own.
    this.#wild = new WildEntries(parts.geometry, hasDataFile ? Infinity : parts.backend.length)
  }

  /**
   * The host offset of a range that is one run of plain clusters, all in one slice that is in memory; -1 otherwise, whatever the
   * reason. This is the way of most requests; it allocates nothing.
   * @param inPlace  only clusters that may be written in place
   */
  contiguousHost(guest: GuestOffset, length: number, options: { inPlace: boolean }): number {
    const { geometry, l1, l2Cache } = this.#parts
    const tableIndex = l1Index(geometry, guest)
    const table = l1.plainTable(tableIndex, options.inPlace)
    if (table === 0) return -1
    const index = l2Index(geometry, guest)
    const slice = l2Cache.get(l2SliceOffset(geometry, hostOffset(table), index))
    if (slice === undefined) return -1
    const isTrusted = this.#wild.areNone(slice, tableIndex, index)
    const within = guest % geometry.clusterSize
    const clusters = Math.ceil((within + length) / geometry.clusterSize)
    const inSlice = index % geometry.l2EntriesPerSlice
    if (inSlice + clusters > geometry.l2EntriesPerSlice) return -1
    let first = -1
    for (let step = 0; step < clusters; step++) {
      const at = (inSlice + step) * geometry.l2EntryBytes
      const high = slice.view.getUint32(at)
      const low = slice.view.getUint32(at + 4)
      const host = hostOf(high, low)
      // Anything but a sound, plain entry is left to `lookup`, which says what it is.
      const plain = (high & 0x7fe00000) === 0 && (low & 0x1ff) === 0 && host % geometry.clusterSize === 0
      if (!plain || host === 0 || (options.inPlace && !isWritableInPlace(high, low))) return -1
      if (geometry.extendedL2) {
        const end = Math.min(within + length - step * geometry.clusterSize, geometry.clusterSize)
        const wanted = touchedSubclusters(step === 0 ? within : 0, end, geometry.subclusterSize)
        if (!isAllAllocated(slice.view, at, wanted)) return -1
      }
      if (step === 0) first = host
      else if (host !== first + step * geometry.clusterSize) return -1
    }
    if (this.#parts.dataFile !== undefined) return first === guest - within ? first + within : -1
    // Behind the end of the file nothing was ever written: `lookup` says so.
    const last = first + (clusters - 1) * geometry.clusterSize
    if (last >= this.#parts.backend.length || (!isTrusted && this.#wild.isWild(last))) return -1
    return first + within
  }

  /**
   * The longest run at `guest`, at most `length` bytes and within one slice, that is mapped alike: same type, same COPIED flag,
   * host clusters adjacent. A compressed cluster is a run of its own.
   * @throws ERR_CORRUPT
   */
  lookup(guest: GuestOffset, length: number): MappedRun | MissingSlice {
    const { geometry } = this.#parts
    const slice = this.#sliceOf(guest)
    if (slice === undefined) {
      const left = geometry.l2TableCoverage - (guest % geometry.l2TableCoverage)
      return { entry: unallocated, length: Math.min(length, left) }
    }
    if ('load' in slice) return slice
    const index = l2Index(geometry, guest)
    const inSlice = index % geometry.l2EntriesPerSlice
    if (geometry.extendedL2) return this.#lookupSubclusters(slice, inSlice, guest, length)
    const entry = this.#decode(slice, inSlice)
    this.#checkPlace(entry, guest, slice, inSlice)
    const within = guest % geometry.clusterSize
    const most = Math.min(
      geometry.l2EntriesPerSlice - inSlice,
      Math.ceil((within + length) / geometry.clusterSize),
    )
    const alike = this.#alikeByBits(slice, inSlice, entry, most)
    let end = alike * geometry.clusterSize - within
    for (let step = alike; end < length && inSlice + step < geometry.l2EntriesPerSlice; step++) {
      if (!continues(entry, this.#decode(slice, inSlice + step), step * geometry.clusterSize)) break
      end += geometry.clusterSize
    }
    return { entry, length: Math.min(end, length) }
  }

  /**
   * How many entries have the bits that go on from those of the first one, and are as sound as it is: what most runs consist of, found without making anything of
   * each entry. The run may be longer.
   */
  #alikeByBits({ view, trusted }: Slice, index: number, first: L2Entry, most: number): number {
    const { backend, dataFile, geometry } = this.#parts
    const hasHost = first.host !== undefined
    if (this.#salvaging || dataFile !== undefined || hasHost !== (first.type === 'normal')) return 1
    const at = index * geometry.l2EntryBytes
    const high = view.getInt32(at)
    const low = view.getInt32(at + 4)
    const step = hasHost ? geometry.clusterSize : 0
    let sound = most
    if (first.host !== undefined) {
      const end = trusted ? backend.length : Math.min(backend.length, this.#wild.from)
      // A carry into the upper half ends the run.
      sound = Math.min(most, (end - first.host) / step, (2 ** 32 - (low >>> 0)) / step)
    }
    let entries = 1
    for (let next = at + 8; entries < sound; next += 8, entries++) {
      if (view.getInt32(next) !== high || view.getInt32(next + 4) !== ((low + entries * step) | 0)) break
    }
    return entries
  }

  /** As `lookup`, with extended entries: a run ends where the state of a subcluster changes. */
  #lookupSubclusters(slice: Slice, inSlice: number, guest: GuestOffset, length: number): MappedRun {
    const { clusterSize, subclusterSize, l2EntriesPerSlice } = this.#parts.geometry
    const within = guest % clusterSize
    const first = this.#decodeExtended(slice, inSlice)
    this.#checkPlace(first.cluster, guest, slice, inSlice)
    const index = Math.floor(within / subclusterSize)
    const entry = subclusterEntry(first, index)
    if (entry.type === 'compressed') return { entry, length: Math.min(clusterSize - within, length) }
    let end = (index + alikeFrom(first, index)) * subclusterSize
    for (let step = 1; end - within < length && inSlice + step < l2EntriesPerSlice; step++) {
      if (end < step * clusterSize) break
      const next = this.#decodeExtended(slice, inSlice + step)
      if (!continues(entry, subclusterEntry(next, 0), step * clusterSize)) break
      end += alikeFrom(next, 0) * subclusterSize
    }
    return { entry, length: Math.min(end - within, length) }
  }

  /** With extended entries: that of the cluster in which a guest byte is. @throws ERR_CORRUPT */
  clusterEntry(guest: GuestOffset): ExtendedEntry | MissingSlice {
    const { geometry } = this.#parts
    const slice = this.#sliceOf(guest)
    if (slice === undefined) return emptyEntry
    if ('load' in slice) return slice
    const inSlice = l2Index(geometry, guest) % geometry.l2EntriesPerSlice
    const entry = this.#decodeExtended(slice, inSlice)
    this.#checkPlace(entry.cluster, guest, slice, inSlice)
    return entry
  }

  /** The slice that maps a guest byte, looked at for wild entries. Undefined: there is no table. */
  #sliceOf(guest: GuestOffset): Slice | MissingSlice | undefined {
    const { geometry, l1, l2Cache } = this.#parts
    const tableIndex = l1Index(geometry, guest)
    const table = l1.table(tableIndex)
    if (table === undefined) return undefined
    const index = l2Index(geometry, guest)
    const sliceHost = l2SliceOffset(geometry, table.host, index)
    const slice = l2Cache.get(sliceHost)
    if (slice === undefined) return { load: sliceHost }
    this.#wild.areNone(slice, tableIndex, index)
    return slice
  }

  /** In a data file a cluster stands where the guest has it. @param guest  a byte in the cluster */
  #checkPlace(entry: L2Entry, guest: GuestOffset, slice: Slice, inSlice: number): void {
    if (this.#parts.dataFile === undefined) return
    const { clusterSize, l2EntryBytes } = this.#parts.geometry
    checkPlaceInDataFile(entry, guest - (guest % clusterSize), slice.host + inSlice * l2EntryBytes)
  }

  /**
   * As `lookup`, loading the slice if need be. The mapping may have changed by the time the caller goes on: good enough for readers,
   * whose ticket keeps the clusters, not for changing it.
   */
  async find(guest: GuestOffset, length: number): Promise<MappedRun> {
    for (;;) {
      const run = this.lookup(guest, length)
      if (!('load' in run)) return run
      await this.#parts.l2Cache.load(run.load)
    }
  }

  /**
   * Where the entry of a guest cluster stands, if its table is ours to change and the slice is in memory. Good until the next
   * await, or for as long as the slice is pinned.
   * @throws ERR_CORRUPT  the slice has a wild entry
   */
  writablePlace(guest: GuestOffset): EntryPlace | undefined {
    const { geometry, l1 } = this.#parts
    if (l1.table(l1Index(geometry, guest))?.copied !== true) return undefined
    const slice = this.#sliceOf(guest)
    if (slice === undefined || 'load' in slice) return undefined
    if (!slice.trusted) this.#wild.refuseChange(slice)
    return { slice, at: (l2Index(geometry, guest) % geometry.l2EntriesPerSlice) * geometry.l2EntryBytes }
  }

  /** One step towards a writable place: make the table, or copy a shared one, or load the slice. Then look again. */
  prepareWritable(guest: GuestOffset): Promise<void> {
    const { geometry, l1, l2Cache } = this.#parts
    const tableIndex = l1Index(geometry, guest)
    const table = l1.table(tableIndex)
    if (table?.copied !== true) return this.#make(tableIndex, guest)
    return l2Cache.load(l2SliceOffset(geometry, table.host, l2Index(geometry, guest)))
  }

  #make(tableIndex: number, guest: GuestOffset): Promise<void> {
    let making = this.#making.get(tableIndex)
    if (making === undefined) {
      making = this.#makeTable(tableIndex, guest).finally(() => this.#making.delete(tableIndex))
      this.#making.set(tableIndex, making)
    }
    return making
  }

  /** A table of our own: new and empty (E5), or a copy of one that a snapshot shares (E6). */
  async #makeTable(tableIndex: number, guest: GuestOffset): Promise<void> {
    const { geometry, l1, l2Cache, allocator, backend, ordering, metadata, frees, unsynced } = this.#parts
    const shared = l1.table(tableIndex)?.host
    const allocation = await allocator.allocate(1)
    const { host } = allocation
    const isEmptyTable = allocation.blank && shared === undefined
    if (!isEmptyTable) await this.#fill(allocation, shared)

    metadata.add('L2 table', host, geometry.clusterSize)
    l2Cache.drop(host, geometry.clusterSize)
    if (shared === undefined) {
      this.#wild.trustNewTable(tableIndex)
      l2Cache.insertZeros(l2SliceOffset(geometry, host, l2Index(geometry, guest)))
    }
    const entry = l1.setTable(tableIndex, host)
    const linked = isEmptyTable
      ? ordering.linkBlankL2Table(entry, allocation.after)
      : ordering.linkL2Table(entry, allocation.after)
    if (!isEmptyTable) unsynced.add(host, geometry.clusterSize, linked)
    if (shared !== undefined) {
      frees.add(shared, geometry.clusterSize, { removal: linked, punch: false, wasTable: true })
    }
    if (backend.syncPolicy === 'write') await ordering.completed(linked)
  }

  async #fill(allocation: Allocation, shared: HostOffset | undefined): Promise<void> {
    const { geometry, allocator, backend, ordering } = this.#parts
    try {
      if (shared === undefined) {
        await backend.writeZeroes(allocation.host, geometry.clusterSize, { unmap: false })
      } else {
        // A shared table is never changed in place, so no newer version of it waits in the queue: a copy inherits nothing.
        const copy = new Uint8Array(geometry.clusterSize)
        await backend.readQueued(copy, shared)
        await backend.write(copy, allocation.host)
      }
      await ordering.dataWritten()
    } catch (error) {
      await allocator.cancel(allocation)
      throw error
    }
  }

  /**
   * A cluster behind the end of the file was cut off with the file, or never was there: its bytes are not zeros but lost, and
   * its count is 0, so that writing it in place would share it with the next that is allocated.
   */
  #decode(slice: Slice, index: number): L2Entry {
    const { geometry } = this.#parts
    const at = index * geometry.l2EntryBytes
    const place = slice.host + at
    const entry = decodeL2Entry(slice.view.getUint32(at), slice.view.getUint32(at + 4), this.#rules, place)
    this.#refuseBehindEnd(entry, slice, place)
    return entry
  }

  #decodeExtended(slice: Slice, index: number): ExtendedEntry {
    const at = index * this.#parts.geometry.l2EntryBytes
    const entry = decodeExtended(slice.view, at, this.#rules, slice.host + at)
    this.#refuseBehindEnd(entry.cluster, slice, slice.host + at)
    return entry
  }

  #refuseBehindEnd(entry: L2Entry, slice: Slice, place: number): void {
    const { backend, dataFile, geometry } = this.#parts
    if (this.#salvaging && place + geometry.l2EntryBytes > backend.length)
      throw corrupt('L2 entry', place, 'it lies behind the end of the file')
    if (dataFile !== undefined || entry.host === undefined) return
    if (!slice.trusted) this.#wild.refuse(entry.host, place)
    if (entry.host < backend.length) return
    throw corrupt('L2 entry', place, `host offset ${entry.host} lies behind the end of the file`)
  }
}

/** Whether an entry `distance` bytes behind the first one goes on with its run. */
function continues(first: L2Entry, next: L2Entry, distance: number): boolean {
  if (first.type === 'unallocated')
    return next.type === 'unallocated' && isAdjacent(first.host, next.host, distance)
  if (first.type === 'normal') {
    return next.type === 'normal' && next.host === first.host + distance && next.copied === first.copied
  }
  if (first.type === 'zero' && next.type === 'zero') {
    return isAdjacent(first.host, next.host, distance) && next.copied === first.copied
  }
  return false
}

function isAdjacent(first: number | undefined, next: number | undefined, distance: number): boolean {
  return first === undefined ? next === undefined : next === first + distance
}
