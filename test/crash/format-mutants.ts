import { noSection, section } from '../../lib/base/units.js'
import { ActiveRequests } from '../../lib/qcow2/active-requests.js'
import { Allocator } from '../../lib/qcow2/allocator.js'
import { Qcow2Image } from '../../lib/qcow2/image.js'
import { storeRefcount } from '../../lib/qcow2/refcount-entry.js'
import { RefcountGrowth } from '../../lib/qcow2/refcount-growth.js'
import { Reservation } from '../../lib/qcow2/reservation.js'
import { otherwise } from './altered-backend.js'
import type { HuntingGround } from './hunt.js'
import { anySize, anyStart, type Mutant, nothing } from './mutant.js'
import { all, countOf, freedAtOnce, freeing, hurriedHeader, replace, without } from './mutant-tools.js'
import { readPayload } from './payload.js'
import type { Tampering } from './workload.js'

/** Whether the newest data write held copied bytes beside the guest's, or a compressed cluster. */
const lastWrite = { wasCopy: false, wasCompressed: false }

/** Whether the disk is being made smaller. */
const shrinking = { is: false }

/** Whether the newest clusters given out were blank. */
const lastAllocation = { isBlank: false }

/** Only compressed clusters begin or end within sectors. */
const noteCompressed = (): Tampering => ({
  wrap: (memory) =>
    otherwise(memory, {
      write: async (bytes, offset) => {
        await memory.write(bytes, offset)
        lastWrite.wasCompressed = bytes.length % 512 !== 0
      },
    }),
})

/** Blank are clusters of the reservation only, which is taken from when no used cluster is left. */
export const withoutReservation = {
  on: ({ reserves, free }: HuntingGround) => !reserves || free === 'used',
  because: 'no cluster is blank there',
}

const reservedCounts = {
  on: ({ reserves, free }: HuntingGround) => reserves && free === 'fresh',
  because: 'the counts of reserved clusters are there before anything refers to them',
}

/** Those that lack a rule of the format's. */
export const formatMutants: readonly Mutant[] = [
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
    needs: ['write', 'flush', 'partial', 'flush'],
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
    name: 'M4',
    lacks: 'bytes of a compressed cluster -> L2 entry',
    starts: anyStart,
    clusterSizes: anySize,
    needs: ['compress', 'flush', 'compress-over', 'flush'],
    install: without('linkData', 'afterData', () => lastWrite.wasCompressed),
    tampering: noteCompressed,
  },
  {
    name: 'E17',
    lacks: 'counts of what a compressed cluster touches -> L2 entry',
    starts: ['half-full', 'snapshot', 'empty', 'backing'],
    clusterSizes: anySize,
    needs: ['compress', 'flush', 'compress-over', 'flush'],
    install: without('linkData', 'after', () => lastWrite.wasCompressed),
    tampering: noteCompressed,
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
            return { host: host as never, clusters: 1, after: noSection, fresh: false, blank: false }
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
    name: 'E6',
    lacks: 'L1 entry -> count down of the table that a snapshot shares',
    starts: ['snapshot'],
    clusterSizes: anySize,
    needs: ['overwrite', 'flush'],
    install: nothing,
    tampering: freeing((_parts, add) => (host, length, options) => {
      add(host, length, { ...options, removal: options.wasTable ? noSection : options.removal })
    }),
  },
  {
    name: 'E21',
    lacks: 'zeros behind the old end -> larger size',
    starts: ['half-full'],
    clusterSizes: [4096],
    needs: ['shrink', 'grow'],
    install: nothing,
    tampering: hurriedHeader('before'),
  },
  {
    name: 'E22',
    lacks: 'mappings cleared -> smaller size',
    starts: ['half-full', 'near-block'],
    clusterSizes: anySize,
    needs: ['shrink', 'flush'],
    install: nothing,
    tampering: hurriedHeader('before'),
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
    name: 'M15',
    lacks: 'the session is over -> dirty bit cleared',
    starts: ['half-full', 'empty', 'snapshot', 'backing'],
    clusterSizes: anySize,
    setting: { lazy: true },
    install: nothing,
    // Every flush takes it for over.
    tampering: () => {
      let clean: (() => void) | undefined
      let isSet = false
      return {
        opened: ({ header, backend }) => {
          clean = () => {
            const { bytes, host } = header.change({ incompatibleFeatures: 0n })
            backend.enqueue(bytes, host, noSection)
          }
        },
        wrap: (memory) =>
          otherwise(memory, {
            enqueue: (bytes, offset, earliest) => {
              isSet ||= offset === 0
              return memory.enqueue(bytes, offset, earliest)
            },
            flush: () => {
              if (isSet) clean?.()
              return memory.flush()
            },
          }),
      }
    },
  },
  {
    name: 'M16',
    lacks: 'dirty bit -> first reference that does not wait for its count',
    starts: ['half-full', 'empty', 'snapshot', 'backing'],
    clusterSizes: anySize,
    setting: { lazy: true },
    hidden: reservedCounts,
    install: nothing,
    // The bit goes with whatever is written next.
    tampering: () => ({
      wrap: (memory) => {
        let late = noSection
        return otherwise(memory, {
          enqueue: (bytes, offset, earliest) => {
            if (offset > 0 || late !== noSection) return memory.enqueue(bytes, offset, earliest)
            late = memory.enqueue(bytes, offset, memory.sectionAfterData())
            return late
          },
          durable: (through) => (through === late ? Promise.resolve() : memory.durable(through)),
        })
      },
    }),
  },
  {
    name: 'R1',
    lacks: 'a reserved cluster is blank only when the file durably reaches behind it',
    starts: ['half-full'],
    clusterSizes: anySize,
    // What is written in place gives the extension the time that it takes.
    needs: ['write', 'overwrite', 'overwrite', 'write', 'flush'],
    window: 1,
    hidden: withoutReservation,
    install: () =>
      replace(Reservation.prototype, 'take', (original) => {
        return function (this: Reservation, most) {
          const taken = original.call(this, most)
          return taken && { ...taken, blank: true }
        }
      }),
    // It shows where a flush comes before the file reaches there.
    tampering: () => ({
      wrap: (memory) =>
        otherwise(memory, {
          allocate: async (offset, length) => {
            await memory.flush()
            await memory.allocate(offset, length)
          },
        }),
    }),
  },
  {
    name: 'R2',
    lacks: 'counts of reserved clusters -> what refers to them',
    starts: ['near-block'],
    clusterSizes: [512],
    needs: ['write', 'write', 'write', 'flush'],
    window: 2,
    hidden: withoutReservation,
    install: () =>
      replace(Reservation.prototype, 'take', (original) => {
        return function (this: Reservation, most) {
          const taken = original.call(this, most)
          return taken && { ...taken, after: noSection }
        }
      }),
  },
  {
    name: 'R3',
    lacks: 'bytes -> mapping, unless the cluster durably reads as zeros',
    starts: ['half-full', 'empty', 'snapshot'],
    clusterSizes: anySize,
    needs: ['write', 'flush', 'write', 'flush'],
    install: () =>
      replace(Allocator.prototype, 'tryAllocate', (original) => {
        return function (this: Allocator, most) {
          const found = original.call(this, most)
          return found && { ...found, blank: true }
        }
      }),
  },
  {
    name: 'R4',
    lacks: 'what a mapping replaces is kept until its bytes are there, unless it reads as zeros',
    starts: ['backing'],
    clusterSizes: anySize,
    needs: ['write', 'flush', 'overwrite', 'flush'],
    hidden: withoutReservation,
    install: nothing,
    tampering: () => ({
      opened: (parts) => {
        const { ordering } = parts
        const linkData = ordering.linkData.bind(ordering)
        ordering.linkData = (l2, allocated) =>
          lastAllocation.isBlank ? ordering.linkBlankData(l2, allocated) : linkData(l2, allocated)
        const { allocator } = parts
        const tryAllocate = allocator.tryAllocate.bind(allocator)
        allocator.tryAllocate = (most) => {
          const found = tryAllocate(most)
          lastAllocation.isBlank = found?.blank ?? false
          return found
        }
      },
    }),
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
    name: 'G3',
    lacks: 'a freed cluster waits for the requests that may still use it',
    starts: ['half-full', 'backing'],
    clusterSizes: anySize,
    needs: ['overwrite', 'overwrite', 'discard', 'flush', 'write', 'write'],
    window: 2,
    isRace: true,
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
