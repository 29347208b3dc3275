import { assert } from '../../lib/base/assert.js'
import { alignUp } from '../../lib/base/integers.js'
import { sectorSize } from '../../lib/base/units.js'
import type { Layers } from '../../lib/image/chain.js'
import { amendLayer, type Wanted } from '../../lib/operations/amend.js'
import { chainWorkOf } from '../../lib/operations/chain-work.js'
import { createQcow2 } from '../../lib/qcow2/create.js'
import { planBacking } from '../../lib/qcow2/header-strings.js'
import { openQcow2 } from '../../lib/qcow2/image.js'
import type { BlockBackend } from '../../lib/queue/backend.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { RawImage } from '../../lib/raw/raw-image.js'
import { SeededRandom } from '../support/seeded-random.js'
import { ChangedSectors } from './changed-sectors.js'
import { type ChoiceLimits, eachChoice } from './choices.js'
import { readLog } from './device-log.js'
import type { CrashedDisk } from './disk-states.js'
import { DiskWalk } from './disk-walk.js'
import { DurableDisk, payloadsOf } from './durable-disk.js'
import { firstChanged, frozenFrom } from './frozen-disk.js'
import { type Strings, stringsOf } from './header-walk.js'
import { backingValue, describeValue, stampedBytes, zeroValue } from './payload.js'
import { plainReader } from './payload-reader.js'
import type { StartImage } from './start-images.js'

/** What an image is to become; what is not said stays. */
export type Amendment = Partial<Kind>

/** What kind of image a header says that there is. */
export type Kind = {
  readonly version: 2 | 3
  readonly refcountBits: number
  readonly lazyRefcounts: boolean
}

/** qcow2 spec, "Header": read without code of lib/. */
export function kindOf(bytes: Uint8Array): Kind {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.getUint32(4) === 2) return { version: 2, refcountBits: 16, lazyRefcounts: false }
  return {
    version: 3,
    refcountBits: 2 ** view.getUint32(96),
    lazyRefcounts: (view.getUint32(84) & 1) !== 0,
  }
}

/** What an image of version 2 cannot be goes without asking. */
export function amended(kind: Kind, wanted: Amendment): Kind {
  const after = { ...kind, ...wanted }
  return after.version === 2 ? { ...after, lazyRefcounts: false } : after
}

/** Amend the image in `memory`, as `amendImage` does. @param wrap  what a mutant changes */
export async function amendMemory(
  memory: MemoryBackend,
  start: StartImage,
  wanted: Amendment,
  wrap: (memory: MemoryBackend) => BlockBackend = (same) => same,
): Promise<void> {
  const backend = wrap(memory)
  const { backing } = start
  const image = await openQcow2(backend, { readOnly: false, reservation: 0, backing })
  const all: Wanted = {
    version: wanted.version,
    refcountBits: wanted.refcountBits,
    lazyRefcounts: wanted.lazyRefcounts,
    size: undefined,
  }
  await amendLayer(image, { backend }, await layersBelow(start), all, chainWorkOf({}))
}

async function layersBelow({ backing, backingSectors }: StartImage): Promise<Layers | undefined> {
  if (backing === undefined) return undefined
  const contents = SparseBytes.from(stampedBytes(0, backingSectors, backingValue))
  const backend = new MemoryBackend({ contents, readOnly: true })
  return [{ format: new RawImage(backend), backend }]
}

/** The image as one that has a backing file's name in its header, which the stock tool and the explorer leave alone. */
export function named(start: StartImage, length: number): StartImage {
  const bytes = start.bytes.slice()
  const first = bytes.subarray(0, start.clusterSize)
  // A part of it is found at one place only.
  const file = Array.from({ length }, (_, index) => `${index}.`).join('')
  const steps = planBacking(first, { file: file.slice(0, length), format: 'raw' }, 'a start image')
  for (const step of steps) bytes.set(step)
  return { ...start, bytes }
}

/** One generation for all that it holds. */
const nearBlockGeneration = 1

/**
 * An image whose refcount block, of 16 bits, is full but for one cluster, with zeros that keep clusters which a snapshot shares: to do without the zero flag
 * takes a new block.
 */
export async function nearBlockWithZeros(): Promise<StartImage> {
  const clusterSize = 512
  const [clusters, zeros] = [256, 3]
  const full = (clusterSize * 8) / 16
  const memory = new MemoryBackend()
  const shape = { version: 3, clusterSize, refcountBits: 16, extendedL2: false } as const
  await createQcow2(memory, { ...shape, lazyRefcounts: false, size: clusters * clusterSize })
  const image = await openQcow2(memory, { readOnly: false, reservation: 0 })
  const initial = new Int32Array(clusters)
  let next = 0
  const writeUpTo = async (used: number): Promise<void> => {
    for (; memory.length < used * clusterSize; next++) {
      await image.write(stampedBytes(next, 1, nearBlockGeneration), next * clusterSize)
      initial[next] = nearBlockGeneration
    }
  }
  await writeUpTo(full - 20)
  await image.writeZeroes(0, zeros * clusterSize, { unmap: false })
  initial.fill(zeroValue, 0, zeros)
  await image.snapshots.creating('frozen', {})()
  const snapshots = [frozenFrom('frozen', initial)]
  await writeUpTo(full - 1)
  await image.close()
  return {
    ...shape,
    name: 'near-block with zeros',
    bytes: memory.snapshot(),
    initial,
    backing: undefined,
    backingSectors: 0,
    snapshots,
    leaks: 0,
    mapped: [],
    free: [],
    cipher: undefined,
    reader: plainReader,
  }
}

/** What an amendment has left, as an image to begin with. */
export async function amendedStart(start: StartImage, wanted: Amendment): Promise<StartImage> {
  const memory = new MemoryBackend({ contents: SparseBytes.from(start.bytes) })
  await amendMemory(memory, start, wanted)
  await memory.close()
  const left = memory.snapshot()
  const bytes = new Uint8Array(alignUp(left.length, sectorSize))
  bytes.set(left)
  const { version, refcountBits } = kindOf(bytes)
  return { ...start, bytes, version, refcountBits }
}

/** A disk that a crash has left, and what is wrong with it. */
export type Left = { readonly bytes: Uint8Array; readonly leaks: number }

export type Seen = {
  points: number
  exhaustivePoints: number
  states: number
  /** Kinds of image that were left, as text. */
  readonly kinds: Set<string>
  problem: string | undefined
}

/**
 * Look at the disks that a crash can leave while an image is amended: just before each sync is over, when the amendment has been told, and at the end. Ends with
 * the first that is wrong.
 * @param onState  called with each, sound or not
 */
export async function everyAmendmentCrash(
  start: StartImage,
  wanted: Amendment,
  options: {
    readonly limits: ChoiceLimits
    readonly seed: number
    readonly wrap?: ((memory: MemoryBackend) => BlockBackend) | undefined
    readonly onState?: (left: Left) => void
    /** Problems that do not match it are passed over. */
    readonly wanted?: RegExp
  },
): Promise<Seen> {
  const memory = new MemoryBackend({ contents: SparseBytes.from(start.bytes), record: true })
  await amendMemory(memory, start, wanted, options.wrap)
  const told = memory.log.length
  await memory.close()
  const log = readLog(memory.log, start.bytes)
  const longest = Math.max(start.bytes.length, ...log.writes.map(({ offset, length }) => offset + length))
  const judge = new AmendmentJudge(start, wanted, longest)
  const durable = new DurableDisk(start.bytes, log, start.reader)
  const random = new SeededRandom(options.seed)
  const seen: Seen = { points: 0, exhaustivePoints: 0, states: 0, kinds: new Set(), problem: undefined }
  const times = new Set([...log.syncs.map(({ ended }) => ended - 1), told, log.end])
  for (const time of [...times].sort((one, other) => one - other)) {
    if (seen.problem !== undefined) break
    const states = durable.statesAt(time)
    const shown = new Set<number>()
    const visit = (): boolean => {
      states.settleLength()
      const signature = states.signature()
      if (shown.has(signature)) return false
      shown.add(signature)
      seen.states++
      const { disk } = states
      const problem = judge.judge(disk, time >= told)
      seen.kinds.add(JSON.stringify(kindOf(disk.bytes)))
      options.onState?.({ bytes: disk.bytes.subarray(0, disk.length), leaks: judge.leaks })
      if (problem === undefined || options.wanted?.test(problem) === false) return false
      seen.problem = `${problem} (at ${time} of ${log.end}: ${states.describe()})`
      return true
    }
    seen.points++
    const classOf = (atom: number): string => String(states.atoms[atom]?.offset)
    if (eachChoice(states, options.limits, random, classOf, visit)) seen.exhaustivePoints++
  }
  durable.end()
  return seen
}

/** @returns what is wrong with an image that has been amended, for good  @param mostLeaks  what a crash had leaked before */
export function wrongWith(
  start: StartImage,
  wanted: Amendment,
  left: Uint8Array,
  mostLeaks: number,
): string | undefined {
  const bytes = new Uint8Array(alignUp(left.length, start.clusterSize))
  bytes.set(left)
  const { lba, generation } = payloadsOf(bytes, start.reader)
  const disk: CrashedDisk = {
    bytes,
    payloadLba: lba,
    payloadGeneration: generation,
    length: left.length,
    changes: new ChangedSectors(0),
  }
  return new AmendmentJudge(start, wanted, bytes.length).judge(disk, true, mostLeaks)
}

/** The feature names only serve messages: they come and go. */
const featureNames = /^1745090647:/

/**
 * Judges a disk: of the kind that it was, or that it is to be, or in part; sound for that kind; every sector of the disk and of its snapshots shows what it showed.
 */
export class AmendmentJudge {
  /** Of the disk judged last. */
  leaks = 0
  readonly #start: StartImage
  readonly #before: Kind
  readonly #after: Kind
  readonly #strings: Strings
  readonly #walks = new Map<string, DiskWalk>()
  readonly #capacity: number

  /** @param capacity  bytes: the longest that the file can be */
  constructor(start: StartImage, wanted: Amendment, capacity: number) {
    this.#start = start
    this.#before = kindOf(start.bytes)
    this.#after = amended(this.#before, wanted)
    const strings = stringsOf(start.bytes, start.clusterSize)
    assert(strings !== undefined, 'the start image has a header')
    this.#strings = strings
    this.#capacity = capacity
  }

  /** @param isOver  whether it must be what it is to be, with no more leaked than `mostLeaks` */
  judge(disk: CrashedDisk, isOver: boolean, mostLeaks = this.#start.leaks): string | undefined {
    const kind = kindOf(disk.bytes)
    return (
      this.#judgeImage(disk, kind) ??
      this.#judgeStrings(disk) ??
      this.#judgeKind(kind, isOver) ??
      (isOver && this.leaks > mostLeaks ? `leaks: ${this.leaks} clusters` : undefined)
    )
  }

  #judgeKind(kind: Kind, isOver: boolean): string | undefined {
    for (const field of ['version', 'refcountBits', 'lazyRefcounts'] as const) {
      const value = kind[field]
      if (value === this.#after[field] || (value === this.#before[field] && !isOver)) continue
      // What version 2 does not say is so.
      if (kind.version === 2 && !isOver) continue
      return `kind: ${field} is ${String(value)}${isOver ? ', and the amendment has been told' : ''}`
    }
    return undefined
  }

  #judgeStrings(disk: CrashedDisk): string | undefined {
    const found = stringsOf(disk.bytes, this.#start.clusterSize)
    if (found === undefined) return 'header: it points to what is not there'
    const { file, format, others } = this.#strings
    const lasting = (all: string): string =>
      all
        .split(' ')
        .filter((one) => !featureNames.test(one))
        .join(' ')
    if (found.file !== file) return `header: it names ${found.file.slice(0, 40)} (${found.file.length} bytes)`
    if (found.format !== format) return `header: it names the format ${found.format}`
    return lasting(found.others) === lasting(others)
      ? undefined
      : `header: its extensions are ${found.others}`
  }

  #judgeImage(disk: CrashedDisk, { version, refcountBits }: Kind): string | undefined {
    const { initial, snapshots } = this.#start
    const walk = this.#walkOf(version, refcountBits)
    const broken = walk.walk(disk)
    if (broken !== undefined) return `corrupt: ${broken}`
    this.leaks = walk.leaks
    if (walk.isDirty) return 'the dirty bit is set'
    if (walk.sizeSectors !== initial.length) return `size: ${walk.sizeSectors} sectors`
    for (let lba = 0; lba < initial.length; lba++) {
      const value = walk.valueAt(lba)
      if (value === initial[lba]) continue
      return `content: lba ${lba} shows ${describeValue(value)}, not ${describeValue(initial[lba] ?? 0)}`
    }
    const names = walk.snapshotNames(disk)
    if (names.length !== snapshots.length) return `snapshots: ${names.join(', ')}`
    for (const [index, frozen] of snapshots.entries()) {
      if (names[index] !== frozen.name) return `snapshots: ${names.join(', ')}`
      const at = firstChanged(frozen, walk.snapshotValues(disk, index, frozen.lbas))
      if (at >= 0) return `snapshot: lba ${frozen.lbas[at]} of ${frozen.name} has changed`
    }
    return undefined
  }

  #walkOf(version: 2 | 3, refcountBits: number): DiskWalk {
    const key = `${version}/${refcountBits}`
    let walk = this.#walks.get(key)
    if (walk === undefined) {
      const perCluster = this.#start.clusterSize / sectorSize
      const clusters = Math.ceil(this.#start.initial.length / perCluster)
      const watched = Array.from({ length: clusters }, (_, cluster) => cluster)
      walk = new DiskWalk({ ...this.#start, version, refcountBits, copied: 'exact' }, this.#capacity, watched)
      this.#walks.set(key, walk)
    }
    return walk
  }
}
