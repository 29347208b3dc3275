import { assert } from '../../lib/base/assert.js'
import { alignUp } from '../../lib/base/integers.js'
import { sectorSize } from '../../lib/base/units.js'
import { ChangedSectors } from './changed-sectors.js'
import type { DeviceLog, LoggedWrite } from './device-log.js'
import { type CrashedDisk, DiskStates } from './disk-states.js'
import { plainReader, type PayloadReader } from './payload-reader.js'
import { giveBytes, takeBytes } from './spare-bytes.js'

/** Of the images here, bytes: the last cluster can be looked at as a whole. */
const largestCluster = 65536

/** What surely is on the disk, moving forward through a log. */
export class DurableDisk {
  readonly #log: DeviceLog
  readonly #disk: CrashedDisk
  /** A copy that the states of one time after the other are shown on. */
  readonly #working: CrashedDisk
  #states: DiskStates | undefined
  /** By sector: when the newest durable write to it was submitted. */
  readonly #lastDurable: Int32Array
  /** Not durable yet, in the order of submission. */
  #waiting: LoggedWrite[]
  #time = -1
  readonly #taken: Uint8Array<ArrayBuffer>[]
  readonly #reader: PayloadReader

  /** @param contents  of the file when the log begins; whole sectors  @param reader  of what the guest sees in sectors of the file */
  constructor(contents: Uint8Array, log: DeviceLog, reader = plainReader) {
    assert(contents.length % sectorSize === 0, 'the file consists of whole sectors')
    this.#log = log
    this.#reader = reader
    let capacity = contents.length
    for (const { offset, length } of log.writes) capacity = Math.max(capacity, offset + length)
    const bytes = takeBytes(alignUp(capacity, largestCluster))
    bytes.set(contents)
    bytes.fill(0, contents.length)
    const working = takeBytes(bytes.length)
    working.set(bytes)
    this.#taken = [bytes, working]
    const sectors = bytes.length / sectorSize
    this.#disk = {
      bytes,
      payloadLba: new Int32Array(sectors).fill(reader.ofZeros.lba),
      payloadGeneration: new Int32Array(sectors),
      length: contents.length,
      changes: new ChangedSectors(sectors),
    }
    const payloads = payloadsOf(contents, reader)
    this.#disk.payloadLba.set(payloads.lba)
    this.#disk.payloadGeneration.set(payloads.generation)
    this.#working = {
      bytes: working,
      payloadLba: this.#disk.payloadLba.slice(),
      payloadGeneration: this.#disk.payloadGeneration.slice(),
      length: contents.length,
      changes: new ChangedSectors(sectors),
    }
    this.#lastDurable = new Int32Array(sectors).fill(-1)
    this.#waiting = [...log.writes]
  }

  /** All disks that a crash at `time` can leave. Times must not go back. */
  statesAt(time: number): DiskStates {
    assert(time >= this.#time, 'time goes forward')
    this.#time = time
    this.#states?.leave()
    this.#waiting = this.#waiting.filter((write) => {
      if (write.durable > time) return true
      this.#note(write)
      this.#apply(this.#disk, write)
      this.#apply(this.#working, write)
      return false
    })
    this.#states = new DiskStates(
      this.#disk,
      this.#working,
      { log: this.#log, reader: this.#reader },
      time,
      this.#lastDurable,
    )
    return this.#states
  }

  /** Nobody looks at it any more, or at its states. */
  end(): void {
    giveBytes(...this.#taken)
  }

  /** What was submitted later and was durable earlier has not been under way with this one: that stays. */
  #note(write: LoggedWrite): void {
    const { submitted } = write
    const { first, last } = sectorsOf(write, this.#disk)
    for (let sector = first; sector < last; sector++) {
      assert(
        (this.#lastDurable[sector] ?? -1) < submitted,
        'writes of a sector become durable in their order',
      )
      this.#lastDurable[sector] = submitted
    }
  }

  #apply(disk: CrashedDisk, write: LoggedWrite): void {
    const { kind, offset, length, sectors } = write
    if (kind === 'truncate') disk.length = offset
    else if (kind !== 'punch') disk.length = Math.max(disk.length, offset + length)
    if (kind === 'allocate') return
    const { first, last } = sectorsOf(write, disk)
    if (kind === 'write') disk.bytes.set(sectors.bytes, first * sectorSize)
    else disk.bytes.fill(0, first * sectorSize, last * sectorSize)
    const payloads = kind === 'write' ? this.#reader.of(sectors.bytes, first) : []
    for (let sector = first; sector < last; sector++) {
      const payload = payloads[sector - first] ?? this.#reader.ofZeros
      disk.payloadLba[sector] = payload.lba
      disk.payloadGeneration[sector] = payload.generation
      disk.changes.add(sector)
    }
  }
}

/** Which sectors a write changes: those of a truncation lie behind the one that it may end in. */
function sectorsOf(
  { kind, offset, length, sectors }: LoggedWrite,
  { bytes }: CrashedDisk,
): { first: number; last: number } {
  if (kind === 'truncate') return { first: Math.ceil(offset / sectorSize), last: bytes.length / sectorSize }
  return { first: sectors.first, last: Math.ceil((offset + length) / sectorSize) }
}

type Payloads = { readonly lba: Int32Array; readonly generation: Int32Array }

/** The same start images are used over and over. */
const known = new WeakMap<Uint8Array, Payloads>()

export function payloadsOf(contents: Uint8Array, reader: PayloadReader): Payloads {
  let payloads = known.get(contents)
  if (payloads !== undefined) return payloads
  const sectors = contents.length / sectorSize
  payloads = { lba: new Int32Array(sectors), generation: new Int32Array(sectors) }
  for (const [sector, { lba, generation }] of reader.of(contents, 0).entries()) {
    payloads.lba[sector] = lba
    payloads.generation[sector] = generation
  }
  known.set(contents, payloads)
  return payloads
}
