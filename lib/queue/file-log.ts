import type { NativeIoEvent } from '../native/types.js'
import { section } from '../base/units.js'
import type { DeviceEvent, GuestEvent } from './memory-device.js'

/** By the numbers of native/io_log.h. */
const kinds = ['write', 'zero', 'punch', 'allocate', 'truncate'] as const
const types = ['NSUB', 'NEND', 'SSUB', 'SEND', 'note'] as const

const noBytes = new Uint8Array(0)

/** Collects the addon's log of a file, and what its users note, into the events that the simulated device has: one total order. */
export class FileLog {
  readonly #noted: GuestEvent[] = []
  readonly #mark: (id: number) => void
  readonly #take: () => NativeIoEvent[]
  readonly #events: DeviceEvent[] = []

  constructor(native: { note(id: number): void; takeLog(): NativeIoEvent[] }) {
    this.#mark = (id) => {
      native.note(id)
    }
    this.#take = () => native.takeLog()
  }

  note(event: GuestEvent): void {
    this.#mark(this.#noted.push(event) - 1)
  }

  /** All since the file was opened. */
  get events(): readonly DeviceEvent[] {
    for (const event of this.#take()) this.#events.push(this.#event(event))
    return this.#events
  }

  #event({ type, id, error, ...change }: NativeIoEvent): DeviceEvent {
    const name = types[type]
    switch (name) {
      case 'NSUB': {
        const { kind = 0, offset = 0, length = 0, bytes = noBytes } = change
        const placed =
          change.section === 0 || change.section === undefined ? undefined : section(change.section)
        return { type: name, id, kind: kinds[kind] ?? 'write', offset, length, section: placed, bytes }
      }
      case 'SSUB':
        return { type: name, id }
      case 'NEND':
      case 'SEND':
        return { type: name, id, error }
      default:
        return this.#noted[id] as GuestEvent
    }
  }
}
