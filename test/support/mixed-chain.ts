import { join } from 'node:path'
import { checkImage, createImage, type OpenOptions, Qcow2Error } from '../../lib/index.js'
import { BitmapModel } from './bitmap-model.js'
import { passphrase, secret } from './encrypted.js'
import { extendedClusterSizes, makeBacking, refcountWidths, shownOver } from './image-shapes.js'
import { qemuImg, run } from './qemu.js'
import type { SeededRandom } from './seeded-random.js'

/** A disk as an internal snapshot has it. */
export type FrozenDisk = {
  readonly id: string
  readonly name: string
  /** Undefined: what it stands on has changed, so that it shows whatever both tools say. */
  content: Buffer | undefined
  readonly size: number
}

/** An image beside what it must show and say. */
export type MixedImage = {
  readonly name: string
  readonly path: string
  readonly format: 'qcow2' | 'raw'
  version: 2 | 3
  refcountBits: number
  readonly clusterSize: number
  readonly extendedL2: boolean
  readonly encrypted: boolean
  /** A path; undefined: its data are its own. */
  readonly dataFile: string | undefined
  readonly dataFileRaw: boolean
  readonly bitmaps: BitmapModel
  snapshots: FrozenDisk[]
  content: Buffer
}

/** An image, and what it stands on, from the top. */
export type MixedChain = readonly [MixedImage, ...MixedImage[]]

/** How we are told of any image of a sequence. */
export const opened = {
  encryption: { passphrase },
  dataFile: 'allow',
  backing: 'allow',
} as const satisfies OpenOptions

/**
 * How the stock tools are told of an image.
 * @param options.alone   for a command that does not open what it stands on
 * @param options.unmaps  discards are passed on
 */
export function stockName(
  chain: readonly MixedImage[],
  { alone = false, unmaps = false }: { readonly alone?: boolean; readonly unmaps?: boolean } = {},
): string[] {
  const [top] = chain
  if (top === undefined) throw new Error('a chain has a top')
  const words = [`driver=${top.format}`, `file.filename=${top.path}`]
  if (unmaps) words.push('discard=unmap')
  for (const [depth, { encrypted }] of (alone ? [top] : chain).entries())
    if (encrypted) words.push(`${'backing.'.repeat(depth)}encrypt.key-secret=s0`)
  return [...secret, '--image-opts', words.join(',')]
}

/** @returns whether it was done; false: it was refused. @throws Error  it failed otherwise, or a refusal was due and did not come */
export async function attempt(
  work: Promise<unknown>,
  { must = false, may = must }: { readonly must?: boolean; readonly may?: boolean } = {},
): Promise<boolean> {
  try {
    await work
  } catch (error) {
    if (may && error instanceof Qcow2Error && error.code === 'ERR_NOT_SUPPORTED') return false
    throw error
  }
  if (must) throw new Error('this had to be refused')
  return true
}

/**
 * Let `qemu-img` do something. Where it fails it leaves leaks, which we mend: its own repair loses all snapshots of an image that has bitmaps, too (7.2).
 * @param chain  what it may write to
 * @returns whether the stock tool did it. What it does is what counts, where it differs from us in what it refuses
 */
export async function stockAttempt(
  chain: readonly MixedImage[],
  ...args: readonly string[]
): Promise<boolean> {
  if ((await run('qemu-img', args)).code === 0) return true
  for (const image of chain) {
    if (image.format === 'qcow2') await checkImage(image.path, { repair: 'leaks' })
  }
  return false
}

export function describe(image: MixedImage): string {
  const kind = [
    image.extendedL2 ? 'extended' : '',
    image.encrypted ? 'encrypted' : '',
    image.dataFile === undefined ? '' : image.dataFileRaw ? 'raw data file' : 'data file',
  ]
  return `${image.name}: ${image.format}, version ${image.version}, clusters ${image.clusterSize}, refcounts ${image.refcountBits}, ${image.content.length} bytes ${kind.join(' ')}`
}

/** A size of some clusters and a part of one; of large clusters few, since whole disks are compared again and again. */
export function randomSize(random: SeededRandom, clusterSize: number): number {
  const most = Math.max(Math.min(clusterSize * 40, 700_000), random.chance(0.3) ? clusterSize * 1.2 : 0)
  return random.between(1, Math.ceil(Math.max(most, 50_000) / 512)) * 512
}

/** A raw or plain image by the stock tool, with something in it. */
export async function makeForeignBase(folder: string, random: SeededRandom): Promise<MixedImage> {
  const shape = { format: random.pick(['raw', 'qcow2']), size: randomSize(random, 65536) } as const
  const { name, content } = await makeBacking(folder, shape, random)
  return {
    ...{ name, path: join(folder, name), format: shape.format, version: 3, refcountBits: 16 },
    ...{ clusterSize: 65536, extendedL2: false, encrypted: false, dataFile: undefined, dataFileRaw: false },
    ...{ bitmaps: new BitmapModel(content.length), snapshots: [], content },
  }
}

/**
 * Create an image of any kind, over a chain or alone.
 * @param name  without an ending
 */
export async function makeImage(
  folder: string,
  name: string,
  below: readonly MixedImage[],
  random: SeededRandom,
): Promise<MixedImage> {
  const extendedL2 = random.chance(0.25)
  const encrypted = random.chance(0.2)
  // We make no image with both.
  const hasDataFile = !encrypted && !extendedL2 && random.chance(0.15)
  const version = extendedL2 || hasDataFile || encrypted ? 3 : random.pick([3, 3, 3, 2] as const)
  const clusterSize = random.pick<number>(
    extendedL2 ? extendedClusterSizes : [512, 1024, 4096, 4096, 65536, 65536, 2 ** 21],
  )
  const [backing] = below
  const size =
    backing !== undefined && random.chance(0.5) ? backing.content.length : randomSize(random, clusterSize)
  const dataFileRaw = hasDataFile && backing === undefined && random.chance(0.5)
  const path = join(folder, `${name}.qcow2`)
  const image: MixedImage = {
    ...{ name: `${name}.qcow2`, path, format: 'qcow2', version, clusterSize, extendedL2, encrypted },
    refcountBits: version === 2 ? 16 : random.pick<number>([...refcountWidths, 16, 16]),
    // The stock tools look for a relative name where they run.
    dataFile: hasDataFile ? join(folder, `${name}.data`) : undefined,
    dataFileRaw,
    ...{ bitmaps: new BitmapModel(size), snapshots: [], content: shownOver(backing?.content, size) },
  }
  const lazyRefcounts = version === 3 && random.chance(0.2)
  // Making a key takes the stock tool seconds.
  if (!encrypted && random.chance(0.3)) await createByStock(image, backing, lazyRefcounts)
  else await createByUs(image, backing, lazyRefcounts)
  return image
}

async function createByUs(
  image: MixedImage,
  backing: MixedImage | undefined,
  lazyRefcounts: boolean,
): Promise<void> {
  const { dataFile, dataFileRaw, clusterSize, refcountBits, extendedL2 } = image
  await createImage(image.path, {
    ...{ size: image.content.length, clusterSize, refcountBits, extendedL2, lazyRefcounts },
    compat: image.version === 2 ? '0.10' : '1.1',
    ...(dataFile === undefined ? {} : { dataFile, dataFileRaw }),
    ...(image.encrypted ? { encrypt: { format: 'luks', passphrase, iterTime: 1 } } : {}),
    ...(backing === undefined ? {} : { backingFile: backing.name, backingFormat: backing.format }),
  })
}

async function createByStock(
  image: MixedImage,
  backing: MixedImage | undefined,
  lazyRefcounts: boolean,
): Promise<void> {
  const onOff = (value: boolean): string => (value ? 'on' : 'off')
  const options = [
    `cluster_size=${image.clusterSize}`,
    `compat=${image.version === 2 ? '0.10' : '1.1'}`,
    `refcount_bits=${image.refcountBits}`,
    `extended_l2=${onOff(image.extendedL2)}`,
    `lazy_refcounts=${onOff(lazyRefcounts)}`,
    ...(image.dataFile === undefined
      ? []
      : [`data_file=${image.dataFile}`, `data_file_raw=${onOff(image.dataFileRaw)}`]),
  ]
  // It cannot look at what is encrypted.
  const over = backing === undefined ? [] : ['-u', '-b', backing.name, '-F', backing.format]
  const where = [image.path, String(image.content.length)]
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', options.join(','), ...over, ...where)
}
