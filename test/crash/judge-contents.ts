import { alignUp } from '../../lib/base/integers.js'
import { sectorSize } from '../../lib/base/units.js'
import { DurableDisk } from './durable-disk.js'
import type { GuestHistory } from './guest-history.js'
import { Oracle } from './oracle.js'
import type { StartImage } from './start-images.js'

/** A file that nothing was written to. */
const noLog = { writes: [], syncs: [], requests: new Map(), end: 0 }

/**
 * Judge one image, given as a file.
 * @param time  a position in the log: what the guest had done by then
 * @returns what is wrong with it; and what nothing refers to in it, in clusters
 */
export function judgeContents(
  start: StartImage,
  history: GuestHistory,
  bytes: Uint8Array,
  time: number,
): { problem: string | undefined; leaks: number } {
  const whole = new Uint8Array(alignUp(bytes.length, sectorSize))
  whole.set(bytes)
  const durable = new DurableDisk(whole, noLog)
  const { disk } = durable.statesAt(0)
  const oracle = new Oracle(start, history, disk)
  try {
    const problem = oracle.judge(disk, history.at(time), time, time)
    return { problem, leaks: oracle.leaks }
  } finally {
    oracle.end()
    durable.end()
  }
}
