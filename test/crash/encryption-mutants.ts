import { EncryptedData } from '../../lib/qcow2/encrypted-data.js'
import { withoutReservation } from './format-mutants.js'
import { type Mutant, nothing } from './mutant.js'
import { replace } from './mutant-tools.js'
import type { Tampering } from './workload.js'

/** What is right where zeros that nobody wrote read as zeros: a cluster in which nothing ever stood is mapped before its bytes. */
const blankFirst = (): Tampering => ({
  opened: ({ allocator, ordering }) => {
    let isBlank = false
    const tryAllocate = allocator.tryAllocate.bind(allocator)
    const linkData = ordering.linkData.bind(ordering)
    allocator.tryAllocate = (clusters) => {
      const allocation = tryAllocate(clusters)
      isBlank = allocation?.blank === true
      return allocation
    }
    ordering.linkData = (l2, allocated) =>
      isBlank ? ordering.linkBlankData(l2, allocated) : linkData(l2, allocated)
  },
})

/** Those that lack what is special about encrypted images: what nobody wrote is noise there. */
export const encryptionMutants: readonly Mutant[] = [
  {
    name: 'E1 encrypted',
    lacks: 'the encrypted bytes of a cluster in which nothing ever stood -> its L2 entry',
    starts: ['encrypted'],
    clusterSizes: [4096],
    needs: ['write', 'flush', 'write', 'flush'],
    setting: { reserves: true },
    hidden: withoutReservation,
    install: nothing,
    tampering: blankFirst,
  },
  {
    name: 'encrypted zeros',
    lacks: 'zeros around a write of a part of a cluster are written, encrypted',
    starts: ['encrypted'],
    clusterSizes: [4096],
    needs: ['partial-new', 'flush'],
    install: () =>
      replace(EncryptedData.prototype, 'write', (original) => {
        return async function (this: EncryptedData, bytes, host, guest) {
          // Sectors of zeros at either end are left as they are.
          const isZeros = (at: number): boolean => bytes.subarray(at, at + 512).every((byte) => byte === 0)
          let [start, end] = [0, bytes.length]
          if (bytes.length % 512 === 0) {
            while (start < end && isZeros(start)) start += 512
            while (end > start && isZeros(end - 512)) end -= 512
          }
          if (start < end) await original.call(this, bytes.subarray(start, end), host + start, guest + start)
        }
      }),
  },
]
