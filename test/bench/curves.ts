import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createImage, openImage } from '../../lib/index.js'
import { type OurProcess, runAlone } from './our-process.js'
import { type Bench, spread } from './row.js'
import { idleMiB, peakMiB, run, stockBench, timed } from './stock.js'

/** How a cost grows. Each point is the median of three measurements of each line, in turns. */
export type Curve = {
  readonly work: string
  /** What grows. */
  readonly axis: string
  readonly unit: string
  readonly points: readonly CurvePoint[]
}

export type CurvePoint = {
  readonly at: number
  /** As a reader would say `at`. */
  readonly label: string
  readonly ours: number
  readonly stock: number
}

type Measured = { readonly ours: () => Promise<number>; readonly stock: () => Promise<number> }

type Plan = {
  readonly work: string
  readonly axis: string
  readonly unit: string
  readonly places: readonly (readonly [at: number, label: string])[]
  readonly prepare: (bench: Bench, at: number) => Promise<Measured>
}

const cluster = 65536
const repetitions = 3

async function empty(path: string, ...words: string[]): Promise<string> {
  await rm(path, { force: true })
  await run('qemu-img', 'create', '-q', '-f', 'qcow2', path, ...words)
  return path
}

/** The same number of requests for each of so many images at once; the stock tool has a process for each. */
async function manyImages(ours: OurProcess, { folder, share }: Bench, images: number): Promise<Measured> {
  const count = Math.max(500, Math.round(24_000 * share))
  const words = ['-w', '-c', String(count), '-d', '8', '-s', '4096', '-t', 'writeback']
  const paths: string[] = []
  for (let index = 0; index < images; index++) {
    const path = await empty(join(folder, `many-${index}.qcow2`), '64M')
    await stockBench(path, '-w', '-c', '16384', '-d', '32', '-t', 'writeback')
    paths.push(path)
  }
  const perImage = (milliseconds: number): number => (milliseconds * 1000) / (count * images)
  const options = {
    format: 'qcow2',
    cache: 'writeback',
    write: true,
    count,
    depth: 8,
    bufferSize: 4096,
  } as const
  return {
    ours: async () => perImage(await ours.run({ work: 'many images', paths, options })),
    stock: async () => {
      const started = performance.now()
      await Promise.all(paths.map((path) => stockBench(path, ...words)))
      return perImage(performance.now() - started)
    },
  }
}

async function opening(ours: OurProcess, { folder }: Bench, size: number): Promise<Measured> {
  const path = await empty(join(folder, 'size.qcow2'), String(size))
  return {
    ours: () => ours.run({ work: 'open', path }),
    stock: () => timed('qemu-img', 'info', path),
  }
}

async function openingMemory({ folder }: Bench, size: number): Promise<Measured> {
  const path = await empty(join(folder, 'size.qcow2'), String(size))
  const idle = await idleMiB()
  return {
    ours: () => runAlone({ work: 'memory of open', path }),
    stock: async () => (await peakMiB('qemu-img', 'info', path)) - idle,
  }
}

async function checking(ours: OurProcess, { folder }: Bench, clusters: number): Promise<Measured> {
  const path = await empty(
    join(folder, 'check.qcow2'),
    '-o',
    'preallocation=metadata',
    String(clusters * cluster),
  )
  return {
    ours: () => ours.run({ work: 'check', path }),
    stock: () => timed('qemu-img', 'check', '-q', path),
  }
}

/** A chain of so many images, each of which has a cluster of its own. */
async function chain(ours: OurProcess, { folder }: Bench, images: number): Promise<Measured> {
  const nameOf = (index: number): string => join(folder, `layer-${images}-${index}.qcow2`)
  await createImage(nameOf(0), { size: 64 * 2 ** 20 })
  await using disk = await openImage(nameOf(0))
  for (let index = 1; index < images; index++) {
    await disk.write(new Uint8Array(cluster).fill(index), (index * cluster) % disk.size)
    await disk.createOverlay(nameOf(index))
  }
  const path = nameOf(images - 1)
  return {
    ours: () => ours.run({ work: 'open', path }),
    stock: () => timed('qemu-io', '-r', '-f', 'qcow2', '-c', 'length', path),
  }
}

const powers = (least: number, most: number, step: number): number[] =>
  Array.from({ length: Math.floor((most - least) / step) + 1 }, (_, index) => 2 ** (least + index * step))

const sizes = powers(30, 46, 4).map((size): [number, string] => [
  size,
  size < 2 ** 40 ? `${size / 2 ** 30} GiB` : `${size / 2 ** 40} TiB`,
])

function plans(ours: OurProcess): Plan[] {
  return [
    {
      work: 'a cached 4k overwrite, 8 deep in each image; all images at once, QEMU with a process for each',
      axis: 'images open',
      unit: 'us',
      places: [1, 4, 16].map((images) => [images, String(images)]),
      prepare: (bench, images) => manyImages(ours, bench, images),
    },
    {
      work: 'opening and closing an empty image; QEMU as the process `info`',
      axis: 'size of the disk',
      unit: 'ms',
      places: sizes,
      prepare: (bench, size) => opening(ours, bench, size),
    },
    {
      work: 'peak memory of that, beyond an idle process',
      axis: 'size of the disk',
      unit: 'MiB',
      places: sizes,
      prepare: openingMemory,
    },
    {
      work: 'opening a chain; QEMU as the process `qemu-io`',
      axis: 'images in the chain',
      unit: 'ms',
      places: [1, 10, 50, 200].map((images) => [images, String(images)]),
      prepare: (bench, images) => chain(ours, bench, images),
    },
    {
      work: 'check; QEMU as a process',
      axis: 'clusters that are referred to',
      unit: 'ms',
      places: powers(14, 22, 2).map((clusters) => [clusters, `${clusters / 1024} Ki`]),
      prepare: (bench, clusters) => checking(ours, bench, clusters),
    },
  ]
}

/** @param newFolder  runs work in a folder of its own */
export async function measureCurves(
  ours: OurProcess,
  share: number,
  newFolder: (work: (folder: string) => Promise<CurvePoint>) => Promise<CurvePoint>,
): Promise<Curve[]> {
  const curves: Curve[] = []
  for (const { work, axis, unit, places, prepare } of plans(ours)) {
    const points: CurvePoint[] = []
    for (const [at, label] of places) {
      points.push(
        await newFolder(async (folder) => {
          const measured = await prepare({ folder, share }, at)
          await measured.ours()
          const costs = { ours: [] as number[], stock: [] as number[] }
          for (let index = 0; index < repetitions; index++) {
            costs.stock.push(await measured.stock())
            costs.ours.push(await measured.ours())
          }
          return { at, label, ours: spread(costs.ours).median, stock: spread(costs.stock).median }
        }),
      )
    }
    curves.push({ work, axis, unit, points })
  }
  return curves
}
