import { constants } from 'node:os'
import type { FinishedWaiter } from '../../lib/native/types.js'
import { otherwise } from './altered-backend.js'
import { anySize, anyStart, type Mutant, nothing } from './mutant.js'
import { earlyFlush, withQueue } from './mutant-tools.js'

/** Those that lack a rule of the queue's. */
export const queueMutants: readonly Mutant[] = [
  {
    name: 'M17',
    lacks: 'a flush ends when its sync has ended',
    starts: anyStart,
    clusterSizes: anySize,
    needs: ['flush'],
    install: nothing,
    tampering: earlyFlush('begin'),
  },
  {
    name: 'M18',
    lacks: 'a flush never joins a sync that runs already',
    starts: ['half-full', 'near-block'],
    clusterSizes: anySize,
    needs: ['overwrite', 'flush', 'overwrite', 'flush'],
    install: nothing,
    tampering: earlyFlush('join'),
  },
  {
    name: 'M26',
    lacks: 'forced access waits for the mapping too, not only for the bytes',
    starts: anyStart,
    clusterSizes: anySize,
    needs: ['write', 'write-fua'],
    install: nothing,
    tampering: earlyFlush('data'),
  },
  {
    name: 'M20',
    lacks: 'barriers of several contexts in one place: one of them is lost',
    starts: ['half-full', 'backing'],
    clusterSizes: anySize,
    needs: ['zero', 'flush', 'far', 'overwrite', 'flush'],
    install: withQueue(
      (Queue) =>
        class extends Queue {
          #last = 0
          override sectionAfterData(): number {
            const behind = super.sectionAfterData()
            if (behind === this.#last) return behind - 1
            this.#last = behind
            return behind
          }
        },
    ),
  },
  {
    name: 'M21',
    lacks: 'bytes of a later section are not folded into an earlier write',
    starts: anyStart,
    clusterSizes: anySize,
    install: withQueue(
      (Queue) =>
        class extends Queue {
          override enqueue(bytes: Uint8Array, offset: number, earliest: number, now: number): number {
            return super.enqueue(bytes, offset, this.overlaps(offset, bytes.length) ? 0 : earliest, now)
          }
        },
    ),
  },
  {
    name: 'P11',
    lacks: 'data written beside the queue asks for a sync in front of what refers to it',
    starts: ['half-full', 'backing'],
    clusterSizes: anySize,
    needs: ['zero', 'flush', 'overwrite', 'flush'],
    install: withQueue(
      (Queue) =>
        class extends Queue {
          override dataWritten(): void {
            return undefined
          }
        },
    ),
  },
  {
    name: 'M27',
    lacks: 'a table that is read back shows what waits in the queue',
    starts: ['near-table'],
    clusterSizes: [512],
    isUncached: true,
    install: nothing,
    tampering: () => ({
      wrap: (memory) => otherwise(memory, { readQueued: (bytes, offset) => memory.read(bytes, offset) }),
    }),
  },
]

/** Wrong only when the device fails: for the fault loop. */
export const faultMutants: readonly Mutant[] = [
  {
    name: 'M19',
    lacks: 'a failed sync is never believed again',
    starts: ['half-full'],
    clusterSizes: [512],
    install: withQueue(
      (Queue) =>
        class extends Queue {
          override synced(_errno: number): FinishedWaiter[] {
            return super.synced(0)
          }
        },
    ),
  },
  {
    name: 'M28',
    lacks: 'what found no room is written again, and nothing behind it before',
    starts: ['half-full'],
    clusterSizes: [512],
    install: withQueue(
      (Queue) =>
        class extends Queue {
          override written(errno: number): FinishedWaiter[] {
            return super.written(errno === constants.errno.ENOSPC ? 0 : errno)
          }
        },
    ),
  },
]
