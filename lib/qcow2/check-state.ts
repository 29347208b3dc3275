import { divideRoundingUp } from '../base/integers.js'
import type { BlockBackend } from '../queue/backend.js'
import { ReferenceCounts } from './check-counts.js'
import { type CheckResult, emptyResult, type Finding, type FindingKind, findingsKept } from './check-result.js'
import { type Geometry, makeGeometry } from './geometry.js'
import type { Header } from './header.js'

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
  /** Called with each finding as it is made; the result keeps the first ones only. */
  readonly onFinding?: ((finding: Finding) => void) | undefined
  /** Memory for the counts, bytes. */
  readonly maxCountBytes?: number | undefined
}

/** 256 clusters cost about 300 bytes: enough for 400 million clusters in use. */
const defaultCountBytes = 512 * 1024 * 1024

type FindingDetails = Partial<Pick<Finding, 'cluster' | 'refcount' | 'reference' | 'offset' | 'repaired'>>

/** What the parts of one check share. */
export class CheckState {
  readonly backend: BlockBackend
  readonly header: Header
  readonly geometry: Geometry
  readonly counts: ReferenceCounts
  readonly result: CheckResult
  readonly options: CheckOptions
  /** Of the file, as the check began. */
  readonly fileBytes: number
  /** Host clusters to compare: of the file, and of what references stick out of it by less than a cluster. */
  clusterCount: number
  /** The refcounts cannot be put right in place: they have to be built anew. */
  needsRebuild = false

  constructor(backend: BlockBackend, header: Header, options: CheckOptions) {
    this.backend = backend
    this.header = header
    this.options = options
    this.geometry = makeGeometry(header.clusterBits, header.refcountOrder)
    this.counts = new ReferenceCounts(options.maxCountBytes ?? defaultCountBytes)
    this.result = emptyResult(divideRoundingUp(header.size, this.geometry.clusterSize))
    this.fileBytes = backend.length
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
   */
  count(offset: number, bytes: number): void {
    if (bytes <= 0) return
    const { clusterSize, refcountMax } = this.geometry
    if (offset + bytes - this.fileBytes >= clusterSize) {
      const where = `offset 0x${offset.toString(16)} size 0x${bytes.toString(16)}`
      const what = 'counting reference for region exceeding the end of the file by one cluster or more'
      this.corruption('beyond-end', `ERROR: ${what}: ${where}`, { offset })
      return
    }
    const last = Math.floor((offset + bytes - 1) / clusterSize)
    for (let cluster = Math.floor(offset / clusterSize); cluster <= last; cluster++) {
      const before = this.counts.get(cluster)
      if (cluster >= this.clusterCount) this.clusterCount = cluster + 1
      if (before >= refcountMax) this.#overflow(cluster * clusterSize)
      else this.counts.set(cluster, before + 1)
    }
  }

  #overflow(offset: number): void {
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
