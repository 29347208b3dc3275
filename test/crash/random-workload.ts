import { SeededRandom } from '../support/seeded-random.js'
import {
  type ClusterSize,
  extendedClusterSize,
  type StartImage,
  type StartName,
  startImage,
  startsOf,
  withFree,
} from './start-images.js'
import { usual } from './setting.js'
import type { Step, Workload } from './workload.js'

export type RandomOptions = {
  /** Requests. */
  readonly steps: number
  readonly start?: StartName
  readonly clusterSize?: ClusterSize
  /** Nothing is done to snapshots. */
  readonly isStill?: boolean
}

/** A long workload, wholly decided by its seed: up to eight requests at once, in few clusters, so that freed ones are used again. */
export async function randomWorkload(seed: number, options: RandomOptions): Promise<Workload> {
  const random = new SeededRandom(seed)
  const anyClusterSize = random.pick([512, 512, 512, 512, 4096, 4096, extendedClusterSize] as const)
  const clusterSize = options.clusterSize ?? anyClusterSize
  // A full refcount table has thousands of clusters to look at in each state: it is left to few.
  const most = startsOf(clusterSize).filter((name) => name !== 'near-table')
  const picked = random.pick(most)
  const free = random.pick(['usual', 'usual', 'used', 'fresh'] as const)
  const anyFree = free === 'usual' ? picked : withFree(picked, free)
  const anyStart = clusterSize === 512 && random.chance(0.04) ? 'near-table' : anyFree
  const start = options.start ?? anyStart
  const image = await startImage(start, clusterSize)
  const still = options.isStill === true ? ['still'] : []
  const named = [options.steps, options.start ?? '', options.clusterSize ?? '', ...still].join(',')
  return workloadOn(image, `random/${seed}/${named}`, random, options)
}

/** A random workload on an image. */
export function workloadOn(
  start: StartImage,
  name: string,
  random: SeededRandom,
  { steps, isStill = false }: { readonly steps: number; readonly isStill?: boolean },
): Workload {
  const generator = new Generator(random, start, isStill)
  return {
    name,
    start,
    setting: usual,
    window: random.pick([1, 2, 4, 8]),
    deviceSeed: random.chance(0.8) ? random.integer(1_000_000) : undefined,
    isSluggish: random.chance(0.4),
    uncached: random.chance(0.25),
    steps: Array.from({ length: steps }, () => generator.next()),
  }
}

/** The workload of a name, that of `randomWorkload`. */
export function randomFromName(name: string): Promise<Workload> {
  const [, seed, options = ''] = name.split('/')
  const [steps, start, clusterSize, still] = options.split(',')
  return randomWorkload(Number(seed), {
    steps: Number(steps),
    ...(start ? { start: start as StartName } : {}),
    ...(clusterSize ? { clusterSize: Number(clusterSize) as ClusterSize } : {}),
    ...(still === undefined ? {} : { isStill: true }),
  })
}

class Generator {
  readonly #random: SeededRandom
  readonly #perCluster: number
  readonly #usual: number
  readonly #windows: { first: number; clusters: number }[]
  readonly #resizes: boolean
  readonly #isVersion2: boolean
  readonly #freezes: boolean
  /** What is encrypted is not compressed. */
  readonly #isEncrypted: boolean
  readonly #snapshots: { name: string; sectors: number }[]
  #made = 0
  #sectors: number

  constructor(random: SeededRandom, start: StartImage, isStill: boolean) {
    const sectors = start.initial.length
    const perCluster = start.clusterSize / 512
    this.#random = random
    this.#perCluster = perCluster
    this.#usual = sectors
    this.#sectors = sectors
    this.#isVersion2 = start.version === 2
    this.#resizes = random.chance(0.3) && !(isStill && start.snapshots.length > 0)
    this.#snapshots = start.snapshots.map(({ name, sectors: frozen }) => ({ name, sectors: frozen }))
    // Counts of one bit have no room for a snapshot's references.
    this.#isEncrypted = start.cipher !== undefined
    this.#freezes = !isStill && start.refcountBits > 1 && (start.snapshots.length > 0 || random.chance(0.4))
    const clusters = Math.floor(sectors / perCluster)
    // A few places where everything happens; sometimes one in each of many L2 tables.
    const count = random.pick([1, 2, 3, 20])
    this.#windows = Array.from({ length: count }, () => {
      const wide = count === 20 ? 2 : random.between(3, Math.min(16, clusters))
      return { first: random.integer(Math.max(1, clusters - wide)), clusters: wide }
    })
  }

  next(): Step {
    const random = this.#random
    const choice = random.integer(100)
    if (choice < 39) return this.#write()
    if (choice < 45) return { kind: this.#isEncrypted ? 'zero' : 'compress', ...this.#oneCluster() }
    if (choice < 65) return { kind: 'discard', ...this.#clusters() }
    if (choice < 72) return { kind: 'unmap', ...this.#clusters() }
    if (choice < 78) return { kind: 'zero', ...this.#clusters() }
    if (choice < 82) return { kind: random.pick(['zero', 'unmap']), ...this.#sectorRun() }
    if (choice < 88) return { kind: 'read', ...this.#sectorRun() }
    if (choice < 93) return this.#freezes ? this.#onSnapshots() : { kind: 'flush' }
    // Version 2 does not say how large the disk was in a snapshot.
    const isBound = this.#isVersion2 && this.#snapshots.length > 0
    if (choice < 97 || !this.#resizes || isBound) return { kind: 'flush' }
    return this.#resize()
  }

  #onSnapshots(): Step {
    const random = this.#random
    const kind = random.pick([
      'snapshot-create',
      'snapshot-create',
      'snapshot-apply',
      'snapshot-delete',
    ] as const)
    if (kind === 'snapshot-create' || this.#snapshots.length === 0) {
      const name = `${random.integer(1_000_000)}-${this.#made++}`
      this.#snapshots.push({ name, sectors: this.#sectors })
      return { kind: 'snapshot-create', name }
    }
    const index = random.integer(this.#snapshots.length)
    const { name, sectors } = this.#snapshots[index] as { name: string; sectors: number }
    if (kind === 'snapshot-apply') this.#sectors = sectors
    else this.#snapshots.splice(index, 1)
    return { kind, name }
  }

  #write(): Step {
    const place = this.#random.chance(0.6) ? this.#clusters() : this.#sectorRun()
    return { kind: 'write', ...place, ...(this.#random.chance(0.1) ? { fua: true } : {}) }
  }

  #oneCluster(): { lba: number; sectors: number } {
    const window = this.#random.pick(this.#windows)
    const last = Math.ceil(this.#sectors / this.#perCluster) - 1
    const first = Math.min(window.first + this.#random.integer(window.clusters), last)
    return this.#within(first * this.#perCluster, this.#perCluster)
  }

  #clusters(): { lba: number; sectors: number } {
    const window = this.#random.pick(this.#windows)
    const first = window.first + this.#random.integer(window.clusters)
    const count = this.#random.pick([1, 1, 1, 2, 3])
    return this.#within(first * this.#perCluster, count * this.#perCluster)
  }

  #sectorRun(): { lba: number; sectors: number } {
    const window = this.#random.pick(this.#windows)
    const first = window.first * this.#perCluster
    const lba = first + this.#random.integer(window.clusters * this.#perCluster)
    return this.#within(lba, this.#random.between(1, 2 * this.#perCluster))
  }

  #within(lba: number, sectors: number): { lba: number; sectors: number } {
    const start = Math.min(lba, this.#sectors - 1)
    return { lba: start, sectors: Math.min(sectors, this.#sectors - start) }
  }

  #resize(): Step {
    const random = this.#random
    const perTable = this.#perCluster * this.#perCluster * 64
    const most = random.chance(0.1) && perTable < 100_000 ? perTable * 64 : this.#usual
    const before = this.#sectors
    const around = before + random.between(-20, 20) * random.pick([1, this.#perCluster])
    this.#sectors = Math.max(4, random.chance(0.4) ? random.between(4, most + 10) : around)
    const isFilled = most === this.#usual && this.#sectors > before && random.chance(0.3)
    return { kind: 'resize', sectors: this.#sectors, ...(isFilled ? { preallocation: 'metadata' } : {}) }
  }
}
