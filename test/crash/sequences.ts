import { assert } from '../../lib/base/assert.js'
import {
  extendedClusterSize,
  isEncrypted,
  isExtended,
  type StartName,
  startImage,
  type StartImage,
} from './start-images.js'
import { usual } from './setting.js'
import type { Step, Workload } from './workload.js'

/**
 * What short workloads are made of. 'again' goes to the guest cluster that 'overwrite', 'partial', 'zero', 'unmap' and 'discard' use,
 * so that they meet; 'far' to a place without an L2 table; 'grow-l1' beyond what the L1 table maps.
 */
export const operations = [
  'write',
  'write-two',
  'overwrite',
  'partial',
  'partial-new',
  'far',
  'zero',
  'unmap',
  'discard',
  'discard-more',
  'flush',
  'grow',
  'grow-l1',
  'grow-filled',
  'shrink',
  'write-fua',
  'compress',
  'compress-over',
  'snapshot-create',
  'snapshot-apply',
  'snapshot-delete',
] as const

/** On images with extended L2 entries: in the cluster of 'overwrite', most of whose subclusters are not there. */
export const extendedOperations = ['sub', 'sub-again', 'sub-over', 'sub-zero', 'sub-on-zero'] as const

/** The header names another backing file: a whole header's affair, which has sequences of its own. */
export const headerOperation = 'rename'

/** What is done to bitmaps, where there are any: 'bitmap-clear' to the one that follows the disk, the others to one that is added. */
export const bitmapOperations = ['bitmap-add', 'bitmap-clear', 'bitmap-toggle', 'bitmap-remove'] as const

export type OperationName =
  | (typeof operations)[number]
  | (typeof extendedOperations)[number]
  | typeof headerOperation
  | (typeof bitmapOperations)[number]

/** The short lists: of these all sequences of three are looked at in a full run. */
export const shortStarts: readonly StartName[] = [
  'empty',
  'half-full',
  'backing',
  'near-block',
  'extended-backing',
]
export const shortOperations: readonly OperationName[] = [
  'write',
  'overwrite',
  'compress',
  'zero',
  'discard',
  'flush',
  'grow',
  'shrink',
  'snapshot-create',
  'snapshot-apply',
  'snapshot-delete',
  'sub',
  'sub-over',
  'sub-zero',
]

/** What there is to do on an image. Counts of one bit have no room for a snapshot's references. */
export function operationsOn(start: StartName): readonly OperationName[] {
  if (start.startsWith('bitmaps')) {
    // A disk with bitmaps does not go back to a snapshot.
    const others = operations.filter((name) => name !== 'snapshot-apply')
    return [...others, ...bitmapOperations]
  }
  // What is encrypted is not compressed.
  if (isEncrypted(start)) return operations.filter((name) => !name.startsWith('compress'))
  if (isExtended(start)) return [...operations, ...extendedOperations]
  if (!start.startsWith('one-bit')) return operations
  return operations.filter((name) => !name.startsWith('snapshot'))
}

/** All sequences of `length` operations, in a fixed order. */
export function* sequencesOf(
  length: number,
  from: readonly OperationName[] = operations,
): Generator<OperationName[]> {
  if (length === 0) {
    yield []
    return
  }
  for (const first of sequencesOf(length - 1, from)) for (const last of from) yield [...first, last]
}

/**
 * Named like `sequence/half-full/512/write,discard,flush/3/7`.
 * @param window      most operations at the same time
 * @param deviceSeed  of the order in which the device ends what is under way; 0: in turn; odd: data requests are held up now and then
 */
export async function sequenceWorkload(
  start: StartName,
  clusterSize: number,
  names: readonly OperationName[],
  window: number,
  deviceSeed = 0,
): Promise<Workload> {
  const image = await startImage(start, clusterSize)
  const planner = new Planner(image)
  return {
    name: `sequence/${start}/${clusterSize}/${names.join(',')}/${window}/${deviceSeed}`,
    start: image,
    setting: usual,
    steps: names.map((name) => planner.plan(name)),
    window,
    deviceSeed: deviceSeed === 0 ? undefined : deviceSeed,
    isSluggish: deviceSeed % 2 === 1,
    uncached: false,
  }
}

/** The workload of a name, that of `sequenceWorkload`. */
export function sequenceFromName(name: string): Promise<Workload> {
  const [, start, clusterSize, names = '', window, deviceSeed] = name.split('/')
  const operations = names.split(',') as OperationName[]
  return sequenceWorkload(
    start as StartName,
    Number(clusterSize),
    operations,
    Number(window),
    Number(deviceSeed),
  )
}

/** Sectors. */
function subclusters(count: number): number {
  return (count * extendedClusterSize) / 32 / 512
}

/** Clusters that a table of one cluster's L1 entries, or the first of those of large clusters, maps. */
function beyondL1({ clusterSize, extendedL2 }: StartImage): number {
  return extendedL2 ? clusterSize / 16 : (clusterSize / 8) ** 2
}

function preallocated(step: Step): Step {
  return step.kind === 'resize' ? { ...step, preallocation: 'metadata' } : step
}

/** Places for operations: the same for the same sequence. */
class Planner {
  readonly #start: StartImage
  readonly #perCluster: number
  readonly #first: number
  #free: number[]
  #more: number[]
  #sectors: number
  #made = 0
  #parts = 0
  readonly #snapshots: { name: string; sectors: number }[]
  #renames = 0
  /** Of bitmaps that were added: whether they follow the disk. */
  readonly #bitmaps: { name: string; enabled: boolean }[] = []

  constructor(start: StartImage) {
    this.#start = start
    this.#perCluster = start.clusterSize / 512
    this.#sectors = start.initial.length
    this.#snapshots = start.snapshots.map(({ name, sectors }) => ({ name, sectors }))
    const target = start.mapped[0] ?? start.free[0]
    assert(target !== undefined, 'the disk has clusters')
    this.#first = target
    // Not the last one: the disk may end within it, and shrinking takes it away.
    this.#free = start.free.filter((cluster) => cluster !== target).slice(0, -1)
    this.#more = start.mapped.slice(1)
  }

  /** The step for an operation, within the disk as it is then. */
  plan(name: OperationName): Step {
    const step = this.#step(name)
    if (!('lba' in step)) return step
    return { ...step, sectors: Math.min(step.sectors, this.#sectors - step.lba) }
  }

  #step(name: OperationName): Step {
    const one = this.#perCluster
    const lba = this.#first * one
    switch (name) {
      case 'write':
        return { kind: 'write', lba: this.#next() * one, sectors: one }
      case 'write-two':
        // From the middle of one cluster to the middle of the one behind it, if clusters have a middle.
        return { kind: 'write', lba: lba + Math.floor(one / 2), sectors: Math.max(one, 2) }
      case 'overwrite':
        return { kind: 'write', lba, sectors: one }
      case 'write-fua':
        return { kind: 'write', lba, sectors: one, fua: true }
      case 'compress':
        return { kind: 'compress', lba: this.#next() * one, sectors: one }
      case 'compress-over':
        return { kind: 'compress', lba, sectors: one }
      case 'partial':
        return { kind: 'write', lba: lba + Math.floor(one / 4), sectors: Math.ceil(one / 4) }
      case 'partial-new':
        return { kind: 'write', lba: this.#next() * one + Math.floor(one / 4), sectors: Math.ceil(one / 4) }
      case 'far':
        return { kind: 'write', lba: Math.max(0, this.#sectors - 2 * one), sectors: one }
      case 'zero':
      case 'unmap':
      case 'discard':
        return { kind: name, lba, sectors: one }
      case 'discard-more':
        return { kind: 'discard', lba: (this.#more.shift() ?? this.#first) * one, sectors: 3 * one }
      case 'sub':
        // One sector of a subcluster that is not there, another each time; the other sector is what is copied.
        return { kind: 'write', lba: lba + subclusters(8 + (this.#parts++ % 20)) + 1, sectors: 1 }
      case 'sub-again':
        return { kind: 'write', lba: lba + subclusters(8), sectors: 1 }
      case 'sub-over':
        // From one that is there into one that is not.
        return { kind: 'write', lba: lba + subclusters(3) + 1, sectors: 8 }
      case 'sub-zero':
        return { kind: 'zero', lba: lba + subclusters(8), sectors: subclusters(2) }
      case 'sub-on-zero':
        return { kind: 'write', lba: lba + subclusters(4) + 1, sectors: 1 }
      case 'flush':
        return { kind: 'flush' }
      case 'rename':
        return this.#rename()
      case 'grow':
        return this.#resize(this.#sectors + 3 * one + 1)
      case 'grow-l1':
        return this.#resize(this.#sectors + beyondL1(this.#start) * one)
      case 'grow-filled':
        return preallocated(this.#resize(this.#sectors + 3 * one + 1))
      case 'bitmap-add':
      case 'bitmap-clear':
      case 'bitmap-toggle':
      case 'bitmap-remove':
        return this.#bitmapStep(name)
      case 'snapshot-create': {
        const name = `snapshot-${this.#made++}`
        this.#snapshots.push({ name, sectors: this.#sectors })
        return { kind: 'snapshot-create', name }
      }
      case 'snapshot-apply':
      case 'snapshot-delete':
        return this.#oldSnapshot(name)
      case 'shrink':
        return this.#resize(Math.max(lba + one + 1, Math.floor(this.#sectors / 3)))
    }
  }

  /** Names that reach behind the first sector, if there is more than that. */
  #rename(): Step {
    const letter = 'abcdefgh'.charAt(this.#renames % 8)
    const length = this.#start.clusterSize === 512 ? 100 : 700 + 10 * this.#renames
    const format = this.#renames++ % 2 === 0 ? 'raw' : 'qcow2'
    return { kind: 'rename', file: letter.repeat(length), format }
  }

  #bitmapStep(kind: (typeof bitmapOperations)[number]): Step {
    const last = this.#bitmaps.at(-1)
    switch (kind) {
      case 'bitmap-add': {
        const name = `added-${this.#made++}`
        this.#bitmaps.push({ name, enabled: true })
        return { kind, name }
      }
      case 'bitmap-clear':
        return { kind, name: 'live' }
      case 'bitmap-toggle': {
        if (last === undefined) return { kind: 'flush' }
        last.enabled = !last.enabled
        return { kind: last.enabled ? 'bitmap-enable' : 'bitmap-disable', name: last.name }
      }
      case 'bitmap-remove': {
        if (last === undefined) return { kind: 'flush' }
        this.#bitmaps.pop()
        return { kind, name: last.name }
      }
    }
  }

  #next(): number {
    return this.#free.shift() ?? this.#first
  }

  /** The newest is applied, the oldest deleted. */
  #oldSnapshot(kind: 'snapshot-apply' | 'snapshot-delete'): Step {
    const known = this.#snapshots
    const snapshot = kind === 'snapshot-apply' ? known.at(-1) : known.shift()
    if (snapshot === undefined) return { kind: 'flush' }
    if (kind === 'snapshot-apply') this.#sectors = snapshot.sectors
    return { kind, name: snapshot.name }
  }

  #resize(sectors: number): Step {
    // Version 2 does not say how large the disk was in a snapshot.
    if (this.#start.version === 2 && this.#snapshots.length > 0) return { kind: 'flush' }
    this.#sectors = sectors
    // What lies behind the end is not written to.
    const clusters = Math.floor(sectors / this.#perCluster) - 4
    this.#free = this.#free.filter((cluster) => cluster < clusters)
    this.#more = this.#more.filter((cluster) => cluster < clusters)
    return { kind: 'resize', sectors }
  }
}
