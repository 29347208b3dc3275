import type { Recording } from './workload.js'
import type { DeviceLog } from './device-log.js'

/** What a header says beside its numbers: the backing file's name and format, and all other extensions, as text. */
export type Strings = { readonly file: string; readonly format: string; readonly others: string }

const backingFormat = 0xe2792aca

/**
 * Read a header's strings. Shares no code with lib/. qcow2 spec, "Header", "Header extensions".
 * @returns undefined where what it points to cannot be
 */
export function stringsOf(bytes: Uint8Array, clusterSize: number): Strings | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const nameAt = Number(view.getBigUint64(8))
  const nameLength = view.getUint32(16)
  let at = view.getUint32(4) === 2 ? 72 : view.getUint32(100)
  const end = nameAt === 0 ? clusterSize : nameAt
  if (nameAt + nameLength > clusterSize) return undefined
  let format = ''
  const others: string[] = []
  while (at + 8 <= end) {
    const type = view.getUint32(at)
    const length = view.getUint32(at + 4)
    if (type === 0) break
    if (at + 8 + length > end) return undefined
    const data = Buffer.from(bytes.subarray(at + 8, at + 8 + length))
    if (type === backingFormat) format = data.toString('latin1')
    else others.push(`${type}:${data.toString('hex')}`)
    at += 8 + Math.ceil(length / 8) * 8
  }
  const file = Buffer.from(bytes.subarray(nameAt, nameAt + (nameAt === 0 ? 0 : nameLength))).toString(
    'latin1',
  )
  return { file, format, others: others.join(' ') }
}

/** What the header of a crashed disk may say: what it said at first, or was told to; never a part of it, and nothing that was replaced for good. */
export class HeaderHistory {
  readonly #clusterSize: number
  readonly #first: Strings | undefined
  /** In order: they run one after the other. */
  readonly #changes: { readonly file: string; readonly format: string; submitted: number; ended: number }[] =
    []

  constructor(recording: Recording, log: DeviceLog) {
    this.#clusterSize = recording.workload.start.clusterSize
    this.#first = stringsOf(recording.start, this.#clusterSize)
    for (const { id, step } of recording.requests) {
      const times = log.requests.get(id)
      if (step.kind !== 'rename' || times === undefined) continue
      const { submitted, ended, failed } = times
      const { file, format } = step
      this.#changes.push({ file, format, submitted, ended: failed ? Number.POSITIVE_INFINITY : ended })
    }
  }

  /** @returns what is wrong with the header of a disk that a crash at `time` has left */
  judge(bytes: Uint8Array, time: number): string | undefined {
    if (this.#changes.length === 0) return undefined
    const found = stringsOf(bytes, this.#clusterSize)
    if (found === undefined) return 'header: it points to what is not there'
    if (found.others !== this.#first?.others) return `header: its extensions are ${found.others}`
    const last = this.#changes.findLastIndex(({ ended }) => ended <= time)
    const allowed = [
      ...(last < 0 && this.#first !== undefined ? [this.#first] : []),
      ...this.#changes.slice(Math.max(0, last)).filter(({ submitted }) => submitted <= time),
    ]
    if (allowed.some(({ file, format }) => file === found.file && format === found.format)) return undefined
    return `header: it names ${found.file.slice(0, 40)}... (${found.file.length} bytes) of format ${found.format}`
  }
}
