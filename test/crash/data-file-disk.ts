import { sectorSize } from '../../lib/base/units.js'
import { createQcow2 } from '../../lib/qcow2/create.js'
import { openQcow2, type Qcow2Image } from '../../lib/qcow2/image.js'
import type { BlockBackend, SyncPolicy } from '../../lib/queue/backend.js'
import type { BackingSource } from '../../lib/queue/format-image.js'
import { MemoryBackend, type MemoryBackendOptions } from '../../lib/queue/memory-backend.js'
import type { DeviceEvent, Fault } from '../../lib/queue/memory-device.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { SeededRandom } from '../support/seeded-random.js'
import { GuestHistory } from './guest-history.js'
import { stampedBytes } from './payload.js'

/** What one run of a disk in two files is like; all of it follows from the seed. */
export type TwoFileSetting = {
  readonly seed: number
  readonly clusterSize: number
  readonly isRaw: boolean
  /** Extended L2 entries. */
  readonly isExtended: boolean
  /** Every sector of the backing file is of this generation. */
  readonly backing: number | undefined
  readonly syncPolicy: SyncPolicy
  readonly requests: number
}

/** Of the backing file: no request has it. */
export const backingGeneration = 1_000_000

/** Subclusters of one sector, and of two, of which one is copied. */
const extendedClusterSizes = [16384, 32768, 32768]

export function settingOf(seed: number, more: Partial<TwoFileSetting> = {}): TwoFileSetting {
  const random = new SeededRandom(seed)
  const isRaw = more.isRaw ?? random.chance(0.3)
  const isExtended = more.isExtended ?? random.chance(0.4)
  return {
    seed,
    clusterSize: random.pick(isExtended ? extendedClusterSizes : [512, 4096, 4096]),
    isRaw,
    isExtended,
    backing: !isRaw && random.chance(0.4) ? backingGeneration : undefined,
    syncPolicy: random.chance(0.1) ? 'write' : 'flush',
    requests: random.between(8, 30),
    ...more,
  }
}

/** Leaves out a rule of what happens between the two files. */
export type TwoFileMutant = {
  readonly own?: (own: BlockBackend, data: MemoryBackend) => BlockBackend
  readonly data?: (data: MemoryBackend) => BlockBackend
  readonly beforeResize?: (data: BlockBackend, size: number) => Promise<void>
  /** Instead of random requests. */
  readonly work?: (image: Qcow2Image, data: MemoryBackend) => Promise<void>
}

export type TwoFaults = { readonly own?: Fault; readonly data?: Fault; readonly mayLose?: boolean }

/** All that happened to the two files. */
export type TwoFileRun = {
  readonly setting: TwoFileSetting
  readonly before: { readonly own: Uint8Array; readonly data: Uint8Array }
  readonly own: MemoryBackend
  readonly data: MemoryBackend
  /** Of each event of both logs in their common order: whether it is the data file's. */
  readonly order: readonly boolean[]
  readonly history: GuestHistory
  readonly backing: BackingSource | undefined
  readonly failures: number
}

const sectors = 96

function backingOf(generation: number | undefined): BackingSource | undefined {
  if (generation === undefined) return undefined
  return {
    size: sectors * sectorSize,
    read: async (bytes, offset) => {
      const first = Math.floor(offset / sectorSize)
      const count = Math.ceil((offset + bytes.length) / sectorSize) - first
      const whole = stampedBytes(first, count, generation)
      bytes.set(whole.subarray(offset - first * sectorSize, offset - first * sectorSize + bytes.length))
    },
  }
}

async function newFiles(setting: TwoFileSetting): Promise<{ own: SparseBytes; data: SparseBytes }> {
  const own = new MemoryBackend()
  const size = sectors * sectorSize
  const { clusterSize, isRaw, isExtended } = setting
  await createQcow2(own, {
    size,
    clusterSize,
    version: 3,
    refcountBits: 16,
    lazyRefcounts: false,
    extendedL2: isExtended,
    dataFile: 'data',
    dataFileRaw: isRaw,
  })
  const data = new MemoryBackend()
  await data.truncate(size)
  const image = await openQcow2(own, { readOnly: false, reservation: 0, dataFile: data })
  // Some of a raw one is not mapped, as QEMU leaves what it has made zeros.
  if (isRaw) await image.preallocate('metadata')
  if (isRaw) await image.resize(size / 2, { shrink: true })
  await image.close()
  if (!isRaw) return { own: own.contents, data: data.contents }
  const grown = new MemoryBackend({ contents: own.contents })
  const { header } = await import('../../lib/qcow2/open-metadata.js').then(({ readHeader }) =>
    readHeader(grown),
  )
  // The size alone: what was cut off is not mapped.
  const first = grown.snapshot().subarray(0, 512)
  new DataView(first.buffer, first.byteOffset).setBigUint64(24, BigInt(header.size * 2))
  await grown.write(first, 0)
  data.contents.extend(size)
  return { own: own.contents, data: data.contents }
}

/** Do what the seed says, up to four requests at a time, and close. */
export async function runTwoFiles(
  setting: TwoFileSetting,
  mutant: TwoFileMutant = {},
  faults: TwoFaults = {},
): Promise<TwoFileRun> {
  const random = new SeededRandom(setting.seed + 1)
  const files = await newFiles(setting)
  const before = { own: files.own.toBytes(), data: files.data.toBytes() }
  const device = (contents: SparseBytes, fault: Fault | undefined): MemoryBackendOptions => ({
    contents,
    record: true,
    seed: random.integer(2 ** 30),
    syncPolicy: setting.syncPolicy,
    mayLose: faults.mayLose === true,
    ...(fault === undefined ? {} : { fault }),
  })
  const own = new MemoryBackend(device(files.own, faults.own))
  const data = new MemoryBackend(device(files.data, faults.data))
  const order = watch(own, data)
  const backing = backingOf(setting.backing)
  const dataFile = mutant.data?.(data) ?? data
  const initial = new Int32Array(sectors).fill(setting.backing ?? 0)
  const run = { setting, before, own, data, order, backing, history: new GuestHistory(initial, 0, []) }
  const image = await openQcow2(mutant.own?.(own, data) ?? own, {
    readOnly: false,
    reservation: 0,
    backing,
    dataFile,
  })
  const guest = new Guest(image, run.history, order, random, setting, mutant, dataFile)
  await (mutant.work?.(image, data) ?? guest.work())
  await guest.noted(
    () => image.close(),
    (times) => run.history.flush(times),
  )
  return { ...run, failures: guest.failures }
}

/** The events of both devices in the order in which they happened. */
function watch(own: MemoryBackend, data: MemoryBackend): boolean[] {
  const order: boolean[] = []
  for (const [log, isData] of [
    [own.log, false],
    [data.log, true],
  ] as const) {
    const events = log as DeviceEvent[]
    events.push = (...added) => {
      for (let count = added.length; count > 0; count--) order.push(isData)
      return Array.prototype.push.apply(events, added)
    }
  }
  return order
}

type Times = { readonly submitted: number; readonly ended: number; readonly failed: boolean }

class Guest {
  failures = 0
  #generation = 0
  #sectors = sectors

  constructor(
    readonly image: Qcow2Image,
    readonly history: GuestHistory,
    readonly order: readonly boolean[],
    readonly random: SeededRandom,
    readonly setting: TwoFileSetting,
    readonly mutant: TwoFileMutant,
    readonly data: BlockBackend,
  ) {}

  async work(): Promise<void> {
    const running = new Set<Promise<void>>()
    for (let left = this.setting.requests; left > 0; left--) {
      const isAlone = this.random.chance(0.12)
      if (isAlone || running.size >= 4) await Promise.all(running)
      if (isAlone) await this.#reshape()
      else {
        const request = this.#request()
        running.add(request)
        void request.then(() => running.delete(request))
        // Half of the time one after the other.
        if (this.random.chance(0.5)) await request
      }
    }
    await Promise.all(running)
  }

  /** Run something, and tell the history of it. */
  async noted(run: () => Promise<void>, note: (times: Times) => void): Promise<void> {
    const submitted = this.order.length
    const failed = await run().then(
      () => false,
      () => true,
    )
    if (failed) this.failures++
    note({ submitted, ended: this.order.length, failed })
  }

  #request(): Promise<void> {
    const { random, image, history } = this
    const lba = random.integer(this.#sectors)
    const count = Math.min(random.pick([1, 2, 8, 8, 20]), this.#sectors - lba)
    const [offset, length] = [lba * sectorSize, count * sectorSize]
    // Where every write is synced, what has ended is durable.
    const isDurable = this.setting.syncPolicy === 'write'
    const choice = random.integer(100)
    if (choice < 50) {
      const generation = ++this.#generation
      const bytes = stampedBytes(lba, count, generation)
      return this.noted(
        () => image.write(bytes, offset),
        (times) => history.write(lba, count, generation, times, isDurable),
      )
    }
    if (choice < 65) {
      const unmap = random.chance(0.5)
      return this.noted(
        () => image.writeZeroes(offset, length, { unmap }),
        (times) => history.zero(lba, count, times, isDurable),
      )
    }
    if (choice < 80) return this.#discard(lba, count)
    return this.noted(
      () => image.flush(),
      (times) => history.flush(times),
    )
  }

  /** Whole clusters only are dropped. */
  #discard(lba: number, count: number): Promise<void> {
    const perCluster = this.setting.clusterSize / sectorSize
    const first = Math.ceil(lba / perCluster) * perCluster
    const isEnd = lba + count === this.#sectors
    const last = isEnd ? this.#sectors : Math.floor((lba + count) / perCluster) * perCluster
    return this.noted(
      () => this.image.discard(lba * sectorSize, count * sectorSize),
      (times) => {
        if (last > first) this.history.discard(first, last - first, times)
      },
    )
  }

  async #reshape(): Promise<void> {
    const { random, setting, image, history, mutant } = this
    if (setting.backing !== undefined) return
    const perCluster = setting.clusterSize / sectorSize
    const wanted = random.pick([sectors / 2, sectors / 2 + 3, sectors - perCluster, sectors])
    const shrink = wanted < this.#sectors
    if (shrink) await mutant.beforeResize?.(this.data, wanted * sectorSize)
    await this.noted(
      () => image.resize(wanted * sectorSize, { shrink }),
      (times) => {
        if (wanted !== this.#sectors) history.resize(wanted, times, true, this.#sectors)
        this.#sectors = image.size / sectorSize
      },
    )
  }
}
