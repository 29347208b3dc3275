import { noSection } from '../../lib/base/units.js'
import { Allocator } from '../../lib/qcow2/allocator.js'
import { Bitmaps } from '../../lib/qcow2/bitmaps.js'
import { Qcow2Image } from '../../lib/qcow2/image.js'
import type { Parts } from '../../lib/qcow2/parts.js'
import { WriteOrdering } from '../../lib/qcow2/write-ordering.js'
import { otherwise } from './altered-backend.js'
import { anySize, type Mutant, nothing } from './mutant.js'
import { all, freedAtOnce, replace } from './mutant-tools.js'
import type { Tampering } from './workload.js'

/** Host offsets of tables in one piece that have been allocated and not been written. */
const tables = new Set<number>()

const noteTables = (): (() => void) =>
  replace(Allocator.prototype, 'allocateAdjacent', (original) => {
    return async function (this: Allocator, count) {
      const allocation = await original.call(this, count)
      tables.add(allocation.host)
      return allocation
    }
  })

/** What the header's switch has to wait for is held back, and queued or written just after it. */
function behindTheHeader(what: 'tables' | 'counts'): () => Tampering {
  return () => {
    let held: (() => void)[] = []
    tables.clear()
    const release = (): void => {
      const late = held
      held = []
      for (const write of late) write()
    }
    return {
      wrap: (memory) =>
        otherwise(memory, {
          write: (bytes, offset) => {
            if (what !== 'tables' || !tables.delete(offset)) return memory.write(bytes, offset)
            held.push(() => void memory.write(bytes, offset))
            return memory.writeZeroes(offset, bytes.length, { unmap: false })
          },
          enqueue: (bytes, offset, earliest) => {
            const placed = memory.enqueue(bytes, offset, earliest)
            if (offset === 0) release()
            return placed
          },
        }),
      opened: ({ ordering, backend, allocator }: Parts) => {
        if (what !== 'counts') return
        let isTable = false
        const adjacent = allocator.allocateAdjacent.bind(allocator)
        allocator.allocateAdjacent = async (count) => {
          isTable = true
          try {
            return await adjacent(count)
          } finally {
            isTable = false
          }
        }
        const addReferences = ordering.addReferences.bind(ordering)
        ordering.addReferences = (counts) => {
          if (!isTable) return addReferences(counts)
          const copy = counts.bytes.slice()
          held.push(() => backend.enqueue(copy, counts.host, noSection))
          return noSection
        }
      },
    }
  }
}

/** The header is not waited for when it is switched to other bitmaps. */
function notDurable(): Tampering {
  let header = -1
  return {
    wrap: (memory) =>
      otherwise(memory, {
        enqueue: (bytes, offset, earliest) => {
          const placed = memory.enqueue(bytes, offset, earliest)
          if (offset === 0) header = placed
          return placed
        },
        durable: (through) => (through === header ? Promise.resolve() : memory.durable(through)),
      }),
  }
}

/** Changes of this kind are not marked. */
function unmarked(kind: 'write' | 'writeCompressed' | 'writeZeroes' | 'discard'): () => () => void {
  return () => {
    let isMeant = false
    const undoMark = replace(Bitmaps.prototype, 'mark', (original) => {
      return function (this: Bitmaps, offset, length) {
        if (!isMeant) original.call(this, offset, length)
      }
    })
    const undo = replace(Qcow2Image.prototype, kind, (original) => {
      return function (this: Qcow2Image, ...args: unknown[]): Promise<void> {
        isMeant = true
        try {
          return (original as (...args: unknown[]) => Promise<void>).apply(this, args)
        } finally {
          isMeant = false
        }
      }
    })
    return () => {
      undo()
      undoMark()
    }
  }
}

/** The first change of a session waits, and is not known here: another one goes before. */
const unmarkedKinds = [
  { kind: 'write', needs: ['write', 'overwrite'] },
  { kind: 'writeCompressed', needs: ['write', 'compress-over'] },
  { kind: 'writeZeroes', needs: ['write', 'zero'] },
  { kind: 'discard', needs: ['write', 'discard'] },
] as const

const common = { starts: ['bitmaps'], clusterSizes: anySize } as const

/** Those that lack a rule of bitmaps. */
export const bitmapMutants: readonly Mutant[] = [
  {
    ...common,
    name: 'E19 late',
    lacks: 'bitmaps in use -> first write of a guest',
    needs: ['overwrite', 'flush'],
    install: () => replace(WriteOrdering.prototype, 'bitmapsInUse', () => () => Promise.resolve()),
  },
  {
    ...common,
    name: 'E19 never',
    lacks: 'bitmaps say that they are in use',
    needs: ['overwrite', 'flush'],
    install: () => {
      const due = Object.getOwnPropertyDescriptor(Bitmaps.prototype, 'due')
      Object.defineProperty(Bitmaps.prototype, 'due', { ...due, get: () => false })
      return () => void Object.defineProperty(Bitmaps.prototype, 'due', { ...due })
    },
  },
  {
    ...common,
    name: 'E19 resize',
    lacks: 'bitmaps that do not follow the disk are in use while it gets another size',
    needs: ['grow-l1'],
    install: () =>
      replace(Bitmaps.prototype, 'announce', (original) => {
        return function (this: Bitmaps) {
          return original.call(this, 'running')
        }
      }),
  },
  {
    ...common,
    name: 'E20',
    lacks: 'bits, tables and directory -> header',
    needs: ['overwrite', 'bitmap-add'],
    install: noteTables,
    tampering: behindTheHeader('tables'),
  },
  {
    ...common,
    name: 'E20 counts',
    lacks: 'counts up of bits, tables and directory -> header',
    needs: ['overwrite', 'bitmap-add'],
    install: nothing,
    tampering: behindTheHeader('counts'),
  },
  {
    ...common,
    name: 'E20 frees',
    lacks: 'header -> count down and re-use of the old bits, tables and directory',
    needs: ['bitmap-add', 'write'],
    install: nothing,
    tampering: all(notDurable, freedAtOnce),
  },
  ...unmarkedKinds.map(({ kind, needs }) => ({
    ...common,
    name: `unmarked ${kind}`,
    lacks: `a guest's ${kind} is marked`,
    needs,
    install: unmarked(kind),
  })),
]
