import { alignDown } from '../../lib/base/integers.js'
import { sectorSize } from '../../lib/base/units.js'
import { DiskImage } from '../../lib/image/disk-image.js'
import { checkQcow2 } from '../../lib/qcow2/check.js'
import type { DeferredFrees } from '../../lib/qcow2/deferred-frees.js'
import { EncryptedData } from '../../lib/qcow2/encrypted-data.js'
import { assemble, type OpenQcow2Options, Qcow2Image } from '../../lib/qcow2/image.js'
import { openMetadata } from '../../lib/qcow2/open-metadata.js'
import type { Parts } from '../../lib/qcow2/parts.js'
import type { BlockBackend } from '../../lib/queue/backend.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import type { DeviceEvent, Fault, GuestEvent } from '../../lib/queue/memory-device.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { sluggish } from './altered-backend.js'
import { type BitmapStep, isBitmapStep, performBitmapStep } from './bitmap-history.js'
import './steady-zlib.js'
import {
  freeze,
  type FrozenDisk,
  isSnapshotStep,
  performSnapshotStep,
  type SnapshotStep,
} from './frozen-disk.js'
import { compressibleBytes, readPayload, stampedBytes, valueAt } from './payload.js'
import { reservationOptions, type Setting, startBytes, tinyQueueUnits } from './setting.js'
import type { StartImage } from './start-images.js'

/** A guest's request. Places and lengths are sectors. */
export type Step =
  | {
      readonly kind: 'write' | 'compress' | 'zero' | 'unmap' | 'discard' | 'read'
      readonly lba: number
      readonly sectors: number
      /** Forced unit access: durable when it ends. */
      readonly fua?: boolean
    }
  | { readonly kind: 'flush' }
  | SnapshotStep
  | BitmapStep
  /** The header names another backing file. Not the image's affair what that holds: nothing is opened. */
  | { readonly kind: 'rename'; readonly file: string; readonly format: string }
  | { readonly kind: 'resize'; readonly sectors: number; readonly preallocation?: 'metadata' }

export type Workload = {
  /** Tells it from all others: `explore` finds it again by its name. */
  readonly name: string
  readonly start: StartImage
  readonly setting: Setting
  readonly steps: readonly Step[]
  /** Most requests under way at once. */
  readonly window: number
  /** Chooses the order in which the device ends what is under way; undefined: in turn. */
  readonly deviceSeed: number | undefined
  /** Now and then a data request is held up for long, as one of many threads is. */
  readonly isSluggish: boolean
  /** With next to no table caches, so that tables are read back from the file and the queue. */
  readonly uncached: boolean
}

/** What a mutant changes about a run. Nothing of it is in lib/. */
export type Tampering = {
  /** Stands between the image and its backend. */
  readonly wrap?: (memory: MemoryBackend, watch: SyncWatch) => BlockBackend
  /** Called with the parts of the opened image. */
  readonly opened?: (parts: Parts) => void
}

/** Tells when a sync begins. */
export type SyncWatch = { onSync: (() => void) | undefined }

/** What a workload runs on, and what writes down what reaches it. */
export type RecordedDisk = {
  readonly backend: BlockBackend
  readonly note: (event: GuestEvent) => void
  readonly events: () => readonly DeviceEvent[]
}

export type RunOptions = {
  /** To run on instead of a simulated disk; it holds what the workload begins with. Nothing can be tampered with there. */
  readonly disk?: RecordedDisk
  readonly tampering?: Tampering
  readonly fault?: Fault
  readonly mayFail?: boolean
  /** Whether all comes to rest after each request, frees too: then the order does not depend on how long things take. */
  readonly atRest?: boolean
}

export type NotedRequest = { readonly id: number; readonly step: Step; readonly generation: number }

/** A read that has seen something. */
export type NotedRead = { readonly id: number; readonly lba: number; readonly values: readonly number[] }

/** What a run has left behind. */
export type Recording = {
  readonly workload: Workload
  readonly start: Uint8Array
  readonly events: readonly DeviceEvent[]
  readonly requests: readonly NotedRequest[]
  readonly reads: readonly NotedRead[]
  /** By the request that made it: what a snapshot froze. */
  readonly frozen: ReadonlyMap<number, FrozenDisk>
  /** What rejected; empty unless failures were allowed. */
  readonly errors: readonly unknown[]
  /** What closing rejected with. */
  readonly closeError: unknown
}

/** Generations of workloads begin here; those of start images are below. */
const firstGeneration = 1000

/** A run that has not come to an end by then hangs. Turns of the event loop. */
const mostTurns = 200_000

/**
 * Run a workload on a simulated disk and close the image; all that reached the device is logged.
 * @throws Error  it hangs, or a request failed that must not
 */
export async function record(workload: Workload, options: RunOptions = {}): Promise<Recording> {
  const run = new Run(workload, options)
  // A file takes its time: turns of the event loop say nothing then, and the test's own limit has to do.
  return options.disk === undefined ? await within(mostTurns, run.all(), workload.name) : await run.all()
}

class Run {
  readonly #workload: Workload
  readonly #options: RunOptions
  readonly #start: Uint8Array
  readonly #memory: MemoryBackend
  readonly #disk: RecordedDisk
  readonly #watch: SyncWatch = { onSync: undefined }
  readonly #running = new Map<number, Promise<void>>()
  readonly #requests: NotedRequest[] = []
  readonly #reads: NotedRead[] = []
  readonly #frozen = new Map<number, FrozenDisk>()
  readonly #errors: unknown[] = []
  #frees: DeferredFrees | undefined
  #format: Qcow2Image | undefined

  constructor(workload: Workload, options: RunOptions) {
    this.#workload = workload
    this.#options = options
    const { setting } = workload
    this.#start = startBytes(workload)
    this.#memory = new MemoryBackend({
      contents: SparseBytes.from(this.#start),
      syncPolicy: setting.syncPolicy,
      record: true,
      ...(setting.tiny ? { queueBytes: tinyQueueUnits * workload.start.clusterSize } : {}),
      ...(workload.deviceSeed === undefined ? {} : { seed: workload.deviceSeed }),
      fault: (operation) => {
        if (operation.kind === 'sync') this.#watch.onSync?.()
        return options.fault?.(operation)
      },
    })
    this.#disk = options.disk ?? {
      backend: this.#memory,
      note: (event) => {
        this.#memory.note(event)
      },
      events: () => this.#memory.log,
    }
  }

  async all(): Promise<Recording> {
    const { workload, image } = { workload: this.#workload, image: await this.#open() }
    for (const [id, step] of workload.steps.entries()) {
      while (this.#mustWait(image, step)) await Promise.race(this.#running.values())
      if (step.kind === 'snapshot-create') {
        this.#frozen.set(id, await freeze(image, step.name, watchedLbas(workload)))
      }
      this.#begin(image, id, step)
      if (this.#options.atRest !== true) continue
      await Promise.all(this.#running.values())
      await this.#frees?.settled()
    }
    await Promise.all(this.#running.values())
    if (this.#options.mayFail !== true) for (const error of this.#errors) throw error
    let closeError: unknown
    try {
      await image.close()
    } catch (error) {
      if (this.#options.mayFail !== true) throw error
      closeError = error
    }
    return {
      workload,
      start: this.#start,
      events: this.#disk.events(),
      requests: this.#requests,
      reads: this.#reads,
      frozen: this.#frozen,
      errors: this.#errors,
      closeError,
    }
  }

  async #open(): Promise<DiskImage> {
    const { start, setting, uncached, isSluggish, deviceSeed } = this.#workload
    const { tampering } = this.#options
    const inner = tampering?.wrap?.(this.#memory, this.#watch) ?? this.#disk.backend
    const backend = isSluggish ? sluggish(inner, deviceSeed ?? 0) : inner
    const options: OpenQcow2Options = {
      readOnly: false,
      ...(start.backing === undefined ? {} : { backing: start.backing }),
      ...(uncached ? { l2CacheBytes: 0, refcountCacheBytes: 0 } : {}),
      ...reservationOptions(setting),
    }
    if (isDirty(this.#start)) await checkQcow2(this.#disk.backend, { repair: 'all' })
    // As openQcow2 does it, but for keeping the parts.
    const metadata = await openMetadata(backend, { readOnly: false, repairing: false })
    const data = start.cipher && new EncryptedData(backend, start.cipher, 'host')
    const parts = assemble(backend, metadata, options, data)
    this.#frees = parts.frees
    tampering?.opened?.(parts)
    this.#format = new Qcow2Image(parts, metadata, options)
    const layer = { format: this.#format, backend }
    return new DiskImage({
      path: backend.path,
      readOnly: false,
      layers: [layer],
      owned: [layer],
      rawWasGuessed: false,
      failurePolicy: undefined,
    })
  }

  /**
   * Requests for the same sectors run one after the other, but for discards, whose races are wanted; a resize with those for what it keeps. What is done to
   * snapshots runs alone.
   */
  #mustWait(image: DiskImage, step: Step): boolean {
    const { window, steps, start } = this.#workload
    if (this.#running.size >= window) return true
    for (const id of this.#running.keys()) {
      const other = steps[id]
      if (other !== undefined && conflict(step, other, keptSectors(image, start, step, other))) return true
    }
    return false
  }

  #begin(image: DiskImage, id: number, step: Step): void {
    const generation = firstGeneration + id
    const offset = 'lba' in step ? step.lba * sectorSize : 0
    const length = 'sectors' in step ? step.sectors * sectorSize : 0
    this.#requests.push({ id, step, generation })
    this.#disk.note({ type: 'GSUB', id, kind: step.kind, offset, length, generation })
    const running = this.#perform(image, id, step, generation)
      .then(
        () => this.#disk.note({ type: 'GEND', id, error: 0 }),
        (error: unknown) => {
          this.#disk.note({ type: 'GEND', id, error: 1 })
          this.#errors.push(error)
        },
      )
      .finally(() => this.#running.delete(id))
    this.#running.set(id, running)
  }

  async #perform(image: DiskImage, id: number, step: Step, generation: number): Promise<void> {
    switch (step.kind) {
      case 'write': {
        const bytes = stampedBytes(step.lba, step.sectors, generation)
        await image.write(bytes, step.lba * sectorSize, { fua: step.fua === true })
        return
      }
      case 'compress': {
        const bytes = compressibleBytes(step.lba, step.sectors, generation)
        await image.writeCompressed(bytes, step.lba * sectorSize)
        return
      }
      case 'zero':
      case 'unmap': {
        await image.writeZeroes({ ...rangeOf(step), unmap: step.kind === 'unmap' })
        return
      }
      case 'discard': {
        await image.discard(rangeOf(step))
        return
      }
      case 'flush': {
        await image.flush()
        return
      }
      case 'rename': {
        await this.#format?.rewriteBacking({ file: step.file, format: step.format })
        return
      }
      case 'resize': {
        await image.resize(step.sectors * sectorSize, {
          shrink: true,
          preallocation: step.preallocation ?? 'off',
        })
        return
      }
      case 'bitmap-add':
      case 'bitmap-remove':
      case 'bitmap-clear':
      case 'bitmap-enable':
      case 'bitmap-disable': {
        await performBitmapStep(image, step)
        return
      }
      case 'snapshot-create':
      case 'snapshot-apply':
      case 'snapshot-delete': {
        await performSnapshotStep(image, step)
        return
      }
      case 'read': {
        const bytes = new Uint8Array(step.sectors * sectorSize)
        await image.readInto(bytes, step.lba * sectorSize)
        const values: number[] = []
        for (let at = 0; at < step.sectors; at++) {
          const payload = readPayload(bytes, at * sectorSize)
          values.push(valueAt(step.lba + at, payload.lba, payload.generation))
        }
        this.#reads.push({ id, lba: step.lba, values })
      }
    }
  }
}

/** Whether a file says that its counts may be wrong: the incompatible feature bit 0, big-endian. */
export function isDirty(bytes: Uint8Array): boolean {
  return bytes[7] === 3 && ((bytes[79] ?? 0) & 1) !== 0
}

export function rangeOf({ lba, sectors }: { lba: number; sectors: number }): {
  offset: number
  length: number
} {
  return { offset: lba * sectorSize, length: sectors * sectorSize }
}

/** Every place that the disk has at first, or that requests write to. */
export function watchedLbas({ start, steps }: Workload): number[] {
  const lbas = new Set(start.initial.keys())
  for (const step of steps) {
    if (!('lba' in step)) continue
    for (let lba = step.lba; lba < step.lba + step.sectors; lba++) lbas.add(lba)
  }
  return [...lbas].sort((a, b) => a - b)
}

/** How many sectors two steps leave to the disk, if one of them is a resize: whole clusters. */
function keptSectors(image: DiskImage, start: StartImage, ...steps: readonly Step[]): number {
  const sizes = steps.map((step) => (step.kind === 'resize' ? step.sectors : Number.POSITIVE_INFINITY))
  return alignDown(Math.min(image.size / sectorSize, ...sizes), start.clusterSize / sectorSize)
}

/**
 * Whether two requests must not run at the same time.
 * @param kept  sectors from the start of the disk that a resize leaves alone; 0: it has the disk for itself
 */
export function conflict(one: Step, other: Step, kept = 0): boolean {
  if (isSnapshotStep(one) || isSnapshotStep(other)) return true
  if (isBitmapStep(one) && isBitmapStep(other)) return true
  if (one.kind === 'resize' || other.kind === 'resize') {
    const beside = one.kind === 'resize' ? other : one
    if (kept === 0 || beside.kind === 'resize') return true
    return 'lba' in beside && beside.lba + beside.sectors > kept
  }
  if (one.kind === 'rename' && other.kind === 'rename') return true
  if (!('lba' in one) || !('lba' in other)) return false
  if (one.kind === 'read' || other.kind === 'read') return false
  // Where one compressed cluster ends within a sector, the next one begins: which of them a crash keeps is not told apart here.
  if (one.kind === 'compress' && other.kind === 'compress') return true
  if (one.kind === 'discard' || other.kind === 'discard') return false
  return one.lba < other.lba + other.sectors && other.lba < one.lba + one.sectors
}

/** @throws Error  the work has not ended after so many turns of the event loop */
export async function within<T>(turns: number, work: Promise<T>, name: string): Promise<T> {
  let over = false
  const watched = work.finally(() => {
    over = true
  })
  const hang = (async (): Promise<never> => {
    for (let turn = 0; turn < turns && !over; turn++) await new Promise((resolve) => setImmediate(resolve))
    if (over) return await new Promise<never>(() => undefined)
    throw new Error(`${name} hangs: nothing more happens`)
  })()
  return await Promise.race([watched, hang])
}
