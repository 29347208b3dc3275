import { accessSync } from 'node:fs'
import { noSection, section } from '../../../lib/base/units.js'
import { alignedBytes } from '../../../lib/native/aligned-memory.js'
import { BlockQueue } from '../../../lib/queue/block-queue.js'

/** Work whose system calls are known beforehand. Usage: PATH DIRECT WORK [AIO, or 'inline' for inline writes]. What lies between the two marks is counted. */
const [path = '', direct = '', work = '', aio = 'threads'] = process.argv.slice(2)
const unit = 4096

function mark(place: 'begin' | 'end'): void {
  try {
    accessSync(`/count-calls-${place}`)
  } catch {
    return
  }
}

const queue = await BlockQueue.open(path, {
  readOnly: false,
  direct: direct === 'true',
  syncPolicy: work === 'every-write' ? 'write' : work === 'never' ? 'never' : 'flush',
  create: true,
  ...(aio === 'io_uring' ? { aio } : {}),
  inlineWrites: aio === 'inline',
  idleMs: 0,
})
queue.mayReadAhead()
await queue.truncate(1024 * unit)
const bytes = new Uint8Array(unit).fill(1)

mark('begin')
if (work === 'data') {
  for (let index = 0; index < 10; index++) await queue.write(bytes, index * unit)
  await queue.flush()
} else if (work === 'flushes') {
  await Promise.all(Array.from({ length: 32 }, (_, index) => queue.write(bytes, 2 * index * unit)))
  await Promise.all(Array.from({ length: 32 }, () => queue.flush()))
} else if (work === 'reads') {
  const memory = Array.from({ length: 32 }, () => alignedBytes(unit))
  await Promise.all(memory.map((bytes, index) => queue.read(bytes, 2 * index * unit)))
} else if (work === 'neighbours') {
  const long = new Uint8Array(32 * unit)
  await Promise.all([
    ...Array.from({ length: 32 }, (_, index) => queue.write(bytes, index * unit)),
    queue.write(bytes, 40 * unit),
    queue.write(long, 64 * unit),
    queue.write(long, 96 * unit),
  ])
  await Promise.all(Array.from({ length: 32 }, (_, index) => queue.read(new Uint8Array(unit), index * unit)))
} else {
  // Three sections: 8 neighbours and 2 that stand alone, then 1, then 1.
  for (let index = 0; index < 8; index++) queue.enqueue(bytes, index * unit, noSection)
  queue.enqueue(bytes, 100 * unit, noSection)
  const first = queue.enqueue(bytes, 200 * unit, noSection)
  const second = queue.enqueue(bytes, 0, section(first + 1))
  queue.enqueue(bytes, 0, section(second + 1))
  await queue.flush()
}
mark('end')
await queue.close()
