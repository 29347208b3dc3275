import { constants } from 'node:os'
import { noSection, section } from '../../lib/base/units.js'
import type { FinishedWaiter } from '../../lib/native/types.js'
import { ActiveRequests } from '../../lib/qcow2/active-requests.js'
import { Qcow2Image } from '../../lib/qcow2/image.js'
import { storeRefcount } from '../../lib/qcow2/refcount-entry.js'
import { RefcountGrowth } from '../../lib/qcow2/refcount-growth.js'
import { otherwise } from './altered-backend.js'
import {
  all,
  countOf,
  earlyFlush,
  freedAtOnce,
  freeing,
  hurriedHeader,
  replace,
  withQueue,
  without,
} from './mutant-tools.js'
import { readPayload } from './payload.js'
import type { OperationName } from './sequences.js'
import type { StartName } from './start-images.js'
import type { Tampering } from './workload.js'

/**
 * Wrong implementations: each lacks one rule of the order of writes. They are made from the right one while a test runs; nothing in
 * lib/ knows of them. The explorer has to find every one of them out.
 */
export type Mutant = {
  /** As in the list of the specification; or the gate, edge or invariant that goes. */
  readonly name: string
  /** The rule that is missing. */
  readonly lacks: string
  /** Where it shows soonest. */
  readonly starts: readonly StartName[]
  readonly clusterSizes: readonly (512 | 4096)[]
  /** What short workloads in the hunt for it are, or contain in this order: the operations that race without the rule. */
  readonly needs?: readonly OperationName[]
  /** Put it in place. @returns what puts the right one back */
  readonly install: () => () => void
  /** For each run anew. */
  readonly tampering?: () => Tampering
}

const anyStart: readonly StartName[] = ['half-full', 'backing', 'empty', 'snapshot', 'near-block']
const anySize: readonly (512 | 4096)[] = [512, 4096]
const nothing = (): (() => void) => () => undefined

/** Whether the newest data write held copied bytes beside the guest's. */
const lastWrite = { wasCopy: false }

const shrinking = { is: false }

export const mutants: readonly Mutant[] = [
  {
    name: 'M1',
    lacks: 'count up -> L2 entry',
    starts: ['half-full', 'snapshot', 'empty', 'near-block'],
    clusterSizes: anySize,
    install: without('linkData', 'after'),
  },
  {
    name: 'M2',
    lacks: 'guest data -> L2 entry',
    starts: anyStart,
    clusterSizes: anySize,
    install: without('linkData', 'afterData'),
  },
  {
    name: 'M3',
    lacks: 'bytes copied around a write -> L2 entry',
    starts: ['backing', 'snapshot'],
    clusterSizes: [4096],
    needs: ['partial', 'flush'],
    install: without('linkData', 'afterData', () => lastWrite.wasCopy),
    tampering: () => ({
      wrap: (memory) =>
        otherwise(memory, {
          write: async (bytes, offset) => {
            const generations = new Set<number>()
            for (let at = 0; at < bytes.length; at += 512) generations.add(readPayload(bytes, at).generation)
            await memory.write(bytes, offset)
            lastWrite.wasCopy = generations.size > 1
          },
        }),
    }),
  },
  {
    name: 'M5',
    lacks: 'L2 entry -> count down',
    starts: ['half-full', 'backing'],
    clusterSizes: anySize,
    install: nothing,
    // The count in memory stays up, so that nobody gets the cluster: only the write comes too early.
    tampering: freeing((parts, add) => (host, length, options) => {
      add(host, length, options)
      const { geometry } = parts
      for (let at: number = host; at < host + length; at += geometry.clusterSize) {
        const counted = countOf(parts, at / geometry.clusterSize)
        if (counted === undefined || counted.count === 0) continue
        storeRefcount(new DataView(counted.bytes.buffer), counted.index, geometry, counted.count - 1)
        parts.backend.enqueue(counted.bytes, counted.slice, noSection)
      }
    }),
  },
  {
    name: 'M6',
    lacks: 'L2 entry -> re-use of the cluster that it mapped',
    starts: ['half-full', 'backing'],
    clusterSizes: anySize,
    needs: ['discard', 'write'],
    install: nothing,
    // Freed clusters go straight to the next who asks, with the count that they have: all other rules hold.
    tampering: () => {
      const freed: number[] = []
      return {
        opened: (parts) => {
          const { clusterSize } = parts.geometry
          const add = parts.frees.add.bind(parts.frees)
          parts.frees.add = (host, length, options) => {
            const isOurs = countOf(parts, host / clusterSize)?.count === 1
            if (options.wasTable || !isOurs || length !== clusterSize) add(host, length, options)
            else freed.push(host)
          }
          const { allocator } = parts
          const tryAllocate = allocator.tryAllocate.bind(allocator)
          allocator.tryAllocate = (most) => {
            const host = freed.shift()
            if (host === undefined) return tryAllocate(most)
            return { host: host as never, clusters: 1, after: noSection, fresh: false }
          }
        },
      }
    },
  },
  {
    name: 'M5 and M6',
    lacks: 'L2 entry -> count down and re-use: frees are not deferred',
    starts: ['half-full', 'backing', 'snapshot'],
    clusterSizes: anySize,
    install: nothing,
    tampering: freedAtOnce,
  },
  {
    name: 'M7',
    lacks: 'content of an L2 table -> L1 entry',
    starts: ['snapshot'],
    clusterSizes: anySize,
    needs: ['write', 'flush', 'far', 'flush'],
    install: without('linkL2Table', 'afterData'),
  },
  {
    name: 'E5',
    lacks: 'count of an L2 table -> L1 entry',
    starts: ['half-full', 'empty', 'near-block', 'snapshot'],
    clusterSizes: anySize,
    needs: ['write', 'flush', 'far', 'flush'],
    install: without('linkL2Table', 'after'),
  },
  {
    name: 'M8',
    lacks: 'zeros and own count of a refcount block -> its entry in the table',
    starts: ['near-block'],
    clusterSizes: anySize,
    needs: ['write', 'write'],
    install: () => {
      const undoBarrier = without('publishRefcountBlock', 'barrier')()
      const undoData = without('publishRefcountBlock', 'afterData')()
      return () => {
        undoData()
        undoBarrier()
      }
    },
  },
  {
    name: 'E8',
    lacks: "a refcount block's own count -> its entry in the table",
    starts: ['near-block'],
    clusterSizes: anySize,
    needs: ['write', 'flush', 'write', 'flush'],
    install: without('publishRefcountBlock', 'barrier'),
  },
  {
    name: 'E7',
    lacks: "a refcount block's entry in the table -> what refers to the clusters that it counts",
    starts: ['near-block'],
    clusterSizes: anySize,
    needs: ['write', 'write'],
    install: () => replace(RefcountGrowth.prototype, 'publishedAfter', () => () => noSection),
  },
  {
    name: 'M9',
    lacks: 'new refcount table and blocks -> header',
    starts: ['near-table'],
    clusterSizes: [512],
    needs: ['write', 'write'],
    install: nothing,
    tampering: hurriedHeader('before'),
  },
  {
    name: 'M10',
    lacks: 'new L1 table -> header',
    starts: ['half-full', 'empty', 'backing'],
    clusterSizes: anySize,
    needs: ['grow-l1'],
    install: nothing,
    tampering: hurriedHeader('before'),
  },
  {
    name: 'M11',
    lacks: 'header -> count down and re-use of the old L1 or refcount table',
    starts: ['half-full', 'empty', 'backing', 'near-table'],
    clusterSizes: anySize,
    needs: ['grow-l1'],
    install: nothing,
    tampering: all(hurriedHeader('after'), freedAtOnce),
  },
  {
    name: 'E19',
    lacks: 'autoclear bits cleared -> first write',
    starts: ['autoclear'],
    clusterSizes: anySize,
    install: nothing,
    tampering: hurriedHeader('after'),
  },
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
    name: 'M23',
    lacks: 'a punch waits for the L2 entry, and for the last reference',
    starts: ['snapshot', 'backing'],
    clusterSizes: anySize,
    install: nothing,
    tampering: () => {
      let parts: { punch: (host: number, length: number) => void } | undefined
      return {
        wrap: (memory) => {
          parts = { punch: (host, length) => void memory.punch(host, length).catch(() => undefined) }
          return memory
        },
        opened: (opened) => {
          const add = opened.frees.add.bind(opened.frees)
          opened.frees.add = (host, length, options) => {
            add(host, length, options)
            parts?.punch(host, length)
          }
        },
      }
    },
  },
  {
    name: 'M24',
    lacks: 'mappings and size -> truncation of the file',
    starts: ['half-full', 'backing', 'near-block'],
    clusterSizes: anySize,
    needs: ['shrink'],
    install: () =>
      replace(Qcow2Image.prototype, 'resize', (original) => {
        return async function (this: Qcow2Image, size, options) {
          shrinking.is = size < this.size
          try {
            await original.call(this, size, options)
          } finally {
            shrinking.is = false
          }
        }
      }),
    // Everything is taken for durable while the disk shrinks.
    tampering: () => ({
      wrap: (memory) => {
        const lie = {
          flush: () => (shrinking.is ? Promise.resolve() : memory.flush()),
          durable: (through: Parameters<typeof memory.durable>[0]) =>
            shrinking.is ? Promise.resolve() : memory.durable(through),
          get durableSection() {
            return shrinking.is ? section(Number.MAX_SAFE_INTEGER) : memory.durableSection
          },
        }
        return otherwise(memory, lie)
      },
    }),
  },
  {
    name: 'M27',
    lacks: 'a table that is read back shows what waits in the queue',
    starts: ['near-table'],
    clusterSizes: [512],
    install: nothing,
    tampering: () => ({
      wrap: (memory) => otherwise(memory, { readQueued: (bytes, offset) => memory.read(bytes, offset) }),
    }),
  },
  {
    name: 'G3',
    lacks: 'a freed cluster waits for the requests that may still use it',
    starts: ['half-full', 'backing'],
    clusterSizes: anySize,
    needs: ['overwrite', 'overwrite', 'discard', 'flush', 'write', 'write'],
    install: () => replace(ActiveRequests.prototype, 'anyUpTo', () => () => false),
  },
  {
    name: 'H1',
    lacks: 'writes to one unallocated cluster wait for each other',
    starts: ['empty', 'backing', 'half-full'],
    clusterSizes: [4096],
    install: nothing,
    tampering: () => ({
      opened: (parts) => {
        const { locks } = parts
        const acquire = locks.acquire.bind(locks)
        // Every request locks a place of its own.
        let next = Number.MAX_SAFE_INTEGER / 2
        locks.acquire = () => {
          next++
          return acquire(next, next)
        }
      },
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
