import type { Section } from '../../lib/base/units.js'
import type { BlockBackend, FileExtent, QueueStats, SyncPolicy } from '../../lib/queue/backend.js'

export type OperationKind =
  | 'read'
  | 'readQueued'
  | 'write'
  | 'writeZeroes'
  | 'punch'
  | 'allocate'
  | 'truncate'
  | 'enqueue'
  | 'flush'
  | 'durable'
  | 'admit'

/** One call of the port, in the order in which they are made. */
export type Operation = {
  readonly kind: OperationKind
  readonly offset: number
  readonly length: number
  /** Of an enqueued node: the lowest section asked for, and the one it went to. */
  readonly earliest?: Section
  readonly section?: Section
}

/** A call that was stopped before it reached the file. */
export type Held = {
  /** Resolves when a call that fits has come. */
  readonly reached: Promise<Operation>
  /** Let it go on, and fit no other. */
  release(): void
  /** Let it fail without having reached the file, and fit no other. */
  reject(error: Error): void
}

type Rule = {
  readonly fits: (operation: Operation) => boolean
  readonly act: (operation: Operation) => Promise<void>
  /** Of those that fit, how many are still to be acted on. */
  times: number
}

/**
 * Stands between an image and its backend, and lets a test decide what happens when: it holds single operations, fails them,
 * and writes down all calls. Without a rule everything passes unchanged.
 */
export class StagedBackend implements BlockBackend {
  readonly inner: BlockBackend
  readonly log: Operation[] = []
  readonly #rules: Rule[] = []
  /** Bytes of room taken and not given back. */
  admitted = 0

  constructor(inner: BlockBackend) {
    this.inner = inner
  }

  syncWith(data: BlockBackend): void {
    this.inner.syncWith?.(data instanceof StagedBackend ? data.inner : data)
  }

  /** Stop the next operation that fits until `release`. */
  hold(fits: (operation: Operation) => boolean): Held {
    let reach = (_: Operation): void => undefined
    let release = (): void => undefined
    let fail = (_: Error): void => undefined
    const reached = new Promise<Operation>((resolve) => {
      reach = resolve
    })
    const released = new Promise<void>((resolve, reject) => {
      release = resolve
      fail = reject
    })
    const rule: Rule = {
      fits,
      times: 1,
      act: (operation) => {
        reach(operation)
        return released
      },
    }
    this.#rules.push(rule)
    return {
      reached,
      release: () => {
        rule.times = 0
        release()
      },
      reject: (error) => {
        rule.times = 0
        fail(error)
      },
    }
  }

  /** Fail operations that fit, before they reach the file. `times`: how many; all unless said. */
  fail(fits: (operation: Operation) => boolean, error: Error, times = Number.POSITIVE_INFINITY): () => void {
    const rule: Rule = { fits, times, act: () => Promise.reject(error) }
    this.#rules.push(rule)
    return () => {
      rule.times = 0
    }
  }

  async #pass<T>(operation: Operation, go: () => Promise<T>): Promise<T> {
    this.log.push(operation)
    const rule = this.#rules.find((candidate) => candidate.times > 0 && candidate.fits(operation))
    if (rule !== undefined) {
      rule.times--
      await rule.act(operation)
    }
    return await go()
  }

  get path(): string {
    return this.inner.path
  }
  get readOnly(): boolean {
    return this.inner.readOnly
  }
  get direct(): boolean {
    return this.inner.direct
  }
  get syncPolicy(): SyncPolicy {
    return this.inner.syncPolicy
  }
  get alignment(): number {
    return this.inner.alignment
  }
  get length(): number {
    return this.inner.length
  }
  get durableSection(): Section {
    return this.inner.durableSection
  }
  get poisoned(): BlockBackend['poisoned'] {
    return this.inner.poisoned
  }

  read(bytes: Uint8Array, offset: number): Promise<void> {
    return this.#pass({ kind: 'read', offset, length: bytes.length }, () => this.inner.read(bytes, offset))
  }
  readQueued(bytes: Uint8Array, offset: number): Promise<void> {
    const operation = { kind: 'readQueued', offset, length: bytes.length } as const
    return this.#pass(operation, () => this.inner.readQueued(bytes, offset))
  }
  write(bytes: Uint8Array, offset: number): Promise<void> {
    return this.#pass({ kind: 'write', offset, length: bytes.length }, () => this.inner.write(bytes, offset))
  }
  writeDurably(bytes: Uint8Array, offset: number): Promise<void> {
    return this.write(bytes, offset).then(() => this.flush())
  }
  writeZeroes(offset: number, length: number, options: { unmap: boolean }): Promise<void> {
    return this.#pass({ kind: 'writeZeroes', offset, length }, () =>
      this.inner.writeZeroes(offset, length, options),
    )
  }
  punch(offset: number, length: number): Promise<void> {
    return this.#pass({ kind: 'punch', offset, length }, () => this.inner.punch(offset, length))
  }
  allocate(offset: number, length: number): Promise<void> {
    return this.#pass({ kind: 'allocate', offset, length }, () => this.inner.allocate(offset, length))
  }
  truncate(length: number): Promise<void> {
    return this.#pass({ kind: 'truncate', offset: 0, length }, () => this.inner.truncate(length))
  }
  extent(offset: number): Promise<FileExtent> {
    return this.inner.extent(offset)
  }

  enqueue(bytes: Uint8Array, offset: number, earliest: Section): Section {
    const section = this.inner.enqueue(bytes, offset, earliest)
    this.log.push({ kind: 'enqueue', offset, length: bytes.length, earliest, section })
    return section
  }
  sectionAfterData(): Section {
    return this.inner.sectionAfterData()
  }
  pendingSection(offset: number, length: number): Section {
    return this.inner.pendingSection(offset, length)
  }
  onProgress(listener: () => void): void {
    this.inner.onProgress(listener)
  }
  countBarrier(): void {
    this.inner.countBarrier()
  }

  admit(bytes: number): Promise<void> | undefined {
    this.log.push({ kind: 'admit', offset: 0, length: bytes })
    const room = this.inner.admit(bytes)
    if (room === undefined) {
      this.admitted += bytes
      return undefined
    }
    return room.then(() => {
      this.admitted += bytes
    })
  }
  release(bytes: number): void {
    this.admitted -= bytes
    this.inner.release(bytes)
  }

  flush(): Promise<void> {
    return this.#pass({ kind: 'flush', offset: 0, length: 0 }, () => this.inner.flush())
  }
  durable(section: Section): Promise<void> {
    return this.#pass({ kind: 'durable', offset: 0, length: 0, section }, () => this.inner.durable(section))
  }
  lock(held: readonly number[], tested: readonly number[]): number | undefined {
    return this.inner.lock(held, tested)
  }
  unlock(held: readonly number[]): void {
    this.inner.unlock(held)
  }
  stats(): QueueStats {
    return this.inner.stats()
  }
  close(): Promise<void> {
    return this.inner.close()
  }
}
