import { parentPort, workerData } from 'node:worker_threads'
import { openBlockQueue } from '../../lib/block-queue.js'
import { type CacheOptions, convertImage, openImage } from '../../lib/index.js'
import { SeededRandom } from '../support/seeded-random.js'

/** What a thread is busy with when it is ended. */
export type Task = 'opening' | 'requests' | 'durable writes' | 'unpacking' | 'queue' | 'converting'

export type Orders = {
  readonly task: Task
  /** A qcow2 image that is this thread's own. */
  readonly path: string
  /** A compressed qcow2 image that many read. */
  readonly source: string
  readonly cache: CacheOptions
  readonly seed: number
  /** End by oneself: process.exit() after so many requests. */
  readonly exitAfter: number | undefined
}

const most = 8
const blockSize = 4096
const { task, path, source, cache, seed, exitAfter } = workerData as Orders
const random = new SeededRandom(seed)

let requests = 0

/** One more request is over. The thread is in the middle of its work from the third on. */
function count(): void {
  requests++
  if (requests === 3) parentPort?.postMessage('busy')
  if (requests === exitAfter) process.exit()
}

/** The same thing for ever, as a rule several at a time. */
async function forEver(step: () => Promise<unknown>, lanes = most): Promise<never> {
  const lane = async (): Promise<never> => {
    for (;;) {
      await step()
      count()
    }
  }
  await Promise.all(Array.from({ length: lanes }, () => lane()))
  throw new Error('nobody ended this thread')
}

const work: Readonly<Record<Task, () => Promise<never>>> = {
  opening: () =>
    forEver(async () => {
      const image = await openImage(source, { readOnly: true })
      await image.read({ offset: 0, length: 512 })
      await image.close()
    }),

  requests: async () => {
    const image = await openImage(path, { format: 'qcow2', cache })
    return forEver(() => {
      const length = 1 + random.integer(70_000)
      const offset = random.integer(image.size - length)
      if (random.chance(0.4)) return image.read({ offset, length })
      if (random.chance(0.1)) return image.flush()
      if (random.chance(0.1)) return image.discard({ offset, length })
      return image.write(random.bytes(length), offset)
    })
  },

  'durable writes': async () => {
    const image = await openImage(path, { format: 'qcow2', cache })
    // Of a lone one a thread that writes asks the queue for the sync.
    return forEver(() => {
      const length = 1 + random.integer(9000)
      return image.write(random.bytes(length), random.integer(image.size - length), { fua: true })
    }, 1)
  },

  unpacking: async () => {
    const image = await openImage(source, { readOnly: true })
    return forEver(() =>
      image.read({ offset: random.integer(image.size - image.clusterSize), length: image.clusterSize }),
    )
  },

  queue: async () => {
    const file = await openBlockQueue(`${path}.journal`, { create: true, cache })
    const context = file.context()
    return forEver(async () => {
      const offset = random.integer(1024) * blockSize
      await context.write(random.bytes(blockSize), offset)
      context.barrier()
      await file.write(random.bytes(blockSize), (1024 + random.integer(1024)) * blockSize)
      if (random.chance(0.2)) await file.flush()
      await file.read({ offset, length: blockSize })
    })
  },

  converting: () => {
    let copies = 0
    return forEver(() =>
      convertImage(source, `${path}.${copies++}`, { format: 'qcow2', compress: random.chance(0.5) }),
    )
  },
}

await work[task]()
