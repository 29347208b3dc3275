import type { BlockBackend } from '../../lib/queue/backend.js'
import { CompactCounts } from '../../lib/qcow2/compact-counts.js'
import { CompactOrdering } from '../../lib/qcow2/compact-ordering.js'
import { otherwise } from './altered-backend.js'
import { replace } from './mutant-tools.js'

/** A compaction that lacks a rule of its order. */
export type CompactionMutant = {
  readonly name: string
  readonly lacks: string
  /** Of `scenarios`: where it shows. */
  readonly shows: readonly (
    'plain' | 'snapshot' | 'compressed' | 'extended' | 'bitmaps' | 'holed' | 'tables'
  )[]
  /** Put it in place. @returns what puts the right one back */
  readonly install: () => () => void
  readonly wrap?: (memory: BlockBackend) => BlockBackend
}

type Barrier = 'copied' | 'switched' | 'blockWritten' | 'blocksDropped' | 'settled'

const without = (barrier: Barrier) => (): (() => void) =>
  replace(CompactOrdering.prototype, barrier, () => () => Promise.resolve())

/** What is written between the counts and the first barrier is held back behind it. */
const held: (() => Promise<void>)[] = []
let isCopying = false

const copying = (what: 'counts' | 'copies') => (): (() => void) => {
  held.length = 0
  isCopying = false
  const undoWrite = replace(CompactCounts.prototype, 'write', (original) => {
    return async function (this: CompactCounts) {
      if (what === 'copies') await original.call(this)
      else held.push(() => original.call(this))
      isCopying = what === 'copies'
    }
  })
  const undoCopied = replace(CompactOrdering.prototype, 'copied', (original) => {
    return async function (this: CompactOrdering) {
      isCopying = false
      await original.call(this)
      while (held.length > 0) await held.shift()?.()
    }
  })
  return () => {
    undoWrite()
    undoCopied()
  }
}

export const compactionMutants: readonly CompactionMutant[] = [
  {
    name: 'E25',
    lacks: 'copies and counts of the new places -> entries',
    shows: ['plain', 'snapshot', 'compressed', 'extended', 'bitmaps', 'holed', 'tables'],
    install: without('copied'),
  },
  {
    name: 'E25 counts',
    lacks: 'counts of the new places -> entries',
    shows: ['plain', 'snapshot', 'compressed', 'extended', 'bitmaps', 'holed', 'tables'],
    install: copying('counts'),
  },
  {
    name: 'E25 copies',
    lacks: 'copies -> entries',
    shows: ['plain', 'snapshot', 'compressed', 'extended', 'tables'],
    install: copying('copies'),
    wrap: (memory) =>
      otherwise(memory, {
        write: (bytes, offset) => {
          if (!isCopying) return memory.write(bytes, offset)
          const copy = bytes.slice()
          held.push(() => memory.write(copy, offset))
          return Promise.resolve()
        },
      }),
  },
  {
    name: 'E25 frees',
    lacks: 'entries -> counts down and re-use of the old places, and the file cut',
    shows: ['plain', 'snapshot', 'compressed', 'extended', 'bitmaps', 'holed', 'tables'],
    install: without('switched'),
  },
  {
    name: 'E25 block',
    lacks: 'a new refcount block -> its entry in the refcount table',
    shows: ['holed'],
    install: without('blockWritten'),
  },
  {
    name: 'E25 drop',
    lacks: 'a refcount block named no more -> its own count down',
    shows: ['holed'],
    install: without('blocksDropped'),
  },
  {
    name: 'E25 cut',
    lacks: 'counts down -> the file cut',
    shows: ['plain', 'compressed', 'extended'],
    install: without('settled'),
  },
]
