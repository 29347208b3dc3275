import { join } from 'node:path'
import { qemuImg, qemuIo } from './qemu.js'
import type { SeededRandom } from './seeded-random.js'

/** An image of a chain, to be made by the stock tools. */
export type Link = {
  readonly name: string
  readonly format: 'raw' | 'qcow2'
  readonly version: 2 | 3
  readonly clusterSize: number
  /** Guest bytes, whole sectors. */
  readonly size: number
}

export const chainClusterSizes = [512, 65536, 2 * 1024 * 1024] as const

/** Some clusters and a part of one; not too many of small ones. */
export function linkSize(random: SeededRandom, clusterSize: number): number {
  const clusters = clusterSize === 512 ? random.between(100, 1500) : random.between(3, 10)
  const bytes = Math.min(clusters * clusterSize, 6 * 1024 * 1024)
  return bytes + random.pick([0, 512 * random.between(1, 100)])
}

/** A base, an image on it, and one on that, of any kind. */
export function randomLinks(random: SeededRandom, clusterSize: number, version: 2 | 3): [Link, Link, Link] {
  const size = linkSize(random, clusterSize)
  const others = (): number => (random.chance(0.4) ? size : linkSize(random, clusterSize))
  const link = (name: string): Link => ({
    name: `${name}.qcow2`,
    format: 'qcow2',
    version: random.pick([2, 3]),
    clusterSize: random.pick([512, 4096, 65536, clusterSize]),
    size: others(),
  })
  const base = random.chance(0.4)
    ? { ...link('base'), name: 'base.raw', format: 'raw' as const }
    : link('base')
  return [base, link('mid'), { ...link('top'), clusterSize, version, size }]
}

/** Make the chain, from the bottom, with data, compressed clusters, zeros and discards in each. */
export async function makeChain(folder: string, links: readonly Link[], random: SeededRandom): Promise<void> {
  let below: Link | undefined
  for (const link of links) {
    await makeLink(folder, link, below, random)
    below = link
  }
}

export async function makeLink(
  folder: string,
  link: Link,
  below: Link | undefined,
  random: SeededRandom,
): Promise<void> {
  const path = join(folder, link.name)
  const { format, clusterSize, size, version } = link
  const compat = version === 2 ? '0.10' : '1.1'
  // By the last of its sectors, so that the same chain is so each time.
  const isExtended = version === 3 && clusterSize >= 16384 && (size / 512) % 2 === 1
  const extended = isExtended ? ',extended_l2=on' : ''
  const shape = format === 'raw' ? [] : ['-o', `cluster_size=${clusterSize},compat=${compat}${extended}`]
  const backing = below === undefined ? [] : ['-b', below.name, '-F', below.format]
  await qemuImg('create', '-q', '-f', format, ...shape, ...backing, path, String(size))
  const commands = format === 'raw' ? [] : compressions(link, random)
  for (let index = 0; index < 8; index++) commands.push(command(link, below !== undefined, random))
  await qemuIo(path, commands, ['-f', format])
}

/** Into clusters that hold nothing yet: nothing else can be compressed by qemu-io. */
function compressions({ clusterSize, size }: Link, random: SeededRandom): string[] {
  const whole = Math.floor(size / clusterSize)
  const clusters = new Set(Array.from({ length: 3 }, () => random.integer(Math.max(whole, 1))))
  return [...clusters]
    .filter((cluster) => cluster < whole)
    .map((cluster) => `write -q -c -P ${random.between(1, 255)} ${cluster * clusterSize} ${clusterSize}`)
}

function command({ format, size, version }: Link, isOverlay: boolean, random: SeededRandom): string {
  const kind = format === 'raw' ? 'write' : random.pick(['write', 'write', 'write -z', 'discard'])
  const offset = random.integer(size / 512) * 512
  const length = Math.min(random.between(1, 500) * 512, size - offset)
  if (kind === 'write -z') return `write -q -z ${random.pick(['', '-u '])}${offset} ${length}`
  // Version 2 has no way to hide what is below.
  if (kind === 'discard' && !(version === 2 && isOverlay)) return `discard -q ${offset} ${length}`
  return `write -q -P ${random.between(1, 255)} ${offset} ${length}`
}
