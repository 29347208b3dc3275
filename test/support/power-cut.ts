import type { DeviceEvent } from '../../lib/queue/memory-device.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import type { SeededRandom } from './seeded-random.js'

/** What a disk writes as one. */
const sectorSize = 512

type Change = Extract<DeviceEvent, { type: 'NSUB' }>

/**
 * What the disk may hold if the power goes after the first `cut` events of a log: all that a good sync covers, which started after it
 * had ended, and of the rest any of its sectors, in any order.
 * @param before  what the file held when the log began
 */
export function afterPowerCut(
  before: Uint8Array,
  log: readonly DeviceEvent[],
  cut: number,
  random: SeededRandom,
): SparseBytes {
  const { durable, volatile } = changesUpTo(log, cut)
  const disk = SparseBytes.from(before)
  for (const change of durable) apply(disk, change)
  // All, none or some; of some a few sectors or most: what is wrong shows in the extremes.
  const share = random.pick([0, 0.1, 0.5, 0.9, 1])
  const pieces = volatile.flatMap(cutIntoSectors)
  if (random.chance(0.3)) shuffle(pieces, random)
  for (const piece of pieces) if (random.chance(share)) apply(disk, piece)
  return disk
}

function changesUpTo(log: readonly DeviceEvent[], cut: number): { durable: Change[]; volatile: Change[] } {
  const submitted = new Map<number, Change>()
  const ended = new Set<number>()
  const durable = new Set<number>()
  const coveredBy = new Map<number, readonly number[]>()
  for (const event of log.slice(0, cut)) {
    if (event.type === 'NSUB') submitted.set(event.id, event)
    else if (event.type === 'NEND') ended.add(event.id)
    else if (event.type === 'SSUB') coveredBy.set(event.id, [...ended])
    else if (event.type === 'SEND' && event.error === 0) {
      for (const id of coveredBy.get(event.id) ?? []) durable.add(id)
    }
  }
  const changes = [...submitted.values()]
  return {
    durable: changes.filter(({ id }) => durable.has(id)),
    volatile: changes.filter(({ id }) => !durable.has(id)),
  }
}

function cutIntoSectors(change: Change): Change[] {
  if (change.kind === 'truncate' || change.kind === 'allocate') return [change]
  const pieces: Change[] = []
  for (let done = 0; done < change.length;) {
    const offset = change.offset + done
    const length = Math.min(change.length - done, sectorSize - (offset % sectorSize))
    pieces.push({ ...change, offset, length, bytes: change.bytes.subarray(done, done + length) })
    done += length
  }
  return pieces
}

function apply(disk: SparseBytes, { kind, offset, length, bytes }: Change): void {
  switch (kind) {
    case 'write':
      return disk.write(bytes, offset)
    case 'zero':
      disk.clear(offset, length)
      return disk.extend(offset + length)
    case 'punch':
      return disk.clear(offset, length)
    case 'allocate':
      return disk.extend(offset + length)
    case 'truncate':
      return disk.truncate(offset)
  }
}

function shuffle(items: Change[], random: SeededRandom): void {
  for (let index = items.length - 1; index > 0; index--) {
    const other = random.integer(index + 1)
    const [one, two] = [items[index] as Change, items[other] as Change]
    items[index] = two
    items[other] = one
  }
}
