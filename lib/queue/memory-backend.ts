import { assert } from '../base/assert.js'
import { notSupported, Qcow2Error } from '../base/errors.js'
import { isAligned } from '../base/integers.js'
import { section, type Section } from '../base/units.js'
import { Admission } from './admission.js'
import type { BlockBackend, FileExtent, QueueStats, SyncPolicy } from './backend.js'
import {
  type DeviceEvent,
  type DeviceOperationKind,
  type Fault,
  type GuestEvent,
  MemoryDevice,
} from './memory-device.js'
import type { LockHolder } from './memory-locks.js'
import { SimulatedWorker } from './simulated-worker.js'
import { SparseBytes } from './sparse-bytes.js'
import { poisonedError, systemError } from './system-error.js'

export type MemoryBackendOptions = {
  /** For messages. */
  readonly path?: string
  /** What the file holds at first; shared, not copied. */
  readonly contents?: SparseBytes
  /** Whose locks this one's are. Default: there is nobody else. */
  readonly locks?: LockHolder
  readonly readOnly?: boolean
  readonly syncPolicy?: SyncPolicy
  /** Demand of nodes what O_DIRECT demands of them: to be made of whole units of `alignment`. */
  readonly direct?: boolean
  /** Bytes, a power of two; counts only with `direct`. */
  readonly alignment?: number
  /** Most bytes of metadata that may wait. */
  readonly queueBytes?: number
  /** Most metadata writes that may wait. */
  readonly queueNodes?: number
  /** Nodes older than this are written unasked. Milliseconds; 0, the default, is never: memory loses nothing by waiting. */
  readonly idleMs?: number
  /** Chooses the order in which what is under way ends, the same for the same calls. Default: first come, first served. */
  readonly seed?: number
  /** Keep a log of all that reaches the device, with copies of the bytes. */
  readonly record?: boolean
  /** Lets operations of the device fail. */
  readonly fault?: Fault
  /** Let failing syncs lose what they should have made durable: see `Failure.loses`. */
  readonly mayLose?: boolean
}

const defaultQueueBytes = 4 * 1024 ** 2
const defaultQueueNodes = 4096

/** Cells of the histogram of sync times. */
const histogramCells = 32

/** A file in memory behind the port: the rules of the queue are the addon's, the disk is simulated. */
export class MemoryBackend implements BlockBackend {
  readonly path: string
  readonly readOnly: boolean
  readonly direct: boolean
  readonly syncPolicy: SyncPolicy
  readonly alignment: number
  readonly #device: MemoryDevice
  readonly #worker: SimulatedWorker
  readonly #admission: Admission
  readonly #locks: LockHolder | undefined
  readonly #listeners: (() => void)[] = []
  #length: number
  #requestsOut = 0
  #allSettled: (() => void) | undefined
  #closing: Promise<void> | undefined
  /** The file whose syncs are this one's too. */
  #syncedBy: MemoryBackend | undefined
  #barriersAsked = 0
  #dataReads = 0
  #dataReadBytes = 0
  #dataWrites = 0
  #dataWriteBytes = 0

  constructor(options: MemoryBackendOptions = {}) {
    this.path = options.path ?? 'memory'
    this.#locks = options.locks
    this.readOnly = options.readOnly ?? false
    this.direct = options.direct ?? false
    this.syncPolicy = options.syncPolicy ?? 'flush'
    this.alignment = this.direct ? (options.alignment ?? 512) : 1
    this.#device = new MemoryDevice({
      contents: options.contents ?? new SparseBytes(),
      seed: options.seed,
      record: options.record ?? false,
      fault: options.fault,
      mayLose: options.mayLose ?? false,
    })
    this.#length = this.#device.contents.length
    this.#worker = new SimulatedWorker({
      path: this.path,
      syncPolicy: this.syncPolicy,
      alignment: this.alignment,
      idleMs: options.idleMs ?? 0,
      device: this.#device,
      progressed: () => {
        this.#admission.progressed()
        for (const listener of this.#listeners) listener()
      },
    })
    this.#admission = new Admission(
      { bytes: options.queueBytes ?? defaultQueueBytes, nodes: options.queueNodes ?? defaultQueueNodes },
      {
        queued: () => ({ bytes: this.#worker.state.queuedBytes, nodes: this.#worker.state.queuedNodes }),
        failure: () => this.#worker.failure,
        drain: () => this.#worker.drain(),
      },
    )
  }

  /** What the file holds, without what is queued: also after it was closed. */
  get contents(): SparseBytes {
    return this.#device.contents
  }

  /** All that has reached the device so far, and what `note` added; empty without the option `record`. */
  get log(): readonly DeviceEvent[] {
    return this.#device.log
  }

  /** Put a request of the guest, or its end, in the log. */
  note(event: GuestEvent): void {
    this.#device.note(event)
  }

  /** A copy of what the file holds now, without what is queued. */
  snapshot(): Uint8Array {
    return this.contents.toBytes()
  }

  get length(): number {
    return this.#length
  }

  get durableSection(): Section {
    return section(this.#worker.state.durableSection)
  }

  get poisoned(): Qcow2Error | undefined {
    return this.#syncedBy?.poisoned ?? this.#worker.poisoned
  }

  read(bytes: Uint8Array, offset: number): Promise<void> {
    if (bytes.length === 0) return Promise.resolve()
    this.#dataReads++
    this.#dataReadBytes += bytes.length
    return this.#perform('read', 'read', offset, bytes.length, bytes)
  }

  readQueued(bytes: Uint8Array, offset: number): Promise<void> {
    if (bytes.length === 0) return Promise.resolve()
    return this.#perform('read', 'read', offset, bytes.length, bytes, () =>
      this.#worker.overlay(bytes, offset),
    )
  }

  write(bytes: Uint8Array, offset: number): Promise<void> {
    this.#dataWrites++
    this.#dataWriteBytes += bytes.length
    return this.#change('write', 'write', offset, bytes.length, bytes)
  }

  writeDurably(bytes: Uint8Array, offset: number): Promise<void> {
    return this.write(bytes, offset).then(() => this.flush())
  }

  writeZeroes(offset: number, length: number, options: { unmap: boolean }): Promise<void> {
    // Memory has no holes that are kept: what is zero takes no room, with and without `unmap`.
    return this.#change('zero', options.unmap ? 'unmap zeroes' : 'write zeroes', offset, length)
  }

  punch(offset: number, length: number): Promise<void> {
    return this.#change('punch', 'punch hole', offset, length)
  }

  allocate(offset: number, length: number): Promise<void> {
    return this.#change('allocate', 'allocate', offset, length)
  }

  truncate(length: number): Promise<void> {
    return this.#change('truncate', 'truncate', length, 0)
  }

  async extent(offset: number): Promise<FileExtent> {
    // As a read of nothing: it waits its turn among the requests.
    await this.#perform('read', 'seek', offset, 0)
    return this.contents.extent(offset)
  }

  enqueue(bytes: Uint8Array, offset: number, earliest: Section): Section {
    const refused = this.#refusal('write')
    if (refused !== undefined) throw refused
    assert(
      isAligned(offset, this.alignment) && isAligned(bytes.length, this.alignment),
      'a node consists of whole units of the alignment',
    )
    const placed = this.#worker.enqueue(bytes, offset, earliest)
    this.#reach(offset + bytes.length)
    return placed
  }

  sectionAfterData(): Section {
    return this.#worker.sectionAfterData()
  }

  pendingSection(offset: number, length: number): Section {
    return this.#worker.pendingSection(offset, length)
  }

  onProgress(listener: () => void): void {
    this.#listeners.push(listener)
  }

  countBarrier(): void {
    this.#barriersAsked++
  }

  admit(bytes: number): Promise<void> | undefined {
    return this.#admission.admit(bytes)
  }

  release(bytes: number): void {
    this.#admission.release(bytes)
  }

  flush(): Promise<void> {
    if (this.#closing !== undefined) return Promise.reject(this.#closedError())
    return this.#tracked(this.#worker.flush())
  }

  durable(through: Section): Promise<void> {
    if (through <= this.durableSection && this.poisoned === undefined) return Promise.resolve()
    if (this.#closing !== undefined) return Promise.reject(this.#closedError())
    return this.#tracked(this.#worker.durable(through))
  }

  lock(held: readonly number[], tested: readonly number[]): number | undefined {
    if (this.#closing !== undefined) throw this.#closedError()
    return this.#locks?.lock(held, tested)
  }

  unlock(held: readonly number[]): void {
    this.#locks?.unlock(held)
  }

  syncWith(data: BlockBackend): void {
    if (!(data instanceof MemoryBackend)) throw notSupported('Both files must be in memory')
    this.#worker.syncWith(data.#device)
    data.#syncedBy = this
  }

  stats(): QueueStats {
    const state = this.#worker.state
    const syncMicrosecondsHistogram = new Array<number>(histogramCells).fill(0)
    syncMicrosecondsHistogram[0] = this.#device.syncs
    return {
      nodesQueued: state.nodesQueued,
      nodesCoalesced: state.nodesCoalesced,
      nodesMerged: this.#worker.nodesMerged,
      nodeBytesWritten: state.nodeBytesWritten,
      barriersAsked: this.#barriersAsked,
      barriersIssued: state.barriersIssued,
      flushesAsked: state.flushesAsked,
      syncsIssued: this.#device.syncs,
      syncMicrosecondsHistogram,
      queuedBytesNow: state.queuedBytes,
      queuedBytesPeak: state.queuedBytesPeak,
      queuedNodesNow: state.queuedNodes,
      queuedNodesPeak: state.queuedNodesPeak,
      admissionWaits: this.#admission.waits,
      dataReads: this.#dataReads,
      dataReadBytes: this.#dataReadBytes,
      dataWrites: this.#dataWrites,
      dataWriteBytes: this.#dataWriteBytes,
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    if (this.#requestsOut > 0) {
      await new Promise<void>((resolve) => {
        this.#allSettled = resolve
      })
    }
    this.#worker.stop()
    try {
      if (!this.readOnly && this.#syncedBy === undefined) await this.#worker.flush()
    } finally {
      this.#locks?.leave()
    }
  }

  #change(
    kind: DeviceOperationKind,
    operation: string,
    offset: number,
    length: number,
    bytes?: Uint8Array,
  ): Promise<void> {
    const refused = this.#refusal(operation)
    if (refused !== undefined) return Promise.reject(refused)
    if (length === 0 && kind !== 'truncate') return Promise.resolve()
    if (kind !== 'punch') this.#reach(offset + length)
    return this.#perform(kind, operation, offset, length, bytes, () => {
      this.#worker.dataWritten()
      if (this.#syncedBy !== undefined) this.#syncedBy.#worker.dataWritten()
    })
  }

  /** @param done  what follows at once when it has succeeded */
  #perform(
    kind: DeviceOperationKind,
    operation: string,
    offset: number,
    length: number,
    bytes?: Uint8Array,
    done?: () => void,
  ): Promise<void> {
    if (this.#closing !== undefined) return Promise.reject(this.#closedError())
    this.#requestsOut++
    return new Promise((resolve, reject) => {
      this.#device.perform({ kind, offset, length, section: undefined }, bytes, (errno) => {
        this.#settled()
        if (errno !== 0) {
          reject(systemError(errno, operation, { path: this.path, offset }))
          return
        }
        done?.()
        resolve()
      })
    })
  }

  /** A request that the closing waits for. */
  async #tracked(request: Promise<void>): Promise<void> {
    this.#requestsOut++
    try {
      await request
    } finally {
      this.#settled()
    }
  }

  #settled(): void {
    if (--this.#requestsOut === 0) this.#allSettled?.()
  }

  #refusal(operation: string): Qcow2Error | undefined {
    if (this.#closing !== undefined) return this.#closedError()
    if (this.readOnly) {
      return new Qcow2Error('ERR_READ_ONLY', `'${this.path}' was opened read-only: cannot ${operation}`, {
        path: this.path,
      })
    }
    const poisoned = this.poisoned
    return poisoned === undefined ? undefined : poisonedError(poisoned, this.path)
  }

  #closedError(): Qcow2Error {
    return new Qcow2Error('ERR_CLOSED', `'${this.path}' is closed`, { path: this.path })
  }

  #reach(end: number): void {
    if (end > this.#length) this.#length = end
  }
}
