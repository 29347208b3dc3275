import { noSection, section } from '../../../lib/base/units.js'
import { BlockQueue } from '../../../lib/queue/block-queue.js'

/**
 * Ends in some way while requests are in flight and metadata waits. Usage: PATH exit|throw|natural|kept DIRECT
 * 'natural': nothing is called at the end, the queue is left alone. 'kept': as that, but nothing ever writes its metadata.
 */
const [path = '', way = '', direct = 'false'] = process.argv.slice(2)

const queue = await BlockQueue.open(path, {
  readOnly: false,
  direct: direct === 'true',
  syncPolicy: 'flush',
  create: true,
  idleMs: way === 'natural' ? 100 : 0,
})
const unit = 4096
const fill = (value: number): Uint8Array => new Uint8Array(unit).fill(value)

// Three sections, one behind the other.
const first = queue.enqueue(fill(1), 0, noSection)
const second = queue.enqueue(fill(2), unit, section(first + 1))
queue.enqueue(fill(3), 2 * unit, section(second + 1))

if (way === 'exit' || way === 'throw') {
  const requests: Promise<void>[] = []
  for (let i = 0; i < 200; i++) requests.push(queue.write(fill(9), (16 + i) * unit))
  for (let i = 0; i < 100; i++) requests.push(queue.readQueued(new Uint8Array(unit), i * unit))
  requests.push(queue.flush())
  void Promise.all(requests)
  // Once with the batch still to go over, once with it under way.
  await new Promise<void>((resolve) => setImmediate(resolve))
  for (let i = 0; i < 50; i++) void queue.write(fill(8), (400 + i) * unit)
  if (way === 'throw') throw new Error('thrown on purpose')
  process.exit(7)
}
