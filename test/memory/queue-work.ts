import { readFile, rm, writeFile } from 'node:fs/promises'
import { noSection, section, type Section } from '../../lib/base/units.js'
import { BlockQueue } from '../../lib/queue/block-queue.js'
import { Attempts, closedUnasked, descriptorsOf, type Outcome } from './attempts.js'
import type { FailingMemory } from './failing-memory.js'

const unit = 4096
const dataAt = 16 * unit
const fill = (value: number, length = unit): Uint8Array => new Uint8Array(length).fill(value)

/** All that can be asked of a file and its queue, once each, and several at a time where that matters. */
export async function queueWork(
  memory: FailingMemory,
  path: string,
  fault: {
    readonly n: number
    readonly forEver: boolean
    readonly direct: boolean
    readonly record: boolean
  },
): Promise<Outcome> {
  await rm(path, { force: true })
  await writeFile(path, fill(0, 64 * unit))
  const { direct, record } = fault
  memory.failAt(fault.n, fault)
  const attempts = new Attempts()
  const options = { readOnly: false, direct, record, syncPolicy: 'flush', idleMs: 0 } as const
  const opened = await attempts.result('open', () => BlockQueue.open(path, options))
  if (opened !== undefined) await useQueue(opened.value, path, attempts)
  const { failed } = memory.relent()
  const { problems } = attempts
  if (opened === undefined) await closedUnasked(path)
  if (descriptorsOf(path) > 0) problems.push('a descriptor is left')
  return { problems, failed }
}

async function useQueue(queue: BlockQueue, path: string, attempts: Attempts): Promise<void> {
  const { problems } = attempts
  await attempts.succeeds('lock', () => queue.lock([100, 101], [200]))

  // Three versions of the world, one behind the other, with a read of them, and data beside them.
  const nodes: boolean[] = []
  let after: Section = noSection
  for (let i = 0; i < 3; i++) {
    const placed = await attempts.result('enqueue', () => queue.enqueue(fill(i + 1), i * unit, after))
    nodes.push(placed !== undefined)
    if (placed !== undefined) after = section(placed.value + 1)
  }
  const seen = fill(9, 3 * unit)
  const read = await attempts.succeeds('readQueued', () => queue.readQueued(seen, 0))
  if (read && nodes.some((isQueued, i) => seen[i * unit] !== (isQueued ? i + 1 : 0))) {
    problems.push('a read does not see what is queued')
  }
  const writes = await Promise.all([
    attempts.succeeds('write', () => queue.write(fill(7, 2 * unit), dataAt)),
    // With O_DIRECT these two wait for one another.
    attempts.succeeds('write', () => queue.write(fill(8, 100), dataAt + 2 * unit)),
    attempts.succeeds('write', () => queue.write(fill(9, 100), dataAt + 2 * unit + 200)),
    attempts.succeeds('writeZeroes', () => queue.writeZeroes(40 * unit, unit, { unmap: false })),
    attempts.succeeds('writeZeroes', () => queue.writeZeroes(41 * unit, unit, { unmap: true })),
    attempts.succeeds('punch', () => queue.punch(42 * unit, unit)),
    attempts.succeeds('allocate', () => queue.allocate(70 * unit, 100)),
    attempts.succeeds('read', () => queue.read(fill(0, 300), dataAt + 1)),
    attempts.succeeds('extent', () => queue.extent(0)),
  ])
  await attempts.succeeds('truncate', () => queue.truncate(80 * unit + 7))

  const flushes = await Promise.all([
    attempts.succeeds('flush', () => queue.flush()),
    attempts.succeeds('durable', () => queue.durable(section(1))),
    attempts.succeeds('flush', () => queue.flush()),
  ])
  const bytes = await readFile(path)
  const isThere = (offset: number, value: number): boolean => bytes[offset] === value
  if ((flushes[0] || flushes[2]) && nodes.some((isQueued, i) => isQueued && !isThere(i * unit, i + 1))) {
    problems.push('a flush succeeded without a node that was queued before')
  }
  const [whole, part, other] = writes
  if (
    (whole && !(isThere(dataAt, 7) && isThere(dataAt + 2 * unit - 1, 7))) ||
    (part && !isThere(dataAt + 2 * unit + 99, 8)) ||
    (other && !isThere(dataAt + 2 * unit + 299, 9))
  ) {
    problems.push('a write succeeded and is not there')
  }

  const late = await attempts.succeeds('enqueue', () => queue.enqueue(fill(4), 3 * unit, after))
  queue.unlock([100])
  const { log } = queue
  if (log !== undefined) {
    await attempts.succeeds('note', () => log.note({ type: 'GEND', id: 1, error: 0 }))
    await attempts.succeeds('log', () => log.events.length)
  }
  const closed = await attempts.succeeds('close', () => queue.close())
  judgeOrder(await readFile(path), [...nodes, late], closed, problems)
}

function judgeOrder(bytes: Buffer, nodes: readonly boolean[], closed: boolean, problems: string[]): void {
  const written = nodes.map((_, i) => bytes[i * unit] === i + 1)
  if (nodes.some((isQueued, i) => !isQueued && written[i]))
    problems.push('a node was written that was refused')
  if (closed && nodes.some((isQueued, i) => isQueued && !written[i]))
    problems.push('a close without an error lost a node')
  for (let i = 1; i < nodes.length; i++) {
    if (written[i] === true && nodes[i - 1] === true && written[i - 1] === false)
      problems.push('a section was written without the one before it')
  }
}
