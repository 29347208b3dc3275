import { closeSync, openSync } from 'node:fs'
import { addon } from '../../../lib/native/addon.js'
import { BlockQueue, type BlockQueueOptions } from '../../../lib/queue/block-queue.js'

/** Run with a low limit on open files. Usage: PATH. Asks for an io_uring where the kernel refuses it, then for none, then where it does not; prints what becomes of all. */
const [path = ''] = process.argv.slice(2)
const options: BlockQueueOptions = {
  readOnly: false,
  direct: true,
  syncPolicy: 'flush',
  create: true,
  idleMs: 0,
}

/** As many as there may be. */
function takeAllDescriptors(): number[] {
  const taken: number[] = []
  for (;;) {
    try {
      taken.push(openSync('/dev/null', 'r'))
    } catch {
      return taken
    }
  }
}

addon()
const taken = takeAllDescriptors()
try {
  await BlockQueue.open(path, { ...options, aio: 'io_uring' })
} catch (error) {
  const { code, message } = error as { code?: string; message: string }
  process.stdout.write(`${code}: ${message}\n`)
}
for (const descriptor of taken) closeSync(descriptor)
const queue = await BlockQueue.open(`${path}-2`, options)
const bytes = new Uint8Array(4096).fill(7)
await queue.write(bytes, 4096)
const back = new Uint8Array(4096)
await queue.read(back, 4096)
process.stdout.write(`${queue.aio} ${back[4095]}\n`)
await queue.close()

// Now there are descriptors for one.
const later = await BlockQueue.open(`${path}-3`, { ...options, aio: 'io_uring' }).catch(() => undefined)
process.stdout.write(`${later?.aio ?? 'refused'}\n`)
await later?.close()
