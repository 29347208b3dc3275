import { assert } from '../base/assert.js'
import { namingFile, outOfRange, readOnly } from '../base/errors.js'
import { Pending } from '../base/pending.js'
import { guestOffset, hostOffset } from '../base/units.js'
import { addStats } from '../queue/add-stats.js'
import type { BlockBackend, QueueStats } from '../queue/backend.js'
import type {
  BackingSource,
  FormatImage,
  GrowOptions,
  Mapping,
  SnapshotReference,
} from '../queue/format-image.js'
import { poisonedError } from '../queue/system-error.js'
import { ActiveRequests } from './active-requests.js'
import { findBitmapClusters } from './bitmap-table.js'
import { Bitmaps } from './bitmaps.js'
import { Allocator } from './allocator.js'
import { ClusterCodec } from './compression.js'
import { CompressedSpace } from './compressed-space.js'
import { CorruptMark } from './corrupt-mark.js'
import { attachDataFile, dataFileExcludes, fileOfData, hasDataFile } from './data-file.js'
import { DeferredFrees } from './deferred-frees.js'
import { type Encryption, openEncryption } from './encryption.js'
import { encryptionArea } from './encryption-header.js'
import { emptyGuest } from './empty.js'
import { geometryOf } from './geometry.js'
import type { GuestData } from './guest-data.js'
import { type Header, refuseContradiction } from './header.js'
import { HeaderCluster } from './header-cluster.js'
import { type BackingStrings, planBacking } from './header-strings.js'
import { L1Table } from './l1-table.js'
import { L2Tables } from './l2-tables.js'
import { findMetadata } from './find-metadata.js'
import { mappingOf } from './mapping.js'
import { MetadataMap } from './metadata-map.js'
import { type OpenMetadata, openMetadata } from './open-metadata.js'
import { alone, type Parts, refuseUnsound } from './parts.js'
import { type Preallocation, preallocate } from './preallocate.js'
import { RangeLocks } from './range-locks.js'
import { readGuest, readPlain } from './read.js'
import { RefcountGrowth } from './refcount-growth.js'
import { RefcountTable } from './refcount-table.js'
import type { ReservationOptions } from './reservation.js'
import { checkResize, grow, preallocateGrown, shrink } from './resize.js'
import { SessionMarks } from './session-marks.js'
import { SnapshotList } from './snapshot-list.js'
import { atSnapshot } from './snapshot-view.js'
import { settle } from './snapshot-work.js'
import { Snapshots } from './snapshots.js'
import { TableCache } from './table-cache.js'
import { UnsyncedClusters } from './unsynced-clusters.js'
import { writeCompressedGuest } from './write-compressed.js'
import { writeGuest, writeInPlace } from './write.js'
import { WriteOrdering } from './write-ordering.js'
import { discardGuest, hideBacking, writeZeroesGuest } from './zero-discard.js'

export type OpenQcow2Options = ReservationOptions & {
  readonly readOnly: boolean
  /** The file may have been cut short; read-only. */
  readonly salvaging?: boolean
  /** Where unallocated clusters come from; the caller keeps it open while the image is. */
  readonly backing?: BackingSource | undefined
  /** Bytes of L2 tables kept in memory; default 4 MiB, which map 32 GiB in clusters of 64 KiB. */
  readonly l2CacheBytes?: number
  /** Bytes of refcount blocks kept in memory; default 2 MiB. */
  readonly refcountCacheBytes?: number
  /** The open data file of an image that has one; the image takes it over, and closes it. */
  readonly dataFile?: BlockBackend | undefined
  /** The disk as it is in this snapshot, instead of as it is now; read-only. */
  readonly snapshot?: SnapshotReference | undefined
  /** What opens it if it is encrypted. */
  readonly encryption?: Encryption | undefined
}

const defaultL2CacheBytes = 4 * 1024 * 1024
const defaultRefcountCacheBytes = 2 * 1024 * 1024

/**
 * Open the qcow2 image in a file. The caller has taken the locks; the image takes the backend over, and closes it.
 * @throws ERR_NOT_AN_IMAGE, ERR_UNSUPPORTED_FEATURE, ERR_CORRUPT: nothing is written by opening
 */
export async function openQcow2(backend: BlockBackend, options: OpenQcow2Options): Promise<Qcow2Image> {
  const found = await openMetadata(backend, { ...options, repairing: false })
  refuseContradiction(found.header, backend.path)
  const file = fileOfData(found.header, backend, options.dataFile)
  const data = await openEncryption(backend, found.header, file, options)
  const { snapshot } = options
  assert(snapshot === undefined || options.readOnly, 'snapshots are read-only')
  if (snapshot !== undefined && hasDataFile(found.header))
    throw dataFileExcludes('Internal snapshots', backend.path)
  const metadata = snapshot === undefined ? found : await atSnapshot(backend, found, snapshot, options)
  return new Qcow2Image(assemble(backend, metadata, options, data), metadata, options)
}

/** The parts of an image whose metadata has been read. */
export function assemble(
  backend: BlockBackend,
  found: OpenMetadata,
  options: OpenQcow2Options,
  data: GuestData = fileOfData(found.header, backend, options.dataFile),
): Parts {
  const { header } = found
  const geometry = geometryOf(header)
  const l1 = new L1Table(geometry, hostOffset(header.l1Offset), header.l1Entries, found.l1)
  const table = new RefcountTable(geometry, hostOffset(header.refcountTableOffset), found.refcountTable)
  // A read-only image writes nothing that could overlap.
  const snapshots = {
    offset: header.snapshotsOffset,
    bytes: found.snapshotTable.bytes,
    tables: found.snapshotTable.snapshots,
  }
  const area = encryptionArea(header)
  const taken = options.readOnly
    ? []
    : [...findMetadata(geometry, snapshots, l1, table, area), findBitmapClusters(geometry, found.bitmaps)]
  const unsynced = new UnsyncedClusters(backend)
  const dataFile = attachDataFile(header, backend, options.dataFile)
  const refuseLost = (host: number, length: number): void => unsynced.refuse(host, length)
  const refcounts = {
    backend,
    geometry,
    table,
    cache: new TableCache(
      backend,
      geometry.sliceSize,
      options.refcountCacheBytes ?? defaultRefcountCacheBytes,
      refuseLost,
    ),
    metadata: new MetadataMap(geometry, taken),
    ordering: new WriteOrdering(backend),
  }
  const headerCluster = new HeaderCluster(geometry, found.firstCluster)
  const growth = new RefcountGrowth(refcounts, headerCluster)
  const allocator = new Allocator(refcounts, growth, options)
  const active = new ActiveRequests()
  const l2Cache = new TableCache(
    backend,
    geometry.sliceSize,
    options.l2CacheBytes ?? defaultL2CacheBytes,
    refuseLost,
  )
  const frees = new DeferredFrees(refcounts, allocator, active, l2Cache)
  growth.freeWith((host, length, removal) =>
    frees.add(host, length, { removal, punch: false, wasTable: true }),
  )
  const tables = { ...refcounts, version: header.version, l1, l2Cache, allocator, frees, unsynced, dataFile }
  return {
    ...tables,
    data,
    encryptionArea: area,
    // The section that its bytes are durable with is one of the image's own queue.
    unsyncedData: dataFile === undefined ? unsynced : new UnsyncedClusters(backend),
    l2: new L2Tables(tables, options),
    compressedSpace: new CompressedSpace(refcounts, allocator),
    active,
    locks: new RangeLocks(),
    header: headerCluster,
    damage: new CorruptMark({ ...refcounts, header: headerCluster }, header.version),
    backing: options.backing,
    codec: new ClusterCodec(header.compressionType, geometry.clusterSize, backend),
  }
}

/** An open qcow2 image: the format as the guest's view asks for it. */
export class Qcow2Image implements FormatImage {
  readonly format = 'qcow2'
  readonly header: Header
  readonly subclusterSize: number
  readonly #parts: Parts
  readonly snapshots: Snapshots
  readonly bitmaps: Bitmaps
  readonly #list: SnapshotList
  readonly #changes = new Pending()
  #readOnly: boolean
  #size: number
  readonly #marks: SessionMarks

  constructor(parts: Parts, metadata: OpenMetadata, options: OpenQcow2Options) {
    this.#parts = parts
    this.subclusterSize = parts.geometry.subclusterSize
    this.header = metadata.header
    this.#size = metadata.header.size
    this.#readOnly = options.readOnly
    this.#marks = new SessionMarks(parts.ordering, parts.header, metadata.header)
    this.#list = new SnapshotList(parts.backend, metadata.header, metadata.snapshotTable)
    this.bitmaps = new Bitmaps(parts, metadata.bitmaps, this.#marks, metadata.header, {
      size: () => this.#size,
      readOnly: () => this.#readOnly,
    })
    this.snapshots = new Snapshots(parts, this.#list, this.#marks, this.bitmaps, {
      get: () => this.#size,
      set: (size) => {
        this.#size = size
      },
    })
    parts.backend.onProgress(() => parts.frees.release())
  }

  get size(): number {
    return this.#size
  }

  /** What stands in its clusters is not what the guest sees. */
  get isEncrypted(): boolean {
    return this.#parts.data.encrypted === true
  }

  get clusterSize(): number {
    return this.#parts.geometry.clusterSize
  }

  read(bytes: Uint8Array, offset: number): Promise<void> {
    try {
      const isInside = offset + bytes.byteLength <= this.#size
      const plain = isInside ? readPlain(this.#parts, bytes, guestOffset(offset)) : undefined
      return plain ?? this.#read(bytes, offset)
    } catch (error) {
      return Promise.reject(namingFile(error, this.#parts.backend.path))
    }
  }

  async #read(bytes: Uint8Array, offset: number): Promise<void> {
    const { active } = this.#parts
    while (active.gate !== undefined) await active.gate
    this.#refuseOutside(offset, bytes.byteLength)
    const ticket = active.begin()
    try {
      await readGuest(this.#parts, bytes, guestOffset(offset))
    } catch (error) {
      throw namingFile(error, this.#parts.backend.path)
    } finally {
      this.#end(ticket)
    }
  }

  write(bytes: Uint8Array, offset: number, fua = false): Promise<void> {
    return this.#change(offset, bytes.byteLength, () => {
      const write = { bytes, guest: guestOffset(offset), fua }
      return writeInPlace(this.#parts, write) ?? writeGuest(this.#parts, write)
    })
  }

  writeCompressed(bytes: Uint8Array, offset: number): Promise<void> {
    return this.#change(offset, bytes.byteLength, () =>
      writeCompressedGuest(this.#parts, bytes, guestOffset(offset)),
    )
  }

  writeZeroes(offset: number, length: number, options: { unmap: boolean }): Promise<void> {
    return this.#change(offset, length, () =>
      writeZeroesGuest(this.#parts, guestOffset(offset), length, { ...options, size: this.#size }),
    )
  }

  /** Make whole clusters or subclusters read as zeros, on this backing file and on any other. */
  hideBacking(offset: number, length: number): Promise<void> {
    return this.#change(offset, length, () =>
      hideBacking(this.#parts, guestOffset(offset), length, { size: this.#size }),
    )
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#change(offset, length, () =>
      discardGuest(this.#parts, guestOffset(offset), length, { size: this.#size }),
    )
  }

  /** In 'write' mode all that has completed is durable already; but after a failed sync nobody is told that all is well. */
  async flush(): Promise<void> {
    const { backend } = this.#parts
    if (this.#readOnly) return
    if (backend.syncPolicy !== 'write') await backend.flush()
    else if (backend.poisoned !== undefined) throw poisonedError(backend.poisoned, backend.path)
  }

  async mapping(offset: number, length: number): Promise<Mapping> {
    const { active, l2 } = this.#parts
    while (active.gate !== undefined) await active.gate
    const ticket = active.begin()
    try {
      return mappingOf(this.#parts, await l2.find(guestOffset(offset), length), offset)
    } catch (error) {
      throw namingFile(error, this.#parts.backend.path)
    } finally {
      this.#end(ticket)
    }
  }

  async resize(size: number, options: { readonly shrink: boolean } & GrowOptions): Promise<void> {
    const parts = this.#parts
    const check = (): void => {
      checkResize(parts, { from: this.#size, to: size, shrink: options.shrink, snapshots: this.#list })
      if (size !== this.#size) this.bitmaps.refuseResize(size)
    }
    check()
    await this.#alone(async () => {
      // Again: what ran before may have been another resize.
      check()
      const from = this.#size
      const switched = (): void => this.#resized(size)
      if (size !== from) await this.bitmaps.announce('all')
      if (size > from) {
        await grow(parts, from, size, switched)
        await preallocateGrown(parts, { from, to: size }, options, () => this.#resized(from))
      } else if (size < from) await shrink(parts, from, size, switched)
      else await parts.ordering.unchanged()
      if (size !== from) await this.bitmaps.storeResized()
    })
  }

  #resized(size: number): void {
    this.bitmaps.resized(this.#size, size)
    this.#size = size
  }

  /**
   * Say that the backing file is another one, or that there is none; durable when it resolves. What the guest sees must not change by that:
   * that is the caller's to see to, and to have written what only the old one holds. This image goes on reading where it has read.
   * @throws ERR_NOT_SUPPORTED  the name does not fit the header
   */
  async rewriteBacking(backing: BackingStrings | undefined): Promise<void> {
    const { header, ordering, backend, dataFile } = this.#parts
    if (backing !== undefined && dataFile?.isRaw === true)
      throw dataFileExcludes('A backing file', backend.path)
    const plan = (): Uint8Array[] => planBacking(header.copy(), backing, backend.path)
    // What does not fit is refused before anything is changed.
    plan()
    await this.#alone(async () => {
      for (const cluster of plan()) await ordering.rewriteHeader(() => header.rewrite(cluster))
    })
  }

  /** Give up all that this image maps: its disk shows the backing file, which durably holds what the guest must go on seeing. */
  async empty(): Promise<void> {
    await this.#alone(() => emptyGuest(this.#parts))
  }

  /** Work on the image as a whole while no request runs: counts are exactly the references, and all is durable. Guest bytes must not change. */
  async reorganise(work: (parts: Parts, snapshots: SnapshotList) => Promise<void>): Promise<void> {
    await this.#alone(async () => {
      await this.snapshots.finish()
      await settle(this.#parts)
      await work(this.#parts, this.#list)
    })
  }

  /** Map the whole disk ahead of its use. For new images. */
  async preallocate(
    mode: Preallocation,
    control: { signal?: AbortSignal | undefined; onBytes?: ((done: number) => void) | undefined } = {},
  ): Promise<void> {
    await this.#parts.active.exclusively(() =>
      preallocate(this.#parts, { from: 0, to: this.#size, mode }, control),
    )
  }

  stats(): QueueStats {
    const { backend, dataFile } = this.#parts
    return dataFile === undefined ? backend.stats() : addStats(backend.stats(), dataFile.backend.stats())
  }

  changesEnded(): Promise<void> {
    return this.#changes.ended()
  }

  async freeze(): Promise<void> {
    const { active, backend } = this.#parts
    await active.exclusively(async () => {
      await this.#finish()
      // The counts that went down last, and what the marks have left.
      await backend.flush()
      this.#readOnly = true
    })
  }

  async close(): Promise<void> {
    const { active, backend, dataFile } = this.#parts
    try {
      await active.exclusively(async () => {
        if (!this.#readOnly) await this.#finish()
      })
    } finally {
      await backend.close().finally(() => dataFile?.backend.close())
    }
  }

  /** Nothing is reserved or about to be freed any more, and the marks of a running session are gone. The last flush is the caller's. */
  async #finish(): Promise<void> {
    const { backend, frees, allocator, compressedSpace } = this.#parts
    const failures: unknown[] = []
    const note = (error: unknown): void => void failures.push(error)
    // Clusters are leaked that the last operation on snapshots does not free.
    await this.snapshots.finish().catch(note)
    await allocator.giveBackReserved()
    // Behind that, so that they go to the lowest clusters. Of what is not stored the file says that it is inconsistent.
    await this.bitmaps.finish().catch(note)
    // Each flush makes removals durable, whose frees are then queued, to ride with the next.
    do {
      await backend.flush()
      await frees.settled()
    } while (frees.pending)
    // Now that nothing is being punched out any more at the end of the file.
    await compressedSpace.padFile()
    await this.#marks.takeBack()
    if (failures.length > 0) throw failures[0]
  }

  /** Change the image as a whole, while no request runs. */
  async #alone(work: () => Promise<void>): Promise<void> {
    const { backend, damage } = this.#parts
    this.#changes.begin()
    try {
      await this.#marks.set()
      await alone(this.#parts, async () => {
        if (backend.poisoned !== undefined) throw poisonedError(backend.poisoned, backend.path)
        if (this.#readOnly) throw readOnly(`The image '${backend.path}' is read-only`, { path: backend.path })
        damage.refuse()
        await work()
      })
    } finally {
      this.#changes.end()
    }
  }

  /** Run a request that changes the image. */
  async #change(offset: number, length: number, work: () => Promise<void>): Promise<void> {
    this.#changes.begin()
    const { frees } = this.#parts
    const { released } = frees
    let ticket: number | undefined
    try {
      ticket = this.#beginChange(offset, length) ?? (await this.#waitToChange(offset, length))
      await work()
    } catch (error) {
      if (ticket === undefined || !frees.mayHelp(error, released)) await this.#fail(error)
      this.#end(ticket)
      ticket = undefined
      await this.#changeAfterFreeing(offset, length, work).catch((again: unknown) => this.#fail(again))
    } finally {
      this.#end(ticket)
      this.#changes.end()
    }
  }

  /** A change has failed, for good. @throws why */
  async #fail(error: unknown): Promise<never> {
    await this.#parts.damage.note(error)
    throw namingFile(error, this.#parts.backend.path)
  }

  /** The disk is full, but clusters within the file are about to be free: make them so, and try once more. */
  async #changeAfterFreeing(offset: number, length: number, work: () => Promise<void>): Promise<void> {
    await this.#parts.backend.flush()
    await this.#parts.frees.through()
    const ticket = this.#beginChange(offset, length) ?? (await this.#waitToChange(offset, length))
    try {
      await work()
    } finally {
      this.#end(ticket)
    }
  }

  /** @returns the ticket of a request that changes the image; undefined when it has to wait first */
  #beginChange(offset: number, length: number): number | undefined {
    const { active, backend } = this.#parts
    if (this.#readOnly) throw readOnly(`The image '${backend.path}' is read-only`, { path: backend.path })
    if (this.#marks.due || this.bitmaps.due || active.gate !== undefined) return undefined
    refuseUnsound(this.#parts)
    this.#refuseOutside(offset, length)
    if (length > 0) this.bitmaps.mark(offset, length)
    return active.begin()
  }

  async #waitToChange(offset: number, length: number): Promise<number> {
    for (;;) {
      await this.#marks.set()
      if (this.bitmaps.due) await this.#parts.active.exclusively(() => this.bitmaps.announce())
      await this.#parts.active.gate
      const ticket = this.#beginChange(offset, length)
      if (ticket !== undefined) return ticket
    }
  }

  /** The caller has checked this; but the disk may have shrunk while the request waited to begin (H10). */
  #refuseOutside(offset: number, length: number): void {
    if (offset + length <= this.#size) return
    throw outOfRange(`bytes ${offset} to ${offset + length} are not within the disk's ${this.#size}`)
  }

  #end(ticket: number | undefined): void {
    if (ticket !== undefined) this.#parts.active.end(ticket)
    if (this.#parts.frees.pending) this.#parts.frees.release()
  }
}
