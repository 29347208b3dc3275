import { assert } from '../../lib/base/assert.js'
import {
  benchImage,
  type BenchOptions,
  type CacheMode,
  type CacheOptions,
  checkImage,
  convertImage,
  type ConvertOptions,
  type ImageFormat,
  imageInfo,
  mapImage,
  openImage,
} from '../../lib/index.js'

/** What a process of ours does for a row; the answer is what it cost: milliseconds, or MiB where memory is asked for. */
export type Task =
  | { readonly work: 'requests'; readonly path: string; readonly options: BenchOptions }
  | {
      readonly work: 'durable clients'
      readonly path: string
      readonly clients: number
      readonly count: number
      readonly cache: CacheMode | CacheOptions
      readonly overwrite?: boolean
    }
  | {
      readonly work: 'convert'
      readonly source: string
      readonly target: string
      readonly options: ConvertOptions
    }
  | {
      readonly work: 'info' | 'map' | 'check' | 'open'
      readonly path: string
      /** How many times in turn; the cost is the mean. Default once. */
      readonly times?: number
    }
  | { readonly work: 'many images'; readonly paths: readonly string[]; readonly options: BenchOptions }
  | { readonly work: 'memory of requests'; readonly path: string; readonly options: BenchOptions }
  | { readonly work: 'memory of check' | 'memory of open'; readonly path: string }
  | {
      readonly work: 'read latency'
      readonly path: string
      readonly format: ImageFormat
      readonly count: number
    }

const cluster = 65536

/** Each client writes 4 KiB into a cluster of its own, waits until that is durable, and goes on to its next. */
async function durableClients(task: Task & { work: 'durable clients' }): Promise<number> {
  await using image = await openImage(task.path, { format: 'qcow2', cache: task.cache })
  const bytes = new Uint8Array(4096).fill(1)
  let next = 0
  const client = async (): Promise<void> => {
    while (next < task.count) await image.write(bytes, next++ * cluster, { fua: true })
  }
  const started = performance.now()
  await Promise.all(Array.from({ length: task.clients }, client))
  return performance.now() - started
}

/** Of reads of 4 KiB, one after the other, while eight clients write in place and flush: milliseconds that one in a hundred is above. */
async function readLatency(task: Task & { work: 'read latency' }): Promise<number> {
  await using image = await openImage(task.path, { format: task.format, cache: 'none' })
  const bytes = new Uint8Array(4096)
  const written = new Uint8Array(4096).fill(1)
  const half = image.size / 2
  let over = false
  const writer = async (number: number): Promise<void> => {
    for (let index = number; !over; index += 8) {
      await image.write(written, half + ((index * cluster) % half))
      await image.flush()
    }
  }
  const writers = Promise.all(Array.from({ length: 8 }, (_, number) => writer(number)))
  const latencies: number[] = []
  for (let index = 0; index < task.count; index++) {
    const started = performance.now()
    await image.readInto(bytes, (index * cluster) % half)
    latencies.push(performance.now() - started)
  }
  over = true
  await writers
  latencies.sort((left, right) => left - right)
  return latencies[Math.floor(latencies.length * 0.99)] ?? Number.NaN
}

async function openAndClose(path: string): Promise<void> {
  await using image = await openImage(path, { readOnly: true, backing: 'allow' })
  assert(image.size > 0, 'a disk has bytes')
}

async function timed(work: () => Promise<unknown>, times = 1): Promise<number> {
  const started = performance.now()
  for (let run = 0; run < times; run++) await work()
  return (performance.now() - started) / times
}

const peakMiB = (): number => process.resourceUsage().maxRSS / 1024

/** How much memory grows over that of the process before. */
async function growth(work: () => Promise<unknown>): Promise<number> {
  const before = peakMiB()
  await work()
  return peakMiB() - before
}

async function perform(task: Task): Promise<number> {
  switch (task.work) {
    case 'requests':
      return (await benchImage(task.path, task.options)).milliseconds
    case 'durable clients':
      return await durableClients(task)
    case 'convert':
      return await timed(() => convertImage(task.source, task.target, task.options))
    case 'info':
      return await timed(() => imageInfo(task.path), task.times)
    case 'map':
      return await timed(async () => {
        for await (const { length } of mapImage(task.path)) assert(length > 0, 'an extent has bytes')
      }, task.times)
    case 'check':
      return await timed(() => checkImage(task.path), task.times)
    case 'open':
      return await timed(() => openAndClose(task.path), task.times)
    case 'many images':
      return await timed(() => Promise.all(task.paths.map((path) => benchImage(path, task.options))))
    case 'read latency':
      return await readLatency(task)
    case 'memory of requests':
      return await growth(() => benchImage(task.path, task.options))
    case 'memory of open':
      return await growth(() => openAndClose(task.path))
    case 'memory of check':
      return await growth(() => checkImage(task.path))
  }
}

process.on('message', (task: Task) => {
  perform(task).then(
    (cost) => process.send?.({ cost }),
    (error: unknown) => process.send?.({ error: String(error) }),
  )
})
