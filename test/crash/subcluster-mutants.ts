import { noSection } from '../../lib/base/units.js'
import { L2Tables } from '../../lib/qcow2/l2-tables.js'
import { type TableBytes, WriteOrdering } from '../../lib/qcow2/write-ordering.js'
import { otherwise } from './altered-backend.js'
import { type Mutant, nothing } from './mutant.js'
import { replace, without } from './mutant-tools.js'
import { readPayload } from './payload.js'
import { extendedClusterSize } from './start-images.js'
import type { Tampering } from './workload.js'

const clusterSizes = [extendedClusterSize] as const

/** Whether the newest data write held sectors of several generations: the guest's, and what is copied beside them. */
const lastWrite = { wasCopy: false }

const noteCopies = (): Tampering => ({
  wrap: (memory) =>
    otherwise(memory, {
      write: async (bytes, offset) => {
        const generations = new Set<number>()
        for (let at = 0; at < bytes.length; at += 512) generations.add(readPayload(bytes, at).generation)
        await memory.write(bytes, offset)
        lastWrite.wasCopy = generations.size > 1
      },
    }),
})

const isZeros = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0)

/** What the first words of the entries in a slice say: where clusters are. */
function clustersIn({ bytes }: TableBytes): string {
  const words: string[] = []
  for (let at = 0; at < bytes.length; at += 16)
    words.push(Buffer.from(bytes.subarray(at, at + 8)).toString('hex'))
  return words.join()
}

/** E4 alone: bits that are set in clusters which are there wait for no bytes. @returns takes it back */
export function bitsBeforeBytes(): () => void {
  const known = new WeakMap<TableBytes, string>()
  const restores = [
    replace(WriteOrdering.prototype, 'linkData', (original) => {
      return function (this: WriteOrdering, l2, allocated) {
        const clusters = clustersIn(l2)
        const areThere = known.get(l2) === clusters
        known.set(l2, clusters)
        return areThere ? this.linkBlankData(l2, allocated) : original.call(this, l2, allocated)
      }
    }),
    replace(WriteOrdering.prototype, 'unlink', (original) => {
      return function (this: WriteOrdering, l2) {
        known.set(l2, clustersIn(l2))
        return original.call(this, l2)
      }
    }),
  ]
  return () => {
    for (const restore of restores) restore()
  }
}

/** Those that lack a rule of subclusters. */
export const subclusterMutants: readonly Mutant[] = [
  {
    name: 'E4',
    lacks: 'bytes of a subcluster in a cluster that is there -> its bit',
    starts: ['extended', 'extended-backing'],
    clusterSizes,
    needs: ['sub', 'flush'],
    install: nothing,
    tampering: () => ({
      opened: ({ ordering }) => {
        const linkData = ordering.linkData.bind(ordering)
        // Such clusters have been counted long ago.
        ordering.linkData = (l2, allocated) =>
          allocated === noSection ? ordering.linkBlankData(l2, allocated) : linkData(l2, allocated)
      },
    }),
  },
  {
    name: 'E4 copied',
    lacks: 'bytes copied around a write in its subcluster -> the bit',
    starts: ['extended-backing'],
    clusterSizes,
    needs: ['sub', 'flush', 'sub', 'flush'],
    install: without('linkData', 'afterData', () => lastWrite.wasCopy),
    tampering: noteCopies,
  },
  {
    name: 'E4 in place',
    lacks: 'a write in place is one into subclusters that are there',
    starts: ['extended', 'extended-backing'],
    clusterSizes,
    needs: ['sub', 'flush'],
    install: () =>
      replace(L2Tables.prototype, 'clusterEntry', (original) => {
        return function (this: L2Tables, guest) {
          const entry = original.call(this, guest)
          if ('load' in entry || entry.cluster.type !== 'normal') return entry
          return { ...entry, allocated: ~entry.zero >>> 0 }
        }
      }),
  },
  {
    name: 'E4 neighbour',
    lacks: 'a write in place is one into subclusters all of which are there, not only the first',
    starts: ['extended', 'extended-backing'],
    clusterSizes,
    needs: ['sub', 'sub-over', 'flush'],
    install: () =>
      replace(L2Tables.prototype, 'contiguousHost', (original) => {
        return function (this: L2Tables, guest, _length, options) {
          return original.call(this, guest, 1, options)
        }
      }),
  },
  {
    name: 'E16 zeros',
    lacks: 'the rest of a subcluster that read as zeros is made zeros -> its bit',
    starts: ['extended'],
    clusterSizes,
    needs: ['sub', 'sub-zero', 'flush', 'sub-again', 'flush'],
    install: nothing,
    tampering: () => ({
      wrap: (memory) =>
        otherwise(memory, {
          // Sectors of zeros at either end are left as they are.
          write: (bytes, offset) => {
            let [start, end] = [0, bytes.length]
            if (bytes.length % 512 !== 0 || isZeros(bytes)) return memory.write(bytes, offset)
            while (isZeros(bytes.subarray(start, start + 512))) start += 512
            while (isZeros(bytes.subarray(end - 512, end))) end -= 512
            return memory.write(bytes.subarray(start, end), offset + start)
          },
        }),
    }),
  },
  {
    name: 'H9',
    lacks: 'a discard waits for whoever gives subclusters of the cluster their bytes',
    starts: ['extended', 'extended-backing'],
    clusterSizes,
    needs: ['sub', 'discard', 'flush', 'write', 'sub-again'],
    window: 3,
    isRace: true,
    install: nothing,
    tampering: () => ({
      opened: ({ locks }) => {
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
