import { createQcow2 } from '../../lib/qcow2/create.js'
import { openQcow2, type Qcow2Image } from '../../lib/qcow2/image.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { source } from './qcow2-disk.js'
import { refcountWidths } from './image-shapes.js'
import type { SeededRandom } from './seeded-random.js'

/** How an image is that has been in use, and has holes. */
export type WornShape = {
  readonly version: 2 | 3
  readonly clusterSize: number
  readonly refcountBits: number
  readonly extendedL2: boolean
  /** Clusters. */
  readonly size: number
  readonly changes: number
  /** Of changes, which are compressed writes. */
  readonly compressed: number
  readonly backing: Uint8Array | undefined
}

export function randomWornShape(random: SeededRandom): WornShape {
  const extendedL2 = random.chance(0.15)
  const version = extendedL2 || random.chance(0.8) ? 3 : 2
  const clusterSize = extendedL2 ? 16384 : random.pick([512, 512, 1024, 4096])
  return {
    version,
    clusterSize,
    extendedL2,
    refcountBits: version === 2 ? 16 : random.pick(refcountWidths),
    // Large disks have L1 tables, and those of snapshots, that take several clusters.
    size:
      random.pick(clusterSize < 4096 ? [40, 200, 200, 6000, 30_000] : [40, 200, 1000]) + random.integer(30),
    changes: random.pick([10, 40, 150]),
    compressed: random.pick([0, 0.2, 0.9]),
    backing:
      version === 3 && random.chance(0.2) ? new Uint8Array(20 * clusterSize + 512).fill(251) : undefined,
  }
}

/** What its guest sees, and the snapshots. */
export type Shown = ReadonlyMap<string, Uint8Array>

/** Write, discard, snapshot, until clusters are free everywhere. @returns the file */
export async function wornImage(shape: WornShape, random: SeededRandom): Promise<SparseBytes> {
  const { clusterSize, size, version, refcountBits, extendedL2 } = shape
  const memory = new MemoryBackend()
  await createQcow2(memory, {
    size: size * clusterSize - (random.chance(0.3) ? 512 : 0),
    clusterSize,
    version,
    refcountBits,
    extendedL2,
    lazyRefcounts: false,
  })
  const image = await openQcow2(memory, {
    readOnly: false,
    reservation: random.pick([0, 8]),
    backing: shape.backing && source(shape.backing),
  })
  for (let left = shape.changes; left > 0; left--) await change(image, shape, random)
  for (let left = random.integer(shape.changes); left > 0; left--) await discard(image, shape, random)
  await image.close()
  return memory.contents
}

function place(
  image: Qcow2Image,
  { clusterSize }: WornShape,
  random: SeededRandom,
  most: number,
): { offset: number; length: number } {
  const clusters = Math.max(1, Math.floor(image.size / clusterSize))
  // Near the beginning, or anywhere.
  const first = random.integer(random.chance(0.7) ? Math.min(clusters, 150) : clusters)
  const length = Math.min(random.between(1, most), clusters - first) * clusterSize
  return { offset: first * clusterSize, length: Math.min(length, image.size - first * clusterSize) }
}

async function change(image: Qcow2Image, shape: WornShape, random: SeededRandom): Promise<void> {
  const { offset, length } = place(image, shape, random, 6)
  if (random.chance(shape.compressed) && length > 0) {
    const bytes = new Uint8Array(length)
    for (let at = 0; at < length; at += shape.clusterSize) {
      const noise = random.bytes(Math.min(random.integer(shape.clusterSize), length - at))
      bytes.set(noise, at)
    }
    await image.writeCompressed(bytes, offset)
    return
  }
  const choice = random.integer(20)
  if (choice < 10) await image.write(random.bytes(Math.max(1, length - 3)), offset)
  else if (choice < 13) await image.writeZeroes(offset, length, { unmap: choice === 12 })
  else if (choice < 16) await discard(image, shape, random)
  else if (choice < 18) await snapshot(image, random)
  else if (choice < 19) await bitmap(image, shape, random)
  else await resize(image, shape, random)
}

async function discard(image: Qcow2Image, shape: WornShape, random: SeededRandom): Promise<void> {
  if (shape.version === 2 && shape.backing !== undefined) return
  const { offset, length } = place(image, shape, random, 10)
  await image.discard(offset, length)
}

async function snapshot(image: Qcow2Image, random: SeededRandom): Promise<void> {
  const known = await image.snapshots.list()
  const old = known.length > 3 || random.chance(0.4) ? known[random.integer(known.length)] : undefined
  const work =
    old === undefined
      ? image.snapshots.creating(`s${random.integer(1e9)}`, {})
      : image.snapshots.deleting({ id: old.id }, {})
  await work().catch(passUnsupported)
}

async function bitmap(image: Qcow2Image, shape: WornShape, random: SeededRandom): Promise<void> {
  if (shape.version === 2) return
  const known = await image.bitmaps.list()
  const old = known.length > 2 ? known[random.integer(known.length)] : undefined
  const granularity = random.pick([512, 4096, 65536])
  const work =
    old === undefined
      ? image.bitmaps.changing({ kind: 'add', name: `b${random.integer(1e9)}`, granularity, enabled: true })
      : image.bitmaps.changing({ kind: 'remove', name: old.name })
  await work()
}

async function resize(image: Qcow2Image, shape: WornShape, random: SeededRandom): Promise<void> {
  const size = random.between(1, shape.size * 2) * shape.clusterSize
  await image.resize(size, { shrink: true }).catch(passUnsupported)
}

/** Counts of one bit, disks of version 2 with snapshots. */
function passUnsupported(error: unknown): void {
  if ((error as { code?: string }).code !== 'ERR_NOT_SUPPORTED') throw error
}

/** What disk and snapshots show. */
export async function shownIn(contents: SparseBytes, { backing }: WornShape): Promise<Shown> {
  const shown = new Map<string, Uint8Array>()
  const read = async (snapshot?: { id: string }): Promise<string[]> => {
    const memory = new MemoryBackend({ contents, readOnly: true })
    const image = await openQcow2(memory, {
      readOnly: true,
      backing: backing && source(backing),
      ...(snapshot === undefined ? {} : { snapshot }),
    })
    const bytes = new Uint8Array(image.size)
    await image.read(bytes, 0)
    shown.set(snapshot?.id ?? 'disk', bytes)
    const ids = (await image.snapshots.list()).map(({ id }) => id)
    for (const { name, inconsistent } of snapshot === undefined ? await image.bitmaps.list() : []) {
      if (inconsistent) continue
      const cut = await image.bitmaps.cut(name)
      const text: string[] = []
      for (const { offset, length } of cut.ranges()) text.push(`${offset} ${length}`)
      shown.set(`bitmap ${name}`, Buffer.from(text.join(', ')))
    }
    await image.close()
    return ids
  }
  for (const id of await read()) await read({ id })
  return shown
}

/** @returns what differs; undefined if nothing does */
export function differenceOf(seen: Shown, wanted: Shown): string | undefined {
  const names = new Set([...seen.keys(), ...wanted.keys()])
  return [...names].find(
    (name) => Buffer.compare(seen.get(name) ?? Buffer.of(1), wanted.get(name) ?? Buffer.of(2)) !== 0,
  )
}
