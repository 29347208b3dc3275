import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { checkImage, createImage, openImage } from '../../lib/index.js'
import { SeededRandom } from '../support/seeded-random.js'
import { cacheModes, type Outcome } from './image-round.js'

type Orders = { readonly stress: string; readonly seed: number }

/** Turns of the event loop. */
const longest = 400

/** Threads that are ended in the middle of their work on an image of their own: nothing worse than leaks is left. */
export async function threadRound(folder: string, random: SeededRandom): Promise<Outcome> {
  const problems: string[] = []
  const paths = Array.from({ length: 2 }, (_, index) =>
    join(folder, `thread-${random.integer(2 ** 30)}-${index}`),
  )
  for (const path of paths)
    await createImage(path, { format: 'qcow2', size: 4 * 1024 * 1024, clusterSize: 4096 })
  const workers = paths.map((path) => {
    const orders: Orders = { stress: path, seed: random.integer(2 ** 30) }
    return new Worker(fileURLToPath(import.meta.url), { workerData: orders })
  })
  for (const worker of workers) worker.on('error', (error) => problems.push(String(error)))
  await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('message', resolve))))
  for (let turns = random.integer(longest); turns > 0; turns--)
    await new Promise((resolve) => setImmediate(resolve))
  await Promise.all(workers.map((worker) => worker.terminate()))
  for (const path of paths) {
    const { corruptions } = (await checkImage(path, { format: 'qcow2' })) as { corruptions: number }
    if (corruptions > 0) problems.push(`${path}: ${corruptions} corruptions after a thread was ended`)
    await rm(path, { force: true })
  }
  return { requests: paths.length, problems }
}

async function workForEver({ stress, seed }: Orders): Promise<void> {
  const random = new SeededRandom(seed)
  const image = await openImage(stress, {
    format: 'qcow2',
    readOnly: false,
    cache: random.pick(cacheModes.slice(0, 4)),
  })
  const { parentPort } = await import('node:worker_threads')
  parentPort?.postMessage('working')
  const write = async (): Promise<never> => {
    for (;;) {
      const length = 1 + random.integer(20_000)
      await image.write(random.bytes(length), random.integer(image.size - length))
      if (random.chance(0.1)) await image.flush()
    }
  }
  await Promise.all(Array.from({ length: 8 }, () => write()))
}

const isWorker = !isMainThread && (workerData as Partial<Orders> | null)?.stress !== undefined
if (isWorker) void workForEver(workerData as Orders)
