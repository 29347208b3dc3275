import { accessSync } from 'node:fs'
import { createImage, openImage } from '../../lib/index.js'

/**
 * The workloads of the figures that the project promises, run in a process of their own under strace, or measured by
 * scripts/figures.mjs. Usage: node workloads.js NAME PATH
 */

/** Shows up in a system call trace: what lies between the two is counted. */
function mark(place: 'begin' | 'end'): void {
  try {
    accessSync(`/figures-${place}`)
  } catch {
    return
  }
}

const cluster = 65536

/** Run `work` for 0 to count - 1, at most `depth` at a time. */
async function inParallel(
  count: number,
  depth: number,
  work: (index: number) => Promise<void>,
): Promise<void> {
  let next = 0
  const run = async (): Promise<void> => {
    while (next < count) await work(next++)
  }
  await Promise.all(Array.from({ length: depth }, run))
}

async function sequentialAllocation(path: string): Promise<void> {
  await createImage(path, { size: 1024 ** 3 })
  await using image = await openImage(path, { cache: 'none' })
  const bytes = new Uint8Array(4096).fill(1)
  mark('begin')
  await inParallel(1000, 32, (index) => image.write(bytes, index * cluster))
  await image.flush()
  mark('end')
}

async function concurrentFlushes(path: string): Promise<void> {
  await createImage(path, { size: 1024 ** 3 })
  await using image = await openImage(path, { cache: 'none' })
  const bytes = new Uint8Array(4096).fill(1)
  await inParallel(32, 32, (index) => image.write(bytes, index * cluster))
  await image.flush()
  mark('begin')
  await inParallel(32, 32, (index) => image.write(bytes, index * cluster))
  await Promise.all(Array.from({ length: 32 }, () => image.flush()))
  mark('end')
}

async function flushingWriters(path: string): Promise<void> {
  await createImage(path, { size: 1024 ** 3 })
  await using image = await openImage(path, { cache: 'none' })
  const bytes = new Uint8Array(4096).fill(1)
  mark('begin')
  await inParallel(1000, 64, async (index) => {
    await image.write(bytes, index * cluster)
    await image.flush()
  })
  mark('end')
}

/** Q1b and Q3: one writer, each write durable before the next. */
async function durableWriter(path: string): Promise<void> {
  await createImage(path, { size: 1024 ** 3 })
  await using image = await openImage(path, { cache: 'none' })
  const bytes = new Uint8Array(4096).fill(1)
  // The table is there, as in the figure that it is compared with.
  await image.write(bytes, 0)
  await image.flush()
  mark('begin')
  await inParallel(1000, 1, async (index) => {
    await image.write(bytes, (index + 1) * cluster)
    await image.flush()
  })
  mark('end')
}

/** Q2: 200 times a new cluster here and one less there, and nobody asks for a flush until the end. */
async function allocateAndDiscard(path: string): Promise<void> {
  await createImage(path, { size: 1024 ** 3 })
  await using image = await openImage(path, { cache: 'none' })
  const bytes = new Uint8Array(cluster).fill(1)
  await inParallel(200, 1, (index) => image.write(bytes, (5000 + index) * cluster))
  await image.write(bytes, 0)
  await image.flush()
  mark('begin')
  await inParallel(200, 1, async (index) => {
    await image.write(bytes.subarray(0, 4096), (index + 1) * cluster)
    await image.discard({ offset: (5000 + index) * cluster, length: cluster })
  })
  await image.flush()
  mark('end')
}

const residentMiB = (): number => Math.round(process.memoryUsage.rss() / 1024 ** 2)
const peakMiB = (): number => Math.round(process.resourceUsage().maxRSS / 1024)

async function memory(path: string): Promise<void> {
  await createImage(path, { size: 1024 ** 4, overwrite: true })
  const idle = residentMiB()
  const before = peakMiB()
  await using image = await openImage(path, {})
  const bytes = new Uint8Array(4096).fill(1)
  let state = 12345
  const random = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
  const begun = performance.now()
  await inParallel(100_000, 32, () => image.write(bytes, Math.floor(random() * 2 ** 28) * 4096))
  const seconds = (performance.now() - begun) / 1000
  const peak = peakMiB()
  process.stdout.write(
    `${JSON.stringify({ idle, before, peak, growth: peak - Math.max(idle, 0), seconds })}\n`,
  )
}

/** Writers that each need a table of their own, while syncs take ten seconds (the tracer sees to that): Q7. */
async function stalledDevice(path: string): Promise<void> {
  const clusterSize = 4096
  const tableCoverage = (clusterSize / 8) * clusterSize
  await createImage(path, { size: 8 * 1024 ** 3, clusterSize })
  const image = await openImage(path, {})
  const bytes = new Uint8Array(4096).fill(1)
  const seconds = (count: number): Promise<void> =>
    new Promise((resolve) => void setTimeout(resolve, count * 1000))
  let written = 0
  for (let index = 0; index < 4000; index++) {
    void image.write(bytes, index * tableCoverage).then(() => written++)
  }
  await seconds(4)
  const early = { written, memory: residentMiB() }
  let reads = 0
  for (const end = performance.now() + 4000; performance.now() < end; reads++) {
    await image.read({ offset: 0, length: 4096 })
    await new Promise((resolve) => setImmediate(resolve))
  }
  const { queuedBytesPeak, syncsIssued } = image.stats()
  const growth = residentMiB() - early.memory
  const meanwhile = written - early.written
  process.stdout.write(
    `${JSON.stringify({ written, meanwhile, reads, growth, queuedBytesPeak, syncsIssued })}\n`,
  )
  // The rest would take minutes.
  process.exit(0)
}

async function opening(path: string): Promise<void> {
  // Whatever is loaded on first use is not the image's.
  await createImage(`${path}.warm`, { size: 1024 ** 2, overwrite: true })
  await (await openImage(`${path}.warm`, {})).close()
  const idle = residentMiB()
  const begun = performance.now()
  await using image = await openImage(path, {})
  const milliseconds = performance.now() - begun
  const growth = residentMiB() - idle
  process.stdout.write(`${JSON.stringify({ size: image.size, milliseconds, growth })}\n`)
}

const workloads: Record<string, (path: string) => Promise<void>> = {
  sequentialAllocation,
  concurrentFlushes,
  flushingWriters,
  durableWriter,
  allocateAndDiscard,
  memory,
  stalledDevice,
  opening,
}

const [name, path] = process.argv.slice(2)
const workload = workloads[name ?? '']
if (workload === undefined || path === undefined)
  throw new Error(`usage: workloads.js ${Object.keys(workloads).join('|')} PATH`)
await workload(path)
