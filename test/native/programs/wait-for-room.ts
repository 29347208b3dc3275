import { openBlockQueue } from '../../../lib/block-queue.js'
import { createImage, openImage } from '../../../lib/index.js'

/**
 * Waits for room in queues that nothing but the waiting refers to; needs --expose-gc. Usage: FOLDER
 * Prints how many of those who waited have come to their end.
 */
const [folder = ''] = process.argv.slice(2)
const collect = (globalThis as { gc?: () => void }).gc
if (collect === undefined) throw new Error('run me with --expose-gc')

/** Few bytes of room: nearly every write has to wait. */
const cache = { queueBytes: 64 * 1024 }
let ended = 0

async function useQueue(path: string): Promise<void> {
  const queue = await openBlockQueue(path, { create: true, cache })
  const context = queue.context()
  for (let step = 0; step < 40; step++) {
    await context.write(new Uint8Array(32 * 1024).fill(step), 0)
    context.barrier()
  }
  await queue.close()
  ended++
}

async function useImage(path: string): Promise<void> {
  await createImage(path, { size: 2 ** 30, clusterSize: 4096 })
  const image = await openImage(path, { cache })
  // Each into a table of its own.
  const writes = Array.from({ length: 200 }, (_, index) =>
    image.write(new Uint8Array(512).fill(1), index * 2 ** 21),
  )
  await Promise.all(writes)
  await image.close()
  ended++
}

for (let index = 0; index < 5; index++) {
  void useQueue(`${folder}/${index}.queue`)
  void useImage(`${folder}/${index}.image`)
}
const collecting = setInterval(collect, 1)
collecting.unref()
process.on('exit', () => process.stdout.write(String(ended)))
