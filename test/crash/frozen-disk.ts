import { sectorSize } from '../../lib/base/units.js'
import type { DiskImage } from '../../lib/image/disk-image.js'
import { readPayload, valueAt } from './payload.js'

/** What a snapshot shows: at which places which values of payload.ts. */
export type FrozenDisk = {
  readonly name: string
  /** Of the disk. */
  readonly sectors: number
  /** Ascending. */
  readonly lbas: Int32Array
  /** By place in `lbas`. */
  readonly values: Int32Array
  /** By LBA: what may show as well, where a write had failed that may still take effect. */
  readonly others?: ReadonlyMap<number, readonly number[]>
}

/** An operation on snapshots; a snapshot is meant by its name. */
export type SnapshotStep = {
  readonly kind: 'snapshot-create' | 'snapshot-apply' | 'snapshot-delete'
  readonly name: string
}

export function isSnapshotStep(step: { readonly kind: string }): step is SnapshotStep {
  return step.kind.startsWith('snapshot-')
}

/** The first snapshot of a disk that shows `values`, from its beginning on. */
export function frozenFrom(name: string, values: Int32Array): FrozenDisk {
  return { name, sectors: values.length, lbas: Int32Array.from(values.keys()), values: values.slice() }
}

/** Read what the disk shows, at these places as far as it has them. */
export async function freeze(image: DiskImage, name: string, lbas: readonly number[]): Promise<FrozenDisk> {
  const sectors = image.size / sectorSize
  const within = lbas.filter((lba) => lba < sectors)
  const values = new Int32Array(within.length)
  for (let first = 0; first < within.length;) {
    const lba = within[first] as number
    let end = first + 1
    while (end < within.length && within[end] === lba + end - first) end++
    const bytes = new Uint8Array((end - first) * sectorSize)
    await image.readInto(bytes, lba * sectorSize)
    for (let at = first; at < end; at++) {
      const payload = readPayload(bytes, (at - first) * sectorSize)
      values[at] = valueAt(within[at] as number, payload.lba, payload.generation)
    }
    first = end
  }
  return { name, sectors, lbas: Int32Array.from(within), values }
}

/** The first place of `lbas` where a snapshot shows something else than it may; -1: none. */
export function firstChanged({ lbas, values, others }: FrozenDisk, seen: readonly number[]): number {
  return seen.findIndex((value, place) => {
    return value !== values[place] && others?.get(lbas[place] as number)?.includes(value) !== true
  })
}

export async function performSnapshotStep(image: DiskImage, step: SnapshotStep): Promise<void> {
  switch (step.kind) {
    case 'snapshot-create': {
      await image.snapshots.create(step.name)
      return
    }
    case 'snapshot-apply':
      return image.snapshots.apply({ name: step.name })
    case 'snapshot-delete':
      return image.snapshots.delete({ name: step.name })
  }
}

/** A snapshot that may, or must, be there after a crash. */
export type AllowedSnapshot = {
  readonly frozen: FrozenDisk
  /** When it was asked for: a disk that shows nothing newer than before that does not have it. */
  readonly submitted: number
  /** Whether it must be there where the disk shows nothing newer than this; otherwise it may be missing. */
  readonly requiredUpTo: number
}

type Times = { readonly submitted: number; readonly ended: number; readonly failed: boolean }

type Life = { readonly frozen: FrozenDisk; readonly created: Times; deleted: Times | undefined }

const always: Times = { submitted: -1, ended: -1, failed: false }

/** Which snapshots there are, and what they show: operations on them are durable when they end. */
export class SnapshotHistory {
  readonly #lives: Life[] = []

  constructor(initial: readonly FrozenDisk[]) {
    for (const frozen of initial) this.#lives.push({ frozen, created: always, deleted: undefined })
  }

  create(frozen: FrozenDisk, times: Times): void {
    this.#lives.push({ frozen, created: times, deleted: undefined })
  }

  /** What failed may have happened: then a second attempt means the same snapshot. */
  delete(name: string, times: Times): void {
    const life = this.#named(name)
    if (life !== undefined && (life.deleted === undefined || life.deleted.failed)) {
      const submitted = life.deleted?.submitted ?? times.submitted
      life.deleted = { ...times, submitted }
    }
  }

  /** The one that is there under a name. */
  frozenAs(name: string): FrozenDisk | undefined {
    return this.#named(name)?.frozen
  }

  #named(name: string): Life | undefined {
    return this.#lives.find(
      ({ frozen, deleted }) => frozen.name === name && (deleted === undefined || deleted.failed),
    )
  }

  /** What may be there after a crash at `time`. */
  at(time: number): AllowedSnapshot[] {
    return this.#lives
      .filter(({ created, deleted }) => {
        const isGone = deleted !== undefined && !deleted.failed && deleted.ended <= time
        return created.submitted <= time && !isGone
      })
      .map(({ frozen, created, deleted }) => ({
        frozen,
        submitted: created.submitted,
        requiredUpTo:
          created.failed || created.ended > time
            ? Number.NEGATIVE_INFINITY
            : (deleted?.submitted ?? Number.POSITIVE_INFINITY),
      }))
  }
}
