import { constants } from 'node:fs'
import { mkdir, readdir, readFile, readlink, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { type CacheMode, checkImage, convertImage, createImage, openImage } from '../../lib/index.js'
import { hasRing } from '../support/io-uring.js'
import type { SeededRandom } from '../support/seeded-random.js'
import { cacheModes } from '../stress/image-round.js'
import type { Orders, Task } from './guest.js'

export const tasks: readonly Task[] = [
  'opening',
  'requests',
  'durable writes',
  'unpacking',
  'queue',
  'converting',
]

const bypassesPageCache: readonly CacheMode[] = ['none', 'directsync', 'unsafe-direct']

const guest = new URL('./guest.js', import.meta.url)
const mebibyte = 2 ** 20
/** Turns of the event loop between a thread's being busy and its end. */
const mostTurns = 200
/** The bits of a descriptor's flags that say what it is open for. */
const accessMode = 3

/** Make the image that all threads read: compressed, so that threads of the addon unpack it. @returns its path */
export async function makeSource(folder: string): Promise<string> {
  const plain = join(folder, 'plain.qcow2')
  const path = join(folder, 'source.qcow2')
  await createImage(plain, { size: 4 * mebibyte, clusterSize: 16384 })
  const image = await openImage(plain)
  const text = new TextEncoder().encode('what is packed well is unpacked often; '.repeat(400))
  for (let offset = 0; offset < image.size - text.length; offset += 20_000) await image.write(text, offset)
  await image.close()
  await convertImage(plain, path, { format: 'qcow2', compress: true, clusterSize: 16384 })
  return path
}

export type TerminatedThreads = { readonly threads: number; readonly problems: readonly string[] }

/** Start one to three threads, and end all of them: while they load, amid their requests, or by their own process.exit(). */
export async function terminateRound(
  folder: string,
  source: string,
  random: SeededRandom,
  chosen: { readonly task?: Task; readonly threads?: number } = {},
): Promise<TerminatedThreads> {
  const here = join(folder, `round-${random.integer(2 ** 30)}`)
  await mkdir(here)
  const problems: string[] = []
  const { task, threads = 1 + random.integer(3) } = chosen
  const before = await openFiles(source)
  const paths = await Promise.all(
    Array.from({ length: threads }, async (_, index) => {
      const path = join(here, `${index}.qcow2`)
      await createImage(path, { size: 4 * mebibyte, clusterSize: 4096 })
      await endOne(path, source, random.fork(), task, problems)
      return path
    }),
  )
  const left = new Map([...(await openFiles(source))].filter(([number]) => !before.has(number)))
  if (left.size > 0) problems.push(`still open: ${[...left.values()].join(', ')}`)
  for (const path of paths) {
    const { corruptions } = (await checkImage(path, { format: 'qcow2' })) as { corruptions: number }
    if (corruptions > 0) problems.push(`${path}: ${corruptions} corruptions`)
  }
  await rm(here, { recursive: true, force: true })
  return { threads, problems }
}

async function endOne(
  path: string,
  source: string,
  random: SeededRandom,
  task: Task | undefined,
  problems: string[],
): Promise<void> {
  const [whileLoading, byItself] = [random.chance(0.2), random.chance(0.2)]
  const mode = random.pick(cacheModes)
  const usesRing = hasRing && bypassesPageCache.includes(mode) && random.chance(0.7)
  const orders: Orders = {
    task: task ?? random.pick(tasks),
    path,
    source,
    cache: usesRing ? { mode, aio: 'io_uring' } : { mode },
    seed: random.integer(2 ** 30),
    exitAfter: byItself ? 1 + random.integer(40) : undefined,
  }
  const worker = new Worker(guest, { workerData: orders })
  worker.on('error', (error) => problems.push(`${orders.task}: ${String(error)}`))
  const ended = new Promise((resolve) => worker.once('exit', resolve))
  if (!whileLoading) {
    await Promise.race([ended, new Promise((resolve) => worker.once('message', resolve))])
  }
  for (let turns = random.integer(mostTurns); turns > 0; turns--) {
    await new Promise((resolve) => setImmediate(resolve))
  }
  await worker.terminate()
}

/**
 * What the addon has open in this process: the source, an io_uring, and what is open for both reading and writing. Elsewhere than on Linux nobody lists it.
 *
 * Everything else is Node's. A descriptor that `open` of node:fs/promises is just making is lost when its thread ends (seen with 20, 22 and
 * 24); by it we sync folders and whole files, and make empty ones.
 */
async function openFiles(source: string): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>()
  if (process.platform !== 'linux') return found
  for (const number of await readdir('/proc/self/fd')) {
    // One of them was that of the listing itself.
    const target = await readlink(`/proc/self/fd/${number}`).catch(() => '')
    const about = await readFile(`/proc/self/fdinfo/${number}`, 'utf8').catch(() => '')
    const flags = Number.parseInt(/^flags:\s*([0-7]+)$/m.exec(about)?.[1] ?? '0', 8)
    const isForBoth = target.startsWith('/') && (flags & accessMode) === constants.O_RDWR
    if (isForBoth || target === source || target === 'anon_inode:[io_uring]') found.set(number, target)
  }
  return found
}
