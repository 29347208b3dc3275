import { Qcow2Error } from '../../../lib/base/errors.js'
import { noSection } from '../../../lib/base/units.js'
import { BlockQueue } from '../../../lib/queue/block-queue.js'

/** Run with a limit of 64 KiB on the size of files. Usage: PATH. Prints what becomes of requests beyond it. */
const [path = ''] = process.argv.slice(2)
const queue = await BlockQueue.open(path, {
  readOnly: false,
  direct: false,
  syncPolicy: 'flush',
  create: true,
  idleMs: 0,
})
const beyond = 1024 ** 2
const bytes = new Uint8Array(4096).fill(5)

async function tell(what: string, work: Promise<unknown>): Promise<void> {
  try {
    await work
    process.stdout.write(`${what}: ok\n`)
  } catch (error) {
    if (!(error instanceof Qcow2Error)) throw error
    const cause = error.cause instanceof Qcow2Error ? ` cause ${error.cause.code}` : ''
    process.stdout.write(`${what}: ${error.code} ${error.message}${cause}\n`)
  }
}

await tell('write', queue.write(bytes, beyond))
await tell('flush of data', queue.flush())
queue.enqueue(bytes, beyond, noSection)
await tell('flush', queue.flush())
const seen = new Uint8Array(1)
await queue.readQueued(seen, beyond)
process.stdout.write(`read of the node: ${seen[0]}\n`)
await tell('write', queue.write(bytes, 0))
await tell('flush', queue.flush())
await tell('close', queue.close())
await tell('close again', queue.close())
