import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { alignUp } from '../../lib/base/integers.js'
import { sectorSize } from '../../lib/base/units.js'
import { createQcow2 } from '../../lib/qcow2/create.js'
import type { SectorCipher } from '../../lib/luks/sector-cipher.js'
import { openQcow2, type Qcow2Image } from '../../lib/qcow2/image.js'
import type { BackingSource } from '../../lib/queue/format-image.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { passphrase } from '../support/encrypted.js'
import { qemuImg, qemuIo } from '../support/qemu.js'
import { otherwise } from './altered-backend.js'
import type { CopiedRule } from './disk-walk.js'
import { cipherOf, newLuksHeader } from './encrypted-start.js'
import { type FrozenDisk, frozenFrom } from './frozen-disk.js'
import { backingValue, stampedBytes, zeroValue } from './payload.js'
import { plainReader, PayloadReader } from './payload-reader.js'

/** An image that workloads begin with; everything in it is durable. */
export type StartImage = {
  readonly name: string
  readonly clusterSize: number
  readonly refcountBits: number
  readonly version: 2 | 3
  readonly extendedL2: boolean
  /** Of the file; whole sectors. */
  readonly bytes: Uint8Array
  /** By LBA: what the guest sees. */
  readonly initial: Int32Array
  /** Of an encrypted image: what the guest's bytes go through. */
  readonly cipher: SectorCipher | undefined
  /** Of what stands in the file. */
  readonly reader: PayloadReader
  readonly backing: BackingSource | undefined
  readonly backingSectors: number
  readonly snapshots: readonly FrozenDisk[]
  /** Whether COPIED flags are where the counts are 1; see DiskWalk. A crash of an operation on snapshots may have left others. */
  readonly copied?: CopiedRule
  /** Clusters that nothing refers to from the start: after a crash. */
  readonly leaks: number
  /** Guest clusters that are mapped, and that are not, in the order in which workloads use them. */
  readonly mapped: readonly number[]
  readonly free: readonly number[]
}

/** What there is in an image. */
export const startNames = [
  'empty',
  'half-full',
  'backing',
  'near-block',
  'near-table',
  'snapshot',
  'autoclear',
  'version-2',
  'one-bit',
  'extended',
  'extended-backing',
  'extended-snapshot',
] as const
/** Those that have workloads of their own. */
type Contents = (typeof startNames)[number] | 'bitmaps' | 'encrypted'

/** And what is free in its file: a few clusters; 'fresh': none; 'used': many, which hold what they held before they were freed. */
export type StartName = Contents | `${Contents}+fresh` | `${Contents}+used`

/** The same contents, with other free clusters in the file. A full refcount block has none. */
export function withFree(start: StartName, free: 'fresh' | 'used'): StartName {
  const contents = contentsOf(start)
  return contents === 'near-block' || contents === 'near-table' ? contents : `${contents}+${free}`
}

function contentsOf(start: StartName): Contents {
  return start.replace(/\+.*/, '') as Contents
}

/** Which starts there are with clusters of this size: a full refcount table of larger ones would take a gibibyte. */
export function startsOf(clusterSize: number, from: readonly StartName[] = startNames): StartName[] {
  return from.filter((name) => {
    if (isExtended(name) || clusterSize === extendedClusterSize)
      return isExtended(name) && clusterSize === extendedClusterSize
    return name !== 'near-table' || clusterSize === 512
  })
}

/** Subclusters of two sectors, so that something is copied around a write of one. */
export const extendedClusterSize = 32768

export type ClusterSize = 512 | 4096 | typeof extendedClusterSize

/** Whether the image has extended L2 entries. */
export function isExtended(name: StartName): boolean {
  return name.startsWith('extended')
}

/** Whether the image is encrypted. */
export function isEncrypted(name: StartName): boolean {
  return name.startsWith('encrypted')
}

const made = new Map<string, Promise<StartImage>>()

/** The start image of that kind; made once. */
export function startImage(name: StartName, clusterSize: number): Promise<StartImage> {
  const key = `${name}/${clusterSize}`
  let image = made.get(key)
  if (image === undefined) {
    image = make(name, clusterSize)
    made.set(key, image)
  }
  return image
}

async function make(name: StartName, clusterSize: number): Promise<StartImage> {
  // Narrow blocks: few clusters to a block, so that growth is near.
  const refcountBits = { 'near-block': 64, 'near-table': 64, 'one-bit': 1 }[contentsOf(name) as string] ?? 16
  const maker = new Maker(name, clusterSize, refcountBits)
  await maker.create()
  return await maker.finish()
}

/** Guest clusters of most images. */
const diskClusters = 96

/** Of those with extended L2 entries: their clusters are large. */
const extendedDiskClusters = 12

/** Of 'used'. */
const usedFirst = 60
const usedClusters = 24

/** One generation for all that start images hold. */
const startGeneration = 1

class Maker {
  readonly #name: Contents
  readonly #free: 'usual' | 'fresh' | 'used'
  readonly #version: 2 | 3
  readonly #clusterSize: number
  readonly #refcountBits: number
  readonly #perCluster: number
  readonly #sectors: number
  readonly #initial: Int32Array
  readonly #backing: BackingSource | undefined
  readonly #memory = new MemoryBackend()
  readonly #mapped: number[] = []
  #cipher: SectorCipher | undefined

  constructor(name: StartName, clusterSize: number, refcountBits: number) {
    this.#name = contentsOf(name)
    this.#free = name.endsWith('+fresh') ? 'fresh' : name.endsWith('+used') ? 'used' : 'usual'
    this.#version = this.#name === 'version-2' ? 2 : 3
    this.#clusterSize = clusterSize
    this.#refcountBits = refcountBits
    this.#perCluster = clusterSize / sectorSize
    const counted = (clusterSize * 8) / refcountBits
    const full = name === 'near-table' ? (clusterSize / 8) * counted : name === 'near-block' ? counted : 0
    const few = isExtended(name) ? extendedDiskClusters : diskClusters
    const clusters = full > 0 ? full + 16 : few
    // The disk ends within a cluster, if clusters have more than one sector.
    this.#sectors = clusters * this.#perCluster - Math.floor(this.#perCluster / 2)
    this.#initial = new Int32Array(this.#sectors)
    if (!this.#name.endsWith('backing')) return
    // Shorter than the disk, and not whole clusters, or subclusters.
    const backed = isExtended(name)
      ? 5 * this.#perCluster + Math.floor(this.#perCluster / 2) + 1
      : 40 * this.#perCluster + Math.floor(this.#perCluster / 2)
    const bytes = stampedBytes(0, backed, backingValue)
    this.#initial.fill(backingValue, 0, backed)
    this.#backing = {
      size: bytes.length,
      async read(into, offset) {
        into.set(bytes.subarray(offset, offset + into.length))
      },
    }
  }

  async create(): Promise<void> {
    await createQcow2(this.#memory, {
      size: this.#sectors * sectorSize,
      clusterSize: this.#clusterSize,
      version: this.#version,
      refcountBits: this.#refcountBits,
      lazyRefcounts: false,
      extendedL2: isExtended(this.#name),
      luksHeader: isEncrypted(this.#name) ? await newLuksHeader() : undefined,
    })
    if (isEncrypted(this.#name)) this.#cipher = await cipherOf(this.#memory)
    // What is freed here keeps its bytes.
    const backend = otherwise(this.#memory, { punch: () => Promise.resolve() })
    const encryption = this.#cipher === undefined ? {} : { encryption: { passphrase } }
    const options = { readOnly: false, backing: this.#backing, reservation: 0, ...encryption }
    const image = await openQcow2(backend, options)
    if (isExtended(this.#name)) await this.#fillParts(image)
    else if (this.#name === 'near-block' || this.#name === 'near-table') await this.#fillUp(image)
    else if (this.#name !== 'empty') await this.#fillHalf(image)
    if (this.#free === 'used') await this.#leaveUsed(image)
    await image.close()
  }

  /** Data, zeros with and without a cluster, and holes in the file, so that the next cluster given out is a used one: unless there are to be none. */
  async #fillHalf(image: Qcow2Image): Promise<void> {
    const last = this.#name === 'backing' ? 24 : 48
    for (let cluster = 8; cluster < last; cluster++) await this.#write(image, cluster, 1)
    await this.#zero(image, 20, { unmap: false })
    if (this.#free === 'fresh') return
    await this.#zero(image, 21, { unmap: true })
    await this.#zero(image, 12, { unmap: true })
    await this.#zero(image, 13, { unmap: true })
  }

  /** Whole clusters; one of which some subclusters are there, some are zeros, and most are in neither state, in a used cluster; zeros of both kinds. */
  async #fillParts(image: Qcow2Image): Promise<void> {
    const [partial, used] = [3, 7]
    if (this.#free !== 'fresh') {
      await this.#write(image, used, 1)
      await this.#write(image, used + 1, 1)
      await this.#zero(image, used, { unmap: true })
      await this.#zero(image, used + 1, { unmap: true })
      // What is freed is free behind a flush, when that has been told.
      await image.flush()
      await image.flush()
      await new Promise((resolve) => setImmediate(resolve))
    }
    const lba = partial * this.#perCluster
    await image.write(stampedBytes(lba, 12, startGeneration), lba * sectorSize)
    this.#initial.fill(startGeneration, lba, lba + 8)
    await image.writeZeroes((lba + 8) * sectorSize, 4 * sectorSize, { unmap: false })
    this.#initial.fill(zeroValue, lba + 8, lba + 12)
    this.#mapped.push(partial)
    for (const cluster of [1, 2, 4]) await this.#write(image, cluster, 1)
    await this.#zero(image, 4, { unmap: false })
  }

  /** Clusters that others were mapped to, at places that are not used again by themselves. */
  async #leaveUsed(image: Qcow2Image): Promise<void> {
    const [first, end] = isExtended(this.#name) ? [8, 11] : [usedFirst, usedFirst + usedClusters]
    for (let cluster = first; cluster < end; cluster++) await this.#write(image, cluster, 1)
    for (let cluster = first; cluster < end; cluster++) {
      await this.#zero(image, cluster, { unmap: true })
    }
  }

  /** Up to one cluster before the refcount block, or the table, is full. */
  async #fillUp(image: Qcow2Image): Promise<void> {
    const counted = (this.#clusterSize * 8) / this.#refcountBits
    const full = this.#name === 'near-table' ? (this.#clusterSize / 8) * counted : counted
    let next = 0
    const used = (): number => Math.ceil(this.#memory.length / this.#clusterSize)
    while (full - used() > 140) {
      await this.#write(image, next, 64)
      next += 64
    }
    while (used() < full - 1) await this.#write(image, next++, 1)
  }

  async #write(image: Qcow2Image, cluster: number, clusters: number): Promise<void> {
    const lba = cluster * this.#perCluster
    const sectors = Math.min(clusters * this.#perCluster, this.#sectors - lba)
    await image.write(stampedBytes(lba, sectors, startGeneration), lba * sectorSize)
    this.#initial.fill(startGeneration, lba, lba + sectors)
    for (let step = 0; step < clusters; step++) this.#mapped.push(cluster + step)
  }

  async #zero(image: Qcow2Image, cluster: number, options: { unmap: boolean }): Promise<void> {
    const lba = cluster * this.#perCluster
    await image.writeZeroes(lba * sectorSize, this.#clusterSize, options)
    this.#initial.fill(zeroValue, lba, lba + this.#perCluster)
    this.#mapped.splice(this.#mapped.indexOf(cluster), 1)
  }

  async finish(): Promise<StartImage> {
    let bytes = this.#memory.snapshot()
    const hasSnapshot = this.#name.endsWith('snapshot')
    if (hasSnapshot) bytes = await withSnapshot(bytes)
    if (this.#name === 'bitmaps') bytes = await withBitmaps(bytes, this.#clusterSize)
    if (this.#name === 'autoclear') new DataView(bytes.buffer).setUint32(92, 0x40)
    const whole = new Uint8Array(alignUp(bytes.length, sectorSize))
    whole.set(bytes)
    const mapped = new Set(this.#mapped)
    const clusters = Math.ceil(this.#sectors / this.#perCluster)
    const free = Array.from({ length: clusters }, (_, cluster) => cluster).filter(
      (cluster) => !mapped.has(cluster),
    )
    return {
      name: this.#name,
      clusterSize: this.#clusterSize,
      refcountBits: this.#refcountBits,
      version: this.#version,
      extendedL2: isExtended(this.#name),
      bytes: whole,
      initial: this.#initial,
      cipher: this.#cipher,
      reader: this.#cipher === undefined ? plainReader : new PayloadReader(this.#cipher),
      backing: this.#backing,
      backingSectors: (this.#backing?.size ?? 0) / sectorSize,
      snapshots: hasSnapshot ? [frozenFrom('frozen', this.#initial)] : [],
      leaks: 0,
      mapped: this.#mapped,
      free,
    }
  }
}

/** The image with bitmaps: one that follows the disk, and one that does not and has marked two places. Made by the stock tool. */
function withBitmaps(bytes: Uint8Array, clusterSize: number): Promise<Uint8Array> {
  return byStockTool(bytes, async (path) => {
    await qemuImg('bitmap', '--add', '-g', '512', path, 'still')
    // It shows the same afterwards.
    await qemuIo(path, [`write -z ${20 * clusterSize} 512`])
    await qemuImg('bitmap', '--disable', path, 'still')
    await qemuImg('bitmap', '--add', '-g', '512', path, 'live')
  })
}

/** The image with an internal snapshot: all clusters and tables are shared. Made by the stock tool. */
function withSnapshot(bytes: Uint8Array): Promise<Uint8Array> {
  return byStockTool(bytes, async (path) => {
    await qemuImg('snapshot', '-c', 'frozen', path)
  })
}

async function byStockTool(bytes: Uint8Array, change: (path: string) => Promise<void>): Promise<Uint8Array> {
  const folder = await mkdtemp(join(tmpdir(), 'qcow2-test-'))
  try {
    const path = join(folder, 'disk.qcow2')
    await writeFile(path, bytes)
    await change(path)
    return new Uint8Array(await readFile(path))
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
