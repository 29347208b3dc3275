import type { BlockBackend } from '../../lib/queue/backend.js'
import { SeededRandom } from '../support/seeded-random.js'

/** A backend that does some things otherwise. */
export function otherwise(inner: BlockBackend, changes: Partial<BlockBackend>): BlockBackend {
  return new Proxy(inner, {
    get(target, name) {
      if (name in changes) return Reflect.get(changes, name) as unknown
      // Not through the proxy: the backend's private members know only itself.
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
}

/** Of a request that is held up. Turns of the event loop; a flush takes fewer. */
const longestDelay = 200

/** A backend whose data requests are now and then held up on their way to the device, while everything else goes on. */
export function sluggish(inner: BlockBackend, seed: number): BlockBackend {
  const random = new SeededRandom(seed)
  const hold = async (): Promise<void> => {
    if (!random.chance(0.2)) return
    for (let turns = random.integer(longestDelay); turns > 0; turns--) {
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  return otherwise(inner, {
    read: async (bytes, offset) => {
      await hold()
      await inner.read(bytes, offset)
    },
    write: async (bytes, offset) => {
      await hold()
      await inner.write(bytes, offset)
    },
    allocate: async (offset, length) => {
      await hold()
      await inner.allocate(offset, length)
    },
    punch: async (offset, length) => {
      await hold()
      await inner.punch(offset, length)
    },
  })
}
