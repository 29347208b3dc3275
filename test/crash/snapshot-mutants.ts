import { noSection } from '../../lib/base/units.js'
import { Allocator } from '../../lib/qcow2/allocator.js'
import { CountChange } from '../../lib/qcow2/count-change.js'
import { otherwise } from './altered-backend.js'
import { anySize, type Mutant, nothing } from './mutant.js'
import { all, freedAtOnce, hurriedHeader, replace, without } from './mutant-tools.js'
import type { Tampering } from './workload.js'

/** Host offsets of tables in one piece (L1, snapshots) that have been allocated and not been written. */
const tables = new Set<number>()

/** Whether counts are being raised for a snapshot. */
const raising = { is: false }

const noteTables = (): (() => void) =>
  replace(Allocator.prototype, 'allocateAdjacent', (original) => {
    return async function (this: Allocator, count) {
      const allocation = await original.call(this, count)
      tables.add(allocation.host)
      return allocation
    }
  })

const noteRaising = (): (() => void) =>
  replace(CountChange.prototype, 'raise', (original) => {
    return async function (this: CountChange, step) {
      raising.is = true
      try {
        await original.call(this, step)
      } finally {
        raising.is = false
      }
    }
  })

/** What must be there before the header's switch is held back, and queued or written just after it. */
function behindTheHeader(what: 'tables' | 'counts' | 'flags'): () => Tampering {
  return () => {
    let held: (() => void)[] = []
    tables.clear()
    return {
      wrap: (memory) =>
        otherwise(memory, {
          write: (bytes, offset) => {
            if (what !== 'tables' || !tables.delete(offset)) return memory.write(bytes, offset)
            held.push(() => void memory.write(bytes, offset))
            // The file is long enough all the same: it is what the table holds that is missing.
            return memory.writeZeroes(offset, bytes.length, { unmap: false })
          },
          enqueue: (bytes, offset, earliest) => {
            const placed = memory.enqueue(bytes, offset, earliest)
            if (offset !== 0) return placed
            const late = held
            held = []
            for (const write of late) write()
            return placed
          },
        }),
      opened: ({ ordering, backend }) => {
        const addReferences = ordering.addReferences.bind(ordering)
        const share = ordering.share.bind(ordering)
        const hold = (bytes: Uint8Array, host: number): void => {
          const copy = bytes.slice()
          held.push(() => backend.enqueue(copy, host, noSection))
        }
        ordering.addReferences = (counts) => {
          if (what !== 'counts' || !raising.is) return addReferences(counts)
          hold(counts.bytes, counts.host)
          return noSection
        }
        ordering.share = (table) => {
          if (what !== 'flags') return share(table)
          hold(table.bytes, table.host)
          return noSection
        }
      },
    }
  }
}

/** Those that lack a rule of operations on snapshots. */
export const snapshotMutants: readonly Mutant[] = [
  {
    name: 'M12',
    lacks: 'snapshot table, and the copy of the L1 table -> header',
    starts: ['half-full', 'backing', 'empty', 'snapshot'],
    clusterSizes: anySize,
    needs: ['snapshot-create'],
    install: noteTables,
    tampering: behindTheHeader('tables'),
  },
  {
    name: 'M13',
    lacks: 'counts up of all that a snapshot shares -> header',
    starts: ['half-full', 'backing', 'snapshot'],
    clusterSizes: anySize,
    needs: ['snapshot-create'],
    install: noteRaising,
    tampering: behindTheHeader('counts'),
  },
  {
    name: 'M14',
    lacks: 'COPIED cleared in the active tables -> header',
    starts: ['half-full', 'backing'],
    clusterSizes: anySize,
    needs: ['snapshot-create'],
    install: nothing,
    tampering: behindTheHeader('flags'),
  },
  {
    name: 'E11',
    lacks: 'header -> count down and re-use of the old snapshot table',
    starts: ['snapshot'],
    clusterSizes: anySize,
    needs: ['snapshot-create', 'write'],
    install: nothing,
    tampering: all(hurriedHeader('after'), freedAtOnce),
  },
  {
    name: 'E12',
    lacks: 'header without the snapshot -> count down of what it referred to',
    starts: ['snapshot'],
    clusterSizes: anySize,
    needs: ['snapshot-delete'],
    install: nothing,
    tampering: all(hurriedHeader('after'), freedAtOnce),
  },
  {
    name: 'E12 flags',
    lacks: 'counts down -> COPIED',
    starts: ['snapshot'],
    clusterSizes: anySize,
    needs: ['snapshot-delete'],
    install: without('ownAlone', 'after'),
  },
  {
    name: 'E13',
    lacks: 'fresh L1 table -> header, when a snapshot is applied',
    starts: ['snapshot'],
    clusterSizes: anySize,
    needs: ['overwrite', 'snapshot-apply'],
    install: noteTables,
    tampering: behindTheHeader('tables'),
  },
  {
    name: 'E13 counts',
    lacks: 'counts up of what only the snapshot referred to -> header',
    starts: ['snapshot'],
    clusterSizes: anySize,
    needs: ['overwrite', 'snapshot-apply'],
    install: noteRaising,
    tampering: behindTheHeader('counts'),
  },
  {
    name: 'E13 frees',
    lacks: 'header -> count down of what only the old disk referred to',
    starts: ['snapshot'],
    clusterSizes: anySize,
    needs: ['overwrite', 'snapshot-apply'],
    install: nothing,
    tampering: all(hurriedHeader('after'), freedAtOnce),
  },
  {
    name: 'W5',
    lacks: 'COPIED masked in the L1 table that is switched to',
    starts: ['snapshot'],
    clusterSizes: anySize,
    needs: ['snapshot-apply'],
    install: noteTables,
    // As if the snapshot's own table had been taken, with flags that are out of date.
    tampering: () => {
      tables.clear()
      return {
        wrap: (memory) =>
          otherwise(memory, {
            write: (bytes, offset) => {
              if (tables.delete(offset)) {
                for (let at = 0; at < bytes.length; at += 8) {
                  if (bytes.subarray(at, at + 8).some((byte) => byte !== 0))
                    bytes[at] = (bytes[at] as number) | 0x80
                }
              }
              return memory.write(bytes, offset)
            },
          }),
      }
    },
  },
  {
    name: 'W6',
    lacks: 'a fresh L1 table: the active one is overwritten where it stands',
    starts: ['snapshot'],
    clusterSizes: [512],
    needs: ['overwrite', 'far', 'snapshot-apply'],
    install: noteTables,
    tampering: () => {
      tables.clear()
      let active = 0
      return {
        wrap: (memory) =>
          otherwise(memory, {
            // Torn where a table has several sectors.
            write: async (bytes, offset) => {
              if (tables.delete(offset) && active > 0) await memory.write(bytes.slice(), active)
              await memory.write(bytes, offset)
            },
          }),
        opened: ({ l1 }) => {
          active = l1.host
        },
      }
    },
  },
]
