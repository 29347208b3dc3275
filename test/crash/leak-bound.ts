import { sectorSize } from '../../lib/base/units.js'
import type { DeviceLog, LoggedRequest } from './device-log.js'
import { isSnapshotStep } from './frozen-disk.js'
import { reservationOf } from './setting.js'
import type { Recording, Step } from './workload.js'

/** So many flushes, one after the other, see a request off: one for its removals, one for the counts that go down then, one where that came late. */
const flushesToSettle = 3

/** Tables that a request makes or replaces beside those of its own entries: a refcount block, and the one that counts it. */
const otherTables = 3

/** Of a refcount table that grows, with the blocks that count it: where that is near. */
const growingTables = 16

/**
 * How many clusters a crash may leak. Whatever is counted and not referred to has a reason that passes: it is reserved, or a request has
 * not been over for long enough that its frees are written. Bounded by what requests of these sizes can touch, not by what they do.
 */
export class LeakBound {
  readonly #always: number
  readonly #requests: readonly { readonly times: LoggedRequest; readonly cost: number }[]
  readonly #flushes: readonly LoggedRequest[]

  constructor({ workload, requests, start }: Recording, log: DeviceLog) {
    const { clusterSize, leaks, refcountBits } = workload.start
    // What is reserved is renewed when half of it is gone: both may be counted at the time.
    const growing = refcountBits === 64 ? growingTables : 0
    this.#always = leaks + growing + 2 * reservationOf(workload.setting)
    const timed = requests.flatMap(({ id, step }) => {
      const times = log.requests.get(id)
      return times === undefined ? [] : [{ times, step }]
    })
    this.#requests = timed.map(({ times, step }) => ({
      times,
      cost: costOf(step, clusterSize, start.length),
    }))
    this.#flushes = timed
      .filter(({ step }) => step.kind === 'flush')
      .map(({ times }) => times)
      .sort((a, b) => a.ended - b.ended)
  }

  /** Clusters, at a crash at `time`. */
  at(time: number): number {
    const settled = this.#settledAt(time)
    let bound = this.#always
    for (const { times, cost } of this.#requests) {
      if (times.submitted <= time && times.ended >= settled) bound += cost
    }
    return bound
  }

  /** What ended before then has left nothing behind, and nobody holds anything that it freed. */
  #settledAt(time: number): number {
    let before = Number.POSITIVE_INFINITY
    let left = flushesToSettle
    for (let index = this.#flushes.length - 1; index >= 0 && left > 0; index--) {
      const flush = this.#flushes[index] as LoggedRequest
      if (flush.ended > time || flush.ended > before) continue
      before = flush.submitted
      left--
    }
    if (left > 0) return -1
    // A request that ran when another ended may still have held what that freed.
    const running = this.#requests.filter(({ times }) => times.submitted < before && times.ended >= before)
    return Math.min(before, ...running.map(({ times }) => times.submitted))
  }
}

function costOf(step: Step, clusterSize: number, fileBytes: number): number {
  const everything = Math.ceil(fileBytes / clusterSize)
  if (isSnapshotStep(step) || step.kind === 'resize') return 2 * everything + otherTables
  if (!('lba' in step)) return 0
  const clusters = Math.ceil((step.sectors * sectorSize) / clusterSize) + 1
  const tables = Math.ceil(clusters / (clusterSize / 8)) + 1
  // New ones and replaced ones: those may be compressed and touch two.
  return 3 * clusters + 2 * tables + otherTables
}
