import { notSupported } from '../base/errors.js'
import { divideRoundingUp } from '../base/integers.js'
import type { BlockBackend } from '../queue/backend.js'
import { ReferenceCounts } from './check-counts.js'
import {
  type CheckResult,
  emptyResult,
  type Finding,
  type FindingKind,
  findingsKept,
} from './check-result.js'
import type { TableMemory } from './check-tables.js'
import { entryBytes, type Geometry, geometryOf } from './geometry.js'
import type { Header } from './header.js'
import { limits } from './spec.js'

export type Repair = 'leaks' | 'all' | undefined

export type CheckProgress = {
  readonly phase: 'references' | 'refcounts' | 'flags' | 'repair'
  readonly bytesDone: number
  readonly bytesTotal: number
}

export type CheckOptions = {
  /** 'leaks': only lower what is too high, which is always safe. 'all': repair corruptions too. */
  readonly repair?: Repair
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: CheckProgress) => void) | undefined
  /** Called when repairs are done, before the image is checked again, if there were any. */
  readonly onRepaired?: ((fixed: { corruptions: number; leaks: number }) => void) | undefined
  /** Called with each finding as it is made; the result keeps the first ones only. */
  readonly onFinding?: ((finding: Finding) => void) | undefined
  /** Memory for the counts, bytes. */
  readonly maxCountBytes?: number | undefined
}

/** 256 clusters cost about 300 bytes, long runs next to nothing: enough for 400 million clusters in use. */
const defaultCountBytes = 512 * 1024 * 1024

/** More overflown clusters than this are not told apart: no count is relied on then. */
const overflownKept = 100_000

type FindingDetails = Partial<Pick<Finding, 'cluster' | 'refcount' | 'reference' | 'offset' | 'repaired'>>

/** What the parts of one check share. */
export class CheckState {
  readonly backend: BlockBackend
  readonly header: Header
  readonly geometry: Geometry
  readonly counts: ReferenceCounts
  readonly result: CheckResult
  readonly options: CheckOptions
  /** For all walks through tables, of which there is one at a time. */
  readonly tableMemory: TableMemory = { bytes: new Uint8Array(0) }
  /** Of the file, as the check began. */
  readonly fileBytes: number
  /** Host clusters to compare: of the file, and of what references stick out of it by less than a cluster. */
  clusterCount: number
  /** The refcounts cannot be put right in place: they have to be built anew. */
  needsRebuild = false
  /** Some refcount is not the number of references, or cannot be read. */
  refcountsDiffer = false
  /** Every entry that has been looked at and that has a plain cluster, or a table, says that it is its alone. */
  allCopied = true
  /** Some cluster has more than one reference. */
  anyShared = false
  /** Corruptions among those found that right refcounts, or new refcount structures, put an end to. */
  refcountCorruptions = 0
  /** Zero entries that keep a misaligned cluster. */
  misalignedZeros = 0
  /** How often each cluster is referred to as an L2 table. */
  readonly l2References: ReferenceCounts
  /** References to what lies past the end of the file; kept where a rebuild must not get in their way. */
  readonly wild: ReferenceCounts
  /** Some refcount block is something else as well: writing it would damage that. */
  blocksShared = false
  /** Clusters that have more references than their count can say. */
  readonly #overflown = new Set<number>()
  /** L2 tables that are something else as well; known when all references are counted. */
  readonly #overlapped = new Set<number>()
  #l1Overlapped = false
  /** Whether the refcount table and blocks are counted: a rebuild replaces them. */
  readonly countsRefcountStructures: boolean

  constructor(
    backend: BlockBackend,
    header: Header,
    options: CheckOptions,
    special?: { countsRefcountStructures: boolean; fileBytes: number },
  ) {
    this.countsRefcountStructures = special?.countsRefcountStructures ?? true
    this.backend = backend
    this.header = header
    this.options = options
    this.geometry = geometryOf(header)
    const limit = options.maxCountBytes ?? defaultCountBytes
    this.counts = new ReferenceCounts(limit)
    this.l2References = new ReferenceCounts(limit)
    this.wild = new ReferenceCounts(limit)
    this.result = emptyResult(divideRoundingUp(header.size, this.geometry.clusterSize))
    this.fileBytes = special?.fileBytes ?? backend.length
    this.clusterCount = divideRoundingUp(this.fileBytes, this.geometry.clusterSize)
  }

  /** Between two steps: stop if asked to, and tell how far it is. */
  step(phase: CheckProgress['phase'], bytesDone: number, bytesTotal: number): void {
    this.options.signal?.throwIfAborted()
    this.options.onProgress?.({ phase, bytesDone, bytesTotal })
  }

  corruption(kind: FindingKind, text: string, details: FindingDetails = {}): void {
    if (details.repaired) this.result.corruptionsFixed++
    else this.result.corruptions++
    this.report(kind, text, details)
  }

  leak(text: string, details: FindingDetails): void {
    if (details.repaired) this.result.leaksFixed++
    else this.result.leaks++
    this.report('leak', text, details)
  }

  checkError(text: string, details: FindingDetails = {}): void {
    this.result.checkErrors++
    this.report('check-error', text, details)
  }

  report(kind: FindingKind, text: string, details: FindingDetails = {}): void {
    const finding: Finding = { kind, text, ...details, repaired: details.repaired ?? false }
    if (this.result.findings.length < findingsKept) this.result.findings.push(finding)
    this.options.onFinding?.(finding)
  }

  /**
   * Count one reference to each cluster that the bytes touch. What ends a cluster or more past the end of the file is a
   * corruption and not counted: the last cluster may be short, a missing one cannot be.
   * @param exact  the offset where a number does not hold it
   */
  count(offset: number, bytes: number, exact?: bigint): void {
    if (bytes <= 0) return
    const { clusterSize, refcountMax } = this.geometry
    if (offset + bytes - this.fileBytes >= clusterSize) {
      const where = `offset 0x${(exact ?? BigInt(offset)).toString(16)} size 0x${bytes.toString(16)}`
      const what = 'counting reference for region exceeding the end of the file by one cluster or more'
      this.corruption('beyond-end', `ERROR: ${what}: ${where}`, { offset })
      this.#keepWild(offset, bytes)
      return
    }
    const first = Math.floor(offset / clusterSize)
    const end = (offset + bytes) / clusterSize
    for (let cluster = first; cluster < end; cluster++) {
      if (cluster >= this.clusterCount) this.clusterCount = cluster + 1
      if (!this.counts.increment(cluster, refcountMax)) this.#overflow(cluster)
    }
  }

  /** As `count` for a run of whole clusters. @returns how many were counted, from the first on; why the next was not, `count` says */
  countRun(first: number, clusters: number): number {
    const { clusterSize, refcountMax } = this.geometry
    const inFile = divideRoundingUp(this.fileBytes, clusterSize) - first
    return inFile > 0 ? this.counts.incrementRun(first, Math.min(clusters, inFile), refcountMax) : 0
  }

  /** Whether it is known without another look at the tables that each COPIED flag is as it must be. When the refcounts have been compared. */
  get flagsAreRight(): boolean {
    const { corruptions, checkErrors } = this.result
    return (
      this.allCopied && !this.anyShared && !this.refcountsDiffer && corruptions === 0 && checkErrors === 0
    )
  }

  /** All references are counted: find the tables that must not be written, because they are something else as well. */
  findOverlaps(): void {
    for (const cluster of this.l2References.counted(0, Number.POSITIVE_INFINITY)) {
      if (this.counts.get(cluster) !== this.l2References.get(cluster)) this.#overlapped.add(cluster)
    }
    const { clusterSize } = this.geometry
    const { l1Offset, l1Entries } = this.header
    const end = (l1Offset + l1Entries * entryBytes) / clusterSize
    for (let cluster = Math.floor(l1Offset / clusterSize); cluster < end; cluster++) {
      if (this.counts.get(cluster) !== 1 || !this.isExact(cluster)) this.#l1Overlapped = true
    }
  }

  /** @param offset  of an L2 table, bytes */
  mayWriteL2(offset: number): boolean {
    const cluster = Math.floor(offset / this.geometry.clusterSize)
    if (offset % this.geometry.clusterSize !== 0) return false
    return this.l2References.get(cluster) > 0 && this.isExact(cluster) && !this.#overlapped.has(cluster)
  }

  /** Whether the active L1 may be written. */
  get mayWriteL1(): boolean {
    return !this.#l1Overlapped
  }

  /** Whether the number of references to a cluster is known: not if there are more than its refcount can say. */
  isExact(cluster: number): boolean {
    return this.#overflown.size < overflownKept && !this.#overflown.has(cluster)
  }

  #keepWild(offset: number, bytes: number): void {
    if (this.countsRefcountStructures) return
    const { clusterSize } = this.geometry
    if (bytes > limits.snapshotTableBytes) {
      throw notSupported(
        `Refcounts cannot be rebuilt: a structure of ${bytes} bytes is said to be at offset ${offset}, past the end of the file`,
        { path: this.backend.path, offset },
      )
    }
    const last = Math.floor((offset + bytes - 1) / clusterSize)
    // beyond that no cluster has a number that a refcount table could hold
    if (last >= 2 ** 47) return
    for (let cluster = Math.floor(offset / clusterSize); cluster <= last; cluster++) this.wild.set(cluster, 1)
  }

  #overflow(cluster: number): void {
    const offset = cluster * this.geometry.clusterSize
    if (this.#overflown.size < overflownKept) this.#overflown.add(cluster)
    this.corruption('overflow', `ERROR: overflow cluster offset=0x${offset.toString(16)}`, { offset })
    this.report(
      'note',
      'Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean copy if the image cannot be opened for writing',
    )
  }
}

/** An entry of 64 bits as its halves, for text. */
export function hex64(high: number, low: number): string {
  return ((BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)).toString(16)
}
