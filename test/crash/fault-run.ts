import { sectorSize } from '../../lib/base/units.js'
import { DiskImage } from '../../lib/image/disk-image.js'
import { openImage } from '../../lib/image/open.js'
import { FailurePolicy, type ImageEvent, type OnError } from '../../lib/image/failure-policy.js'
import { type OpenQcow2Options, openQcow2 } from '../../lib/qcow2/image.js'
import type { BlockBackend } from '../../lib/queue/backend.js'
import type { BackingSource } from '../../lib/queue/format-image.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import type { Fault } from '../../lib/queue/memory-device.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { sluggish } from './altered-backend.js'
import { freeze, type FrozenDisk, performSnapshotStep } from './frozen-disk.js'
import { compressibleBytes, readPayload, stampedBytes, valueAt } from './payload.js'
import { reservationOptions, startBytes, tinyQueueUnits } from './setting.js'
import {
  conflict,
  type NotedRead,
  type NotedRequest,
  rangeOf,
  type Recording,
  type Step,
  watchedLbas,
  within,
  type Workload,
} from './workload.js'

export type FaultRunOptions = {
  readonly fault: Fault
  readonly onError?: OnError
  /** Told of each event, with the image. */
  readonly onEvent?: (event: ImageEvent, image: DiskImage) => void
  /** Called when all requests have come to an end, before the image is read back and closed. */
  readonly settled?: () => void
}

/** What a run has left behind. Closing counts as one more flush. */
export type FaultRecording = Recording & {
  /** What rejected, by request; also reads. */
  readonly failures: ReadonlyMap<number, unknown>
  /** Of all requests; `requests` lacks the reads of the end. */
  readonly ids: readonly number[]
  /** Reads at the end, of all that the workload has touched. */
  readonly lastReads: readonly NotedRead[]
  readonly openError: unknown
  readonly told: readonly ImageEvent[]
  /** The file, once it was closed. */
  readonly contents: Uint8Array
}

/** Generations of workloads begin here; those of start images are below. */
const firstGeneration = 1000

/** Ids of the reads of the end begin here; before them is the closing. */
const firstLastRead = 1_000_000
export const closingId = firstLastRead - 1

/** A run that has not come to an end by then hangs. Turns of the event loop, not time. */
const mostTurns = 100_000

/**
 * Run a workload through the public face of an image on a device that fails; what rejects is noted, and everything goes on.
 * @throws Error  it hangs
 */
export async function runFaulty(workload: Workload, options: FaultRunOptions): Promise<FaultRecording> {
  return await within(mostTurns, new FaultyRun(workload, options).all(), workload.name)
}

class FaultyRun {
  readonly #workload: Workload
  readonly #options: FaultRunOptions
  readonly #start: Uint8Array
  readonly #memory: MemoryBackend
  readonly #running = new Map<number, Promise<void>>()
  readonly #requests: NotedRequest[] = []
  readonly #reads: NotedRead[] = []
  readonly #frozen = new Map<number, FrozenDisk>()
  readonly #lastReads: NotedRead[] = []
  readonly #failures = new Map<number, unknown>()
  readonly #ids: number[] = []
  readonly #told: ImageEvent[] = []

  constructor(workload: Workload, options: FaultRunOptions) {
    this.#workload = workload
    this.#options = options
    const { setting } = workload
    this.#start = startBytes(workload)
    this.#memory = new MemoryBackend({
      contents: SparseBytes.from(this.#start),
      syncPolicy: setting.syncPolicy,
      record: true,
      mayLose: true,
      fault: options.fault,
      ...(setting.tiny ? { queueBytes: tinyQueueUnits * workload.start.clusterSize } : {}),
      ...(workload.deviceSeed === undefined ? {} : { seed: workload.deviceSeed }),
    })
  }

  async all(): Promise<FaultRecording> {
    let image: DiskImage
    try {
      image = await this.#open()
    } catch (error) {
      await this.#memory.close().catch(() => undefined)
      return this.#recording({ openError: error })
    }
    for (const [id, step] of this.#workload.steps.entries()) {
      while (this.#mustWait(step)) await Promise.race(this.#running.values())
      if (step.kind === 'snapshot-create') {
        const frozen = await freeze(image, step.name, watchedLbas(this.#workload)).catch(() => undefined)
        // What cannot be read cannot be compared.
        if (frozen === undefined) continue
        this.#frozen.set(id, frozen)
      }
      this.#begin(id, step, () => this.#perform(image, id, step))
    }
    await Promise.all(this.#running.values())
    this.#options.settled?.()
    await this.#readBack(image)
    this.#begin(closingId, { kind: 'flush' }, () => image.close())
    await Promise.all(this.#running.values())
    // Closed or not: nothing more happens, and asking again is no error.
    await image.close()
    return this.#recording({})
  }

  #recording(ended: { openError?: unknown }): FaultRecording {
    return {
      workload: { ...this.#workload, start: { ...this.#workload.start, bytes: this.#start } },
      start: this.#start,
      events: this.#memory.log,
      requests: this.#requests,
      reads: this.#reads,
      frozen: this.#frozen,
      errors: [...this.#failures.values()],
      closeError: this.#failures.get(closingId),
      failures: this.#failures,
      ids: this.#ids,
      lastReads: this.#lastReads,
      openError: ended.openError,
      told: this.#told,
      contents: this.#memory.snapshot(),
    }
  }

  async #open(): Promise<DiskImage> {
    const { start, setting, uncached, isSluggish, deviceSeed } = this.#workload
    const { onError, onEvent } = this.#options
    const backend = isSluggish ? sluggish(this.#memory, deviceSeed ?? 0) : this.#memory
    const image: { opened?: DiskImage } = {}
    const tell = (event: ImageEvent): void => {
      this.#told.push(event)
      // Nothing is told before the image is open.
      if (image.opened !== undefined) onEvent?.(event, image.opened)
    }
    const tuning = {
      ...(uncached ? { l2CacheBytes: 0, refcountCacheBytes: 0 } : {}),
      ...reservationOptions(setting),
    }
    const opened =
      start.backing === undefined
        ? await openImage(backend, {
            format: 'qcow2',
            cache: tuning,
            onError: onError ?? 'report',
            onEvent: tell,
          })
        : await openOver(start.backing, backend, tuning, new FailurePolicy(onError ?? 'report', tell))
    image.opened = opened
    return opened
  }

  #begin(id: number, step: Step, perform: () => Promise<void>): void {
    const generation = firstGeneration + id
    const offset = 'lba' in step ? step.lba * sectorSize : 0
    const length = 'sectors' in step ? step.sectors * sectorSize : 0
    this.#ids.push(id)
    if (step.kind !== 'read') this.#requests.push({ id, step, generation })
    this.#memory.note({ type: 'GSUB', id, kind: step.kind, offset, length, generation })
    const running = perform()
      .then(
        () => this.#memory.note({ type: 'GEND', id, error: 0 }),
        (error: unknown) => {
          this.#memory.note({ type: 'GEND', id, error: 1 })
          this.#failures.set(id, error)
        },
      )
      .finally(() => this.#running.delete(id))
    this.#running.set(id, running)
  }

  async #perform(image: DiskImage, id: number, step: Step): Promise<void> {
    switch (step.kind) {
      case 'write': {
        const bytes = stampedBytes(step.lba, step.sectors, firstGeneration + id)
        return image.write(bytes, step.lba * sectorSize, { fua: step.fua === true })
      }
      case 'compress': {
        const bytes = compressibleBytes(step.lba, step.sectors, firstGeneration + id)
        return image.writeCompressed(bytes, step.lba * sectorSize)
      }
      case 'zero':
      case 'unmap':
        return image.writeZeroes({ ...rangeOf(step), unmap: step.kind === 'unmap' })
      case 'discard':
        return image.discard(rangeOf(step))
      case 'flush':
        return image.flush()
      case 'rename':
        throw new Error('the public face has no such request')
      case 'resize':
        return image.resize(step.sectors * sectorSize, {
          shrink: true,
          preallocation: step.preallocation ?? 'off',
        })
      case 'snapshot-create':
      case 'snapshot-apply':
      case 'snapshot-delete':
        return performSnapshotStep(image, step)
      case 'read':
        this.#reads.push(await readValues(image, id, step))
    }
  }

  /** All that was touched, whether or not it went well: what still stands is to be seen. */
  async #readBack(image: DiskImage): Promise<void> {
    const places = this.#workload.steps.flatMap((step) =>
      'lba' in step ? [{ lba: step.lba, sectors: step.sectors }] : [],
    )
    for (const [at, { lba, sectors }] of places.entries()) {
      const within = Math.min(sectors, Math.floor(image.size / sectorSize) - lba)
      if (within <= 0) continue
      const id = firstLastRead + at
      const step: Step = { kind: 'read', lba, sectors: within }
      this.#begin(id, step, async () => {
        this.#lastReads.push(await readValues(image, id, { lba, sectors: within }))
      })
      await Promise.all(this.#running.values())
    }
  }

  /** Resizes, and what is done to snapshots, run alone; requests for the same sectors one after the other, but for discards, whose races are wanted. */
  #mustWait(step: Step): boolean {
    if (this.#running.size >= this.#workload.window) return true
    for (const id of this.#running.keys()) {
      const other = this.#workload.steps[id]
      if (other !== undefined && conflict(step, other)) return true
    }
    return false
  }
}

/** As openImage does it, over bytes that are no image. */
async function openOver(
  backing: BackingSource,
  backend: BlockBackend,
  tuning: Partial<OpenQcow2Options>,
  failurePolicy: FailurePolicy,
): Promise<DiskImage> {
  const format = await openQcow2(backend, { ...tuning, readOnly: false, backing })
  const layer = { format, backend }
  return new DiskImage({
    path: backend.path,
    readOnly: false,
    layers: [layer],
    owned: [layer],
    rawWasGuessed: false,
    failurePolicy,
  })
}

async function readValues(
  image: DiskImage,
  id: number,
  { lba, sectors }: { lba: number; sectors: number },
): Promise<NotedRead> {
  const bytes = new Uint8Array(sectors * sectorSize)
  await image.readInto(bytes, lba * sectorSize)
  const values: number[] = []
  for (let at = 0; at < sectors; at++) {
    const payload = readPayload(bytes, at * sectorSize)
    values.push(valueAt(lba + at, payload.lba, payload.generation))
  }
  return { id, lba, values }
}
