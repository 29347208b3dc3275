import { assert } from '../../lib/base/assert.js'
import { alignUp } from '../../lib/base/integers.js'
import { sectorSize } from '../../lib/base/units.js'
import type { DeviceLog, LoggedWrite } from './device-log.js'
import { type CrashedDisk, DiskStates } from './disk-states.js'
import { readPayload } from './payload.js'

/** Of the images here, bytes: the last cluster can be looked at as a whole. */
const largestCluster = 65536

/** What surely is on the disk, moving forward through a log. */
export class DurableDisk {
  readonly #log: DeviceLog
  readonly #disk: CrashedDisk
  /** By sector: when the newest durable write to it was submitted. */
  readonly #lastDurable: Int32Array
  /** Not durable yet, in the order of submission. */
  #waiting: LoggedWrite[]
  #time = -1

  /** @param contents  of the file when the log begins; whole sectors */
  constructor(contents: Uint8Array, log: DeviceLog) {
    assert(contents.length % sectorSize === 0, 'the file consists of whole sectors')
    this.#log = log
    let capacity = contents.length
    for (const { offset, length } of log.writes) capacity = Math.max(capacity, offset + length)
    const bytes = new Uint8Array(alignUp(capacity, largestCluster))
    bytes.set(contents)
    const sectors = bytes.length / sectorSize
    this.#disk = {
      bytes,
      payloadLba: new Int32Array(sectors),
      payloadGeneration: new Int32Array(sectors),
      length: contents.length,
    }
    this.#note(0, sectors)
    this.#lastDurable = new Int32Array(sectors).fill(-1)
    this.#waiting = [...log.writes]
  }

  /** All disks that a crash at `time` can leave. Times must not go back. */
  statesAt(time: number): DiskStates {
    assert(time >= this.#time, 'time goes forward')
    this.#time = time
    this.#waiting = this.#waiting.filter((write) => {
      if (write.durable > time) return true
      this.#apply(write)
      return false
    })
    return new DiskStates(this.#disk, this.#log, time, this.#lastDurable)
  }

  #apply({ kind, offset, length, bytes, submitted }: LoggedWrite): void {
    const disk = this.#disk
    const end = kind === 'truncate' ? disk.bytes.length : offset + length
    if (kind === 'truncate') disk.length = offset
    else if (kind !== 'punch') disk.length = Math.max(disk.length, end)
    if (kind === 'allocate') return
    const first = Math.ceil(offset / sectorSize)
    // What was submitted later and was durable earlier has not been under way with this one: it stays.
    for (let sector = first; sector < end / sectorSize; sector++) {
      assert((this.#lastDurable[sector] ?? -1) < submitted, 'writes of a sector become durable in their order')
      this.#lastDurable[sector] = submitted
    }
    if (kind === 'write') disk.bytes.set(bytes, offset)
    else disk.bytes.fill(0, first * sectorSize, end)
    this.#note(first, end / sectorSize)
  }

  #note(first: number, end: number): void {
    const { bytes, payloadLba, payloadGeneration } = this.#disk
    for (let sector = first; sector < end; sector++) {
      const payload = readPayload(bytes, sector * sectorSize)
      payloadLba[sector] = payload.lba
      payloadGeneration[sector] = payload.generation
    }
  }
}
