import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { openBlockQueue, type QueuedFile } from '../../lib/block-queue.js'
import type { SeededRandom } from '../support/seeded-random.js'
import { cacheModes, type Outcome } from './image-round.js'

const blockSize = 4096
const blocks = 64
const contexts = 6

/** Records by contexts with barriers, bytes beside the queue, reads of both, and flushes: all at once, on a file of its own. */
export async function queueRound(folder: string, random: SeededRandom): Promise<Outcome> {
  const path = join(folder, `queue-${random.integer(2 ** 30)}`)
  const problems: string[] = []
  let requests = 0
  try {
    const file = await openBlockQueue(path, { create: true, cache: random.pick(cacheModes) })
    const counts = await Promise.all(
      Array.from({ length: contexts }, (_, lane) => writeRecords(file, lane, random.fork(), problems)),
    )
    requests = counts.reduce((sum, count) => sum + count, 0)
    await file.close()
  } finally {
    await rm(path, { force: true })
  }
  return { requests, problems }
}

async function writeRecords(
  file: QueuedFile,
  lane: number,
  random: SeededRandom,
  problems: string[],
): Promise<number> {
  const context = file.context()
  const first = lane * 2 * blocks
  const shown = new Int32Array(blocks)
  const count = 60 + random.integer(100)
  const record = (value: number): Uint8Array => new Uint8Array(blockSize).fill(value)
  for (let request = 0; request < count; request++) {
    const block = random.integer(blocks)
    const value = 1 + random.integer(255)
    const choice = random.integer(10)
    if (choice < 4) {
      await context.write(record(value), (first + block) * blockSize)
      shown[block] = value
      if (random.chance(0.5)) context.barrier()
    } else if (choice < 6) await file.write(record(value), (first + blocks + block) * blockSize)
    else if (choice < 9) {
      const seen = await file.read({ offset: (first + block) * blockSize, length: blockSize })
      if (!seen.every((byte) => byte === shown[block]))
        problems.push(`${file.path}: block ${first + block} is another`)
    } else await file.flush()
  }
  return count
}
