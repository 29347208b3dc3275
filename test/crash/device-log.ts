import { assert } from '../../lib/base/assert.js'
import { alignUp } from '../../lib/base/integers.js'
import { sectorSize } from '../../lib/base/units.js'
import type { DeviceEvent } from '../../lib/queue/memory-device.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'

/** Times are positions in the log. What has not happened is at infinity. */
export type LoggedWrite = {
  readonly id: number
  readonly kind: 'write' | 'zero' | 'punch' | 'allocate' | 'truncate'
  /** Bytes; of 'truncate' the new length. */
  readonly offset: number
  readonly length: number
  /** Of 'write': the sectors that it touches, as they are behind it. */
  readonly sectors: { readonly first: number; readonly bytes: Uint8Array }
  /** A metadata write of the queue: its sectors are told apart. */
  readonly isNode: boolean
  readonly submitted: number
  ended: number
  failed: boolean
  /** When a sync that covers it has succeeded: from then on it is on the disk in every crash. */
  durable: number
}

export type LoggedSync = { readonly submitted: number; ended: number; failed: boolean }

/** A guest's request, as the workload has noted it. */
export type LoggedRequest = {
  readonly id: number
  readonly submitted: number
  ended: number
  failed: boolean
}

export type DeviceLog = {
  readonly writes: readonly LoggedWrite[]
  readonly syncs: readonly LoggedSync[]
  readonly requests: ReadonlyMap<number, LoggedRequest>
  readonly end: number
}

/**
 * Read a device's log. A write is durable once a sync that started after the write's end has succeeded. After a sync that failed, nothing that
 * was under way or uncovered then is ever durable: the host may have dropped it and call later syncs good.
 * @param contents  of the file at first; needed where data writes begin or end within sectors
 * @throws AssertionError  two writes of the same bytes were under way at once
 */
export function readLog(events: readonly DeviceEvent[], contents?: Uint8Array): DeviceLog {
  const isWhole = events.every(
    (event) => event.type !== 'NSUB' || event.kind !== 'write' || areSectors(event),
  )
  const sectors = contents === undefined || isWhole ? undefined : new WholeSectors(contents)
  const writes = new Map<number, LoggedWrite>()
  const syncs = new Map<number, LoggedSync>()
  const requests = new Map<number, LoggedRequest>()
  events.forEach((event, time) => {
    switch (event.type) {
      case 'NSUB': {
        const { id, kind, offset, length } = event
        // What is written directly may make the file too long, and cut it: to where it ends within its last sector.
        const whole = kind === 'truncate' || (offset % sectorSize === 0 && length % sectorSize === 0)
        assert(
          whole || (kind === 'write' && sectors !== undefined),
          `whole sectors: ${kind} ${offset} ${length}`,
        )
        writes.set(id, {
          id,
          kind,
          offset,
          length,
          sectors: sectors?.after(event) ?? { first: offset / sectorSize, bytes: event.bytes },
          isNode: event.section !== undefined,
          submitted: time,
          ended: Number.POSITIVE_INFINITY,
          failed: false,
          durable: Number.POSITIVE_INFINITY,
        })
        return
      }
      case 'NEND':
        return end(writes.get(event.id), time, event.error)
      case 'SSUB': {
        syncs.set(event.id, { submitted: time, ended: Number.POSITIVE_INFINITY, failed: false })
        return
      }
      case 'SEND':
        return end(syncs.get(event.id), time, event.error)
      case 'GSUB': {
        requests.set(event.id, {
          id: event.id,
          submitted: time,
          ended: Number.POSITIVE_INFINITY,
          failed: false,
        })
        return
      }
      case 'GEND':
        return end(requests.get(event.id), time, event.error)
    }
  })
  const log = { writes: [...writes.values()], syncs: [...syncs.values()], requests, end: events.length }
  settle(log)
  refuseOverlaps(log.writes)
  return log
}

/**
 * Makes whole sectors of writes that begin or end within one, as the host's page cache does: what else is in the sector is what was last submitted.
 */
class WholeSectors {
  readonly #shadow: SparseBytes

  constructor(contents: Uint8Array) {
    this.#shadow = SparseBytes.from(contents)
  }

  after({ kind, offset, length, bytes }: Extract<DeviceEvent, { type: 'NSUB' }>): LoggedWrite['sectors'] {
    const shadow = this.#shadow
    if (kind === 'write') shadow.write(bytes, offset)
    else if (kind === 'truncate') shadow.truncate(offset)
    else if (kind !== 'allocate') shadow.clear(offset, length)
    const first = Math.floor(offset / sectorSize)
    if (kind !== 'write' || areSectors({ offset, length })) return { first, bytes }
    const whole = new Uint8Array(alignUp(offset + length, sectorSize) - first * sectorSize)
    shadow.read(whole, first * sectorSize)
    return { first, bytes: whole }
  }
}

function areSectors({ offset, length }: { readonly offset: number; readonly length: number }): boolean {
  return offset % sectorSize === 0 && length % sectorSize === 0
}

function end(record: { ended: number; failed: boolean } | undefined, time: number, error: number): void {
  assert(record !== undefined, 'what ends has begun')
  record.ended = time
  record.failed = error !== 0
}

function settle(log: { writes: readonly LoggedWrite[]; syncs: readonly LoggedSync[] }): void {
  let open = [...log.writes]
  for (const sync of log.syncs) {
    if (sync.ended === Number.POSITIVE_INFINITY) continue
    if (sync.failed) {
      open = open.filter((write) => write.submitted > sync.ended)
      continue
    }
    open = open.filter((write) => {
      if (write.failed || write.ended > sync.submitted) return true
      write.durable = sync.ended
      return false
    })
  }
}

/** Either could win: the queue and the range locks must not let it come to that. */
function refuseOverlaps(writes: readonly LoggedWrite[]): void {
  let running: LoggedWrite[] = []
  for (const write of writes) {
    running = running.filter(({ ended }) => ended > write.submitted)
    for (const other of running) {
      assert(!overlap(write, other), `${named(write)} begins while ${named(other)} is under way`)
    }
    running.push(write)
  }
}

function overlap(one: LoggedWrite, other: LoggedWrite): boolean {
  return one.offset < endOf(other) && other.offset < endOf(one)
}

function endOf(write: LoggedWrite): number {
  return write.kind === 'truncate' ? Number.POSITIVE_INFINITY : write.offset + write.length
}

function named({ kind, offset, length, isNode }: LoggedWrite): string {
  return `a ${isNode ? 'metadata' : 'data'} ${kind} of ${length} bytes at ${offset}`
}
