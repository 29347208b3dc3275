import { noSection } from '../../lib/base/units.js'
import { ActiveRequests } from '../../lib/qcow2/active-requests.js'
import { RefcountGrowth } from '../../lib/qcow2/refcount-growth.js'
import { Reservation } from '../../lib/qcow2/reservation.js'
import { otherwise } from './altered-backend.js'
import { withoutReservation } from './format-mutants.js'
import { anySize, type Mutant, nothing } from './mutant.js'
import { replace } from './mutant-tools.js'

/** Those that lack a rule of counts which several parts have a hand in. */
export const allocationMutants: readonly Mutant[] = [
  {
    name: 'R5',
    lacks: "a refcount block's entry in the table -> what refers to reserved clusters that it counts",
    starts: ['near-block'],
    clusterSizes: anySize,
    needs: ['write', 'write', 'far', 'flush'],
    hidden: { on: ({ reserves }) => !reserves, because: 'nothing is reserved there' },
    install: () => {
      let isReserving = false
      const undoRenew = replace(Reservation.prototype, 'renew', (original) => {
        return function (this: Reservation) {
          isReserving = true
          original.call(this)
          isReserving = false
        }
      })
      const undoPublished = replace(RefcountGrowth.prototype, 'publishedAfter', (original) => {
        return function (this: RefcountGrowth, cluster) {
          return isReserving ? noSection : original.call(this, cluster)
        }
      })
      return () => {
        undoPublished()
        undoRenew()
      }
    },
  },
  {
    name: 'R6',
    lacks: 'a reserved cluster is given out when the zeros that go there have been written',
    starts: ['half-full', 'snapshot', 'backing'],
    clusterSizes: anySize,
    // The sync of what is written in place lets the first reservation have zeros.
    needs: ['overwrite', 'flush', 'write', 'flush', 'write', 'flush'],
    setting: { zeros: true },
    hidden: withoutReservation,
    install: nothing,
    // Nobody waits for them: they come behind the first bytes that a guest writes there.
    tampering: () => {
      const late: { bytes: Uint8Array; offset: number }[] = []
      return {
        wrap: (memory) =>
          otherwise(memory, {
            write: async (bytes, offset) => {
              if (bytes.every((byte) => byte === 0)) {
                late.push({ bytes, offset })
                return
              }
              await memory.write(bytes, offset)
              const due = late.findIndex((zeros) => contains(zeros, offset))
              if (due < 0) return
              for (const zeros of late.splice(due, 1)) await memory.write(zeros.bytes, zeros.offset)
            },
          }),
      }
    },
  },
  {
    name: 'E17 shared',
    lacks: 'count of a cluster that compressed clusters share -> the L2 entry of the later one',
    starts: ['half-full', 'empty', 'backing'],
    clusterSizes: anySize,
    needs: ['compress', 'flush', 'compress', 'flush'],
    install: nothing,
    // Counts that go up beside an allocation are those of sharing.
    tampering: () => ({
      opened: ({ allocator, ordering }) => {
        let isAllocating = false
        const tryAllocate = allocator.tryAllocate.bind(allocator)
        allocator.tryAllocate = (most, options) => {
          isAllocating = true
          try {
            return tryAllocate(most, options)
          } finally {
            isAllocating = false
          }
        }
        const addReferences = ordering.addReferences.bind(ordering)
        ordering.addReferences = (refcounts) => {
          const counted = addReferences(refcounts)
          return isAllocating ? counted : noSection
        }
      },
    }),
  },
  {
    name: 'late frees',
    lacks: 'what is durably gone is counted down soon',
    starts: ['half-full', 'backing'],
    clusterSizes: anySize,
    // More than are reserved; and then nothing but flushes, which would have seen them off.
    needs: [...Array.from({ length: 18 }, () => 'discard-more' as const), 'flush', 'flush', 'flush', 'flush'],
    window: 1,
    install: nothing,
    // All of it waits for the image to be closed.
    tampering: () => ({
      opened: ({ frees }) => {
        const release = frees.release.bind(frees)
        frees.release = () => undefined
        const settled = frees.settled.bind(frees)
        frees.settled = async () => {
          frees.release = release
          await settled()
        }
      },
    }),
  },
  {
    name: 'H10',
    lacks: 'a resize waits for the requests that run',
    starts: ['half-full', 'backing'],
    clusterSizes: anySize,
    needs: ['grow-l1', 'far', 'grow-l1', 'flush'],
    window: 4,
    isRace: true,
    install: () =>
      replace(ActiveRequests.prototype, 'exclusively', () => async (work) => {
        return await work()
      }),
  },
]

function contains(piece: { bytes: Uint8Array; offset: number }, offset: number): boolean {
  return offset >= piece.offset && offset < piece.offset + piece.bytes.length
}
