import { constants } from 'node:os'
import { assert } from '../base/assert.js'
import type { Qcow2Error } from '../base/errors.js'
import { section, type Section } from '../base/units.js'
import { addon } from '../native/addon.js'
import type {
  FinishedWaiter,
  NativeRequestQueue,
  NativeRequestQueueState,
  QueuedNode,
} from '../native/types.js'
import type { SyncPolicy } from './backend.js'
import type { MemoryDevice } from './memory-device.js'
import { errorOfAddon, poisonedError, systemError } from './system-error.js'

export type SimulatedWorkerOptions = {
  /** For messages. */
  readonly path: string
  readonly syncPolicy: SyncPolicy
  /** Of nodes in memory. Bytes, a power of two. */
  readonly alignment: number
  /** Nodes older than this are written unasked. Milliseconds; 0: never. */
  readonly idleMs: number
  readonly device: MemoryDevice
  /** Called after the queue has moved on: what was asked of it may be so. */
  readonly progressed: () => void
}

type Waiter = { readonly resolve: () => void; readonly reject: (error: Error) => void }

/** What the ordering thread of the addon does, on a disk in memory: asks the queue what comes next, does it, tells the outcome. */
export class SimulatedWorker {
  readonly #path: string
  readonly #syncPolicy: SyncPolicy
  readonly #idleMs: number
  readonly #device: MemoryDevice
  readonly #progressed: () => void
  readonly #queue: NativeRequestQueue
  /** As of the last change; undefined: ask again. */
  #state: NativeRequestQueueState | undefined
  readonly #waiters = new Map<number, Waiter>()
  #lastWaiter = 0
  #called = false
  #stopped = false
  #idleTimer: NodeJS.Timeout | undefined
  /** What is synced before this device. */
  #dataDevice: MemoryDevice | undefined
  #nodesMerged = 0

  constructor(options: SimulatedWorkerOptions) {
    const { RequestQueue, constants } = addon()
    this.#path = options.path
    this.#syncPolicy = options.syncPolicy
    this.#idleMs = options.idleMs
    this.#device = options.device
    this.#progressed = options.progressed
    this.#queue = new RequestQueue(constants.policies[options.syncPolicy], options.idleMs, options.alignment)
  }

  get state(): NativeRequestQueueState {
    this.#state ??= this.#queue.state()
    return this.#state
  }

  /** Node writes that a thread would have made together with a neighbour's. */
  get nodesMerged(): number {
    return this.#nodesMerged
  }

  /** The first failure that nobody understands. */
  get poisoned(): Qcow2Error | undefined {
    const errno = this.state.poisoned
    return errno === 0 ? undefined : systemError(errno, 'metadata write or sync', { path: this.#path })
  }

  /** Why nothing is written now. */
  get failure(): { readonly error: Qcow2Error; readonly forGood: boolean } | undefined {
    const first = this.poisoned
    if (first !== undefined) return { error: poisonedError(first, this.#path), forGood: true }
    const errno = this.state.stalled
    if (errno === 0) return undefined
    return { error: systemError(errno, 'metadata write', { path: this.#path }), forGood: false }
  }

  enqueue(bytes: Uint8Array, offset: number, earliest: Section): Section {
    let placed: number
    try {
      placed = this.#queue.enqueue(bytes, offset, earliest, this.#now())
    } catch (error) {
      // As Worker::enqueue: what was queued with this node in mind must not be written without it.
      const finished = this.#queue.giveUp(constants.errno.ENOMEM)
      this.#state = undefined
      this.#settle(finished)
      throw errorOfAddon(error, 'metadata write', this.#path)
    }
    this.#state = undefined
    if (this.#syncPolicy === 'write') this.#call()
    else this.#watchAge()
    return section(placed)
  }

  sectionAfterData(): Section {
    return section(this.#queue.sectionAfterData())
  }

  pendingSection(offset: number, length: number): Section {
    return section(this.#queue.pendingSection(offset, length))
  }

  dataWritten(): void {
    this.#queue.dataWritten()
  }

  /** As QueuedFile::sync_with. */
  syncWith(device: MemoryDevice): void {
    this.#dataDevice = device
  }

  /** Lay the nodes that overlap over what the file held. */
  overlay(bytes: Uint8Array, offset: number): void {
    this.#queue.overlay(bytes, offset)
  }

  drain(): void {
    this.#queue.drain()
    this.#state = undefined
    this.#call()
  }

  flush(): Promise<void> {
    return this.#wait((id) => this.#queue.flush(id))
  }

  durable(through: Section): Promise<void> {
    return this.#wait((id) => this.#queue.awaitDurable(id, through))
  }

  /** Nothing is written for its age any more. */
  stop(): void {
    this.#stopped = true
    clearTimeout(this.#idleTimer)
  }

  #wait(ask: (id: number) => FinishedWaiter[]): Promise<void> {
    const id = ++this.#lastWaiter
    return new Promise((resolve, reject) => {
      this.#waiters.set(id, { resolve, reject })
      this.#settle(ask(id))
      this.#state = undefined
      this.#call()
    })
  }

  #settle(finished: readonly FinishedWaiter[]): void {
    for (const { id, error } of finished) {
      const waiter = this.#waiters.get(id)
      assert(waiter !== undefined, 'a waiter finishes once')
      this.#waiters.delete(id)
      if (error === 0) waiter.resolve()
      else waiter.reject(this.#errorOf(error))
    }
  }

  #errorOf(errno: number): Qcow2Error {
    const first = this.poisoned
    return first === undefined
      ? systemError(errno, 'flush', { path: this.#path })
      : poisonedError(first, this.#path)
  }

  /** The worker looks what there is to do, some time: as its thread would. */
  #call(): void {
    if (this.#called) return
    this.#called = true
    this.#device.later(() => {
      this.#called = false
      this.#work()
    })
  }

  #work(): void {
    const action = this.#queue.next(this.#now())
    this.#state = undefined
    if (action.kind === 'write') this.#write(action.nodes)
    else if (action.kind === 'sync') this.#sync()
    else this.#watchAge()
  }

  #sync(): void {
    const over = (errno: number): void => this.#over(this.#queue.synced(errno))
    const data = this.#dataDevice
    if (data === undefined) this.#device.sync(over)
    else data.syncChanges((errno) => (errno === 0 ? this.#device.syncChanges(over) : over(errno)))
  }

  /** All at once: their order within a section is free. */
  #write(nodes: readonly QueuedNode[]): void {
    this.#nodesMerged += countMerged(nodes)
    let left = nodes.length
    let firstErrno = 0
    for (const { bytes, offset, section: placed } of nodes) {
      const operation = { kind: 'write', offset, length: bytes.length, section: section(placed) } as const
      this.#device.perform(operation, bytes, (errno) => {
        if (firstErrno === 0) firstErrno = errno
        if (--left === 0) this.#over(this.#queue.written(firstErrno))
      })
    }
  }

  #over(finished: readonly FinishedWaiter[]): void {
    this.#state = undefined
    this.#settle(finished)
    this.#progressed()
    this.#call()
  }

  /** Call the worker when the oldest node has waited long enough. Keeps no process alive: all that is lost then is memory. */
  #watchAge(): void {
    if (this.#idleMs === 0 || this.#stopped || this.#idleTimer !== undefined) return
    const deadline = this.#queue.deadlineMs()
    if (deadline === undefined) return
    const wait = Math.max(deadline - this.#now(), 1)
    this.#idleTimer = setTimeout(() => {
      this.#idleTimer = undefined
      this.#call()
    }, wait)
    this.#idleTimer.unref()
  }

  /** Milliseconds; the clock is looked at only where the age of nodes matters. */
  #now(): number {
    return this.#idleMs === 0 ? 0 : Math.floor(performance.now())
  }
}

/** How many nodes a thread would write together with a neighbour. @param nodes  by ascending offsets */
function countMerged(nodes: readonly QueuedNode[]): number {
  let merged = 0
  for (let first = 0, end = 1; first < nodes.length; first = end++) {
    while (end < nodes.length && follows(nodes[end - 1], nodes[end])) end++
    if (end - first > 1) merged += end - first
  }
  return merged
}

function follows(one: QueuedNode | undefined, next: QueuedNode | undefined): boolean {
  return one !== undefined && next !== undefined && one.offset + one.bytes.length === next.offset
}
