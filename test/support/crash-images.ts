import type { DeviceEvent } from '../../lib/queue/memory-device.js'
import type { SeededRandom } from './seeded-random.js'

const sectorBytes = 512

type Change = Extract<DeviceEvent, { type: 'NSUB' }>

/**
 * What a disk may hold after a power cut: everything that a sync covered, and of the rest any sectors, in any order. A sync
 * covers what had ended before it was submitted.
 * @param before  the file as the log began
 * @param events  the log up to the cut
 */
export function crashImage(before: Uint8Array, events: readonly DeviceEvent[], random: SeededRandom): Buffer {
  const durable = durableChanges(events)
  const changes = events.filter((event): event is Change => event.type === 'NSUB')
  const length = Math.max(before.length, ...changes.map((change) => change.offset + change.length))
  const image = Buffer.alloc(length)
  image.set(before)
  let end = before.length
  for (const change of changes) {
    if (change.kind === 'truncate') end = change.offset
    // all sectors, some of them, or none
    const share = durable.has(change.id) ? 1 : random.pick([0, 0.5, 1])
    for (let at = 0; at < change.length; at += sectorBytes) {
      if (share < 1 && !random.chance(share)) continue
      const upTo = Math.min(change.length, at + sectorBytes)
      if (change.kind === 'write') image.set(change.bytes.subarray(at, upTo), change.offset + at)
      else if (change.kind !== 'truncate') image.fill(0, change.offset + at, change.offset + upTo)
      end = Math.max(end, change.offset + upTo)
    }
  }
  return image.subarray(0, end)
}

function durableChanges(events: readonly DeviceEvent[]): Set<number> {
  const ended = new Set<number>()
  const covered = new Map<number, number[]>()
  const durable = new Set<number>()
  for (const event of events) {
    if (event.type === 'NEND') ended.add(event.id)
    else if (event.type === 'SSUB') covered.set(event.id, [...ended])
    else if (event.type === 'SEND' && event.error === 0) {
      for (const id of covered.get(event.id) ?? []) durable.add(id)
    }
  }
  return durable
}
