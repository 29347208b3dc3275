import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { SeededRandom } from './seeded-random.js'
import { qemuImg, qemuIo } from './qemu.js'

/** Bits 9 to 55: the host offset in an L1 or L2 entry. */
const offsetMask = 0x00ff_ffff_ffff_fe00n

/** Where the entries of an image's tables stand, read by literal offsets: an opinion of its own on the format. */
export type Places = {
  readonly clusterSize: number
  readonly l1: readonly number[]
  readonly l2: readonly number[]
  readonly refcountTable: readonly number[]
  /** Words of 8 bytes of all refcount blocks. */
  readonly refcountBlocks: readonly number[]
  /** Words of the snapshot table; empty without snapshots. */
  readonly snapshots: readonly number[]
}

export function placesOf(image: Buffer): Places {
  const clusterSize = 2 ** image.readUInt32BE(20)
  const words = (offset: number, count: number): number[] =>
    Array.from({ length: count }, (_, index) => offset + 8 * index).filter((at) => at + 8 <= image.length)
  const perCluster = clusterSize / 8
  const l1 = words(Number(image.readBigUInt64BE(40)), image.readUInt32BE(36))
  const refcountTable = words(Number(image.readBigUInt64BE(48)), image.readUInt32BE(56) * perCluster)
  const pointed = (at: number, mask: bigint): number => Number(image.readBigUInt64BE(at) & mask)
  const tables = l1.map((at) => pointed(at, offsetMask)).filter((offset) => offset !== 0)
  const blocks = refcountTable.map((at) => pointed(at, ~0x1ffn)).filter((offset) => offset !== 0)
  return {
    clusterSize,
    l1,
    l2: tables.flatMap((offset) => words(offset, perCluster)),
    refcountTable,
    refcountBlocks: blocks.flatMap((offset) => words(offset, perCluster)),
    snapshots: image.readUInt32BE(60) === 0 ? [] : words(Number(image.readBigUInt64BE(64)), 20),
  }
}

export type SampleOptions = {
  readonly clusterSize: number
  readonly refcountBits?: number
  readonly version?: 2 | 3
  readonly snapshots?: boolean
  readonly bitmap?: boolean
  readonly extendedL2?: boolean
}

/** Have the stock tools make a small image with a bit of everything that its options allow. */
export async function sampleImage(folder: string, options: SampleOptions): Promise<Buffer> {
  const { clusterSize, refcountBits = 16, version = 3 } = options
  const file = join(folder, 'sample.qcow2')
  const settings = `cluster_size=${clusterSize},refcount_bits=${refcountBits},compat=${version === 3 ? 'v3' : 'v2'}`
  const extended = options.extendedL2 ? ',extended_l2=on' : ''
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', settings + extended, file, '8M')
  await qemuIo(file, [
    'write -P 1 0 100k',
    'write -P 2 1M 200k',
    `write -c -P 3 2M ${clusterSize}`,
    `write -c -P 4 ${2 * 2 ** 20 + clusterSize} ${clusterSize}`,
    ...(version === 3 ? ['write -z 3M 128k', 'write -z -u 1M 64k'] : []),
  ])
  if (options.snapshots) {
    await qemuImg('snapshot', '-c', 's1', file)
    await qemuIo(file, ['write -P 5 0 10k', 'write -P 6 5M 100k'])
    await qemuImg('snapshot', '-c', 's2', file)
    await qemuIo(file, ['write -P 7 5M 70k'])
  }
  if (options.bitmap) await qemuImg('bitmap', '--add', '-g', '65536', file, 'b0')
  return readFile(file)
}

/**
 * Damage an image in one to four words of its tables and pointers.
 * @returns what was done, for the message of a failed test
 */
export function damage(image: Buffer, random: SeededRandom): string {
  const places = placesOf(image)
  const done: string[] = []
  for (let count = random.pick([1, 1, 1, 2, 4]); count > 0; count--) {
    const [what, at] = pickWord(image, places, random)
    const word = damagedWord(image, image.readBigUInt64BE(at), places, random)
    image.writeBigUInt64BE(word, at)
    done.push(`${what} at ${at} = ${word.toString(16)}`)
  }
  return done.join(', ')
}

function pickWord(image: Buffer, places: Places, random: SeededRandom): [what: string, at: number] {
  const what = random.pick(['l1', 'l2', 'l2', 'refcountTable', 'refcountBlocks', 'snapshots', 'header'])
  if (what === 'header') return [what, random.pick([40, 48, 64, 56])]
  const words = what === 'snapshots' && places.snapshots.length === 0 ? places.l1 : places[what]
  const used = words.filter((at) => image.readBigUInt64BE(at) !== 0n)
  return [what, random.pick(used.length > 0 && random.chance(0.8) ? used : words)]
}

function damagedWord(image: Buffer, word: bigint, places: Places, random: SeededRandom): bigint {
  const { clusterSize, l2 } = places
  switch (random.integer(8)) {
    case 0:
      return word ^ (1n << BigInt(random.integer(64)))
    case 1:
      return 0n
    case 2: {
      const cluster = random.integer(Math.floor(image.length / clusterSize) + 3)
      return (word & ~offsetMask) | BigInt(cluster * clusterSize)
    }
    case 3:
      return (BigInt(random.integer(2 ** 32)) << 32n) | BigInt(random.integer(2 ** 32))
    case 4:
      return word ^ (1n << 63n)
    case 5:
      return BigInt.asUintN(64, word + 512n * BigInt(random.integer(4)))
    case 6:
      return word ^ (1n << 62n)
    default:
      return l2.length === 0 ? word : image.readBigUInt64BE(random.pick(l2))
  }
}
