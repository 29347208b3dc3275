import { noSection } from '../../lib/base/units.js'
import { DeferredFrees } from '../../lib/qcow2/deferred-frees.js'
import { Qcow2Image } from '../../lib/qcow2/image.js'
import { RepairOrdering } from '../../lib/qcow2/repair-ordering.js'
import { WriteOrdering } from '../../lib/qcow2/write-ordering.js'
import type { BlockBackend } from '../../lib/queue/backend.js'
import type { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { otherwise } from './altered-backend.js'
import { replace, without } from './mutant-tools.js'

/** An amendment that lacks a rule of its order. */
export type AmendmentMutant = {
  readonly name: string
  readonly lacks: string
  /** Scenarios in which it shows, and what is said of it. */
  readonly shows: Readonly<Record<string, RegExp>>
  /** Put it in place. @returns what puts the right one back */
  readonly install: () => () => void
  readonly wrap?: (memory: MemoryBackend) => BlockBackend
}

type Method = 'rewriteHeader' | 'switchRefcounts' | 'setCompatible'

/** How far a method of RepairOrdering has come: what it has synced and written. */
type Progress = { syncs: number; switches: number; steps: number; lastWrite: 'none' | 'behind' | 'switch' }

/** The method that runs now; mutants leave out some of its syncs. */
let running: Progress | undefined

/** Leave out syncs of a method. @param skips  which */
function hurried(
  method: Method,
  skips: (progress: Progress) => boolean,
): Pick<AmendmentMutant, 'install' | 'wrap'> {
  return {
    install: () =>
      replace(RepairOrdering.prototype, method, (original) => {
        return async function (this: RepairOrdering, ...args: unknown[]) {
          const [steps] = args
          const count = Array.isArray(steps) ? steps.length : 1
          running = { syncs: 0, switches: 0, steps: count, lastWrite: 'none' }
          try {
            await (original as (...args: unknown[]) => Promise<void>).apply(this, args)
          } finally {
            running = undefined
          }
        }
      }),
    wrap: (memory) =>
      otherwise(memory, {
        flush: () => {
          if (running === undefined) return memory.flush()
          running.syncs++
          return skips(running) ? Promise.resolve() : memory.flush()
        },
        write: (bytes, offset) => {
          if (running !== undefined) {
            if (offset === 0) running.switches++
            running.lastWrite = offset === 0 ? 'switch' : 'behind'
          }
          return memory.write(bytes, offset)
        },
      }),
  }
}

/** The entries that `expandZeros` has changed stay in the queue until the header of version 2 has been written. */
function expandedLate(): Pick<AmendmentMutant, 'install' | 'wrap'> {
  const early = hurried('rewriteHeader', ({ lastWrite }) => lastWrite !== 'switch')
  let held: (() => Promise<void>) | undefined
  return {
    install: () => {
      held = undefined
      let hasExpanded = false
      const undoExpand = replace(Qcow2Image.prototype, 'reorganise', (original) => {
        return async function (this: Qcow2Image, ...args) {
          await original.apply(this, args)
          hasExpanded = true
        }
      })
      const undoFreeze = replace(Qcow2Image.prototype, 'freeze', (original) => {
        return async function (this: Qcow2Image) {
          if (hasExpanded) held = () => original.call(this)
          else await original.call(this)
        }
      })
      const undoEarly = early.install()
      return () => {
        undoEarly()
        undoFreeze()
        undoExpand()
      }
    },
    wrap: (memory) => {
      const hurry = early.wrap?.(memory) ?? memory
      return otherwise(hurry, {
        flush: async () => {
          if (running?.lastWrite === 'switch' && held !== undefined) {
            const finish = held
            held = undefined
            running = undefined
            await finish()
          }
          await hurry.flush()
        },
      })
    },
  }
}

/** A queue whose time is up when zeros have been written: it drains while the counts of their clusters are raised further. */
export const draining = (memory: MemoryBackend): BlockBackend =>
  otherwise(memory, {
    writeZeroes: async (offset, length, options) => {
      await memory.writeZeroes(offset, length, options)
      void memory.flush()
      // Until the nodes are on their way.
      await new Promise((resolve) => setImmediate(resolve))
    },
  })

export const amendmentMutants: readonly AmendmentMutant[] = [
  {
    name: 'E26 blocks',
    lacks: 'new refcount structures -> header',
    shows: {
      'refcounts of 16 bits, 512: 64': /corrupt/,
      'refcounts of 16 bits, 4096: 1': /corrupt/,
      'snapshot, 512: refcounts of 2 bits': /corrupt/,
    },
    ...hurried('switchRefcounts', ({ syncs }) => syncs === 1),
  },
  {
    name: 'E26 frees',
    lacks: 'header -> old refcount structures punched',
    shows: {
      'refcounts of 16 bits, 512: 64': /corrupt/,
      'refcounts of 16 bits, 4096: 1': /corrupt/,
      'snapshot, 512: refcounts of 2 bits': /corrupt/,
    },
    ...hurried('switchRefcounts', ({ syncs }) => syncs === 2),
  },
  {
    name: 'E26 expanded',
    lacks: 'entries without zero flags -> header of version 2',
    shows: {
      'half-full, 512: version 2': /zero flag/,
      'backing, 4096: version 2': /zero flag/,
      'snapshot, 512: version 2': /zero flag/,
    },
    ...expandedLate(),
  },
  {
    name: 'E26 zeros',
    lacks: 'zeros in a cluster -> entry without a zero flag',
    shows: { 'half-full, 512: version 2': /content/, 'half-full, 4096: version 2': /content/ },
    install: without('linkData', 'afterData'),
  },
  {
    name: 'E26 counts',
    lacks: 'count of a cluster of zeros -> entry',
    shows: { 'near-block with zeros, 512: version 2': /corrupt/ },
    install: without('linkData', 'after'),
  },
  {
    name: 'E26 shared counts',
    lacks: 'as high a count as a shared table gives a cluster of zeros references -> entry',
    shows: { 'snapshot, 512, draining: version 2': /corrupt/ },
    install: () =>
      replace(WriteOrdering.prototype, 'addReferences', (original) => {
        return function (this: WriteOrdering, ...args) {
          original.apply(this, args)
          return noSection
        }
      }),
  },
  {
    name: 'E26 frees zeros',
    lacks: 'entry -> counts down of the cluster that was kept for it',
    shows: { 'snapshot, 512: version 2': /corrupt/ },
    install: () =>
      replace(DeferredFrees.prototype, 'add', (original) => {
        return function (this: DeferredFrees, host, length, options) {
          original.call(this, host, length, { ...options, removal: noSection })
        }
      }),
  },
  {
    name: 'E26 strings',
    lacks: 'strings behind the first sector -> the sector that points to them',
    shows: { 'version-2, 4096, named: version 3': /header/, 'half-full, 4096, named: version 2': /header/ },
    ...hurried('rewriteHeader', ({ lastWrite }) => lastWrite === 'behind'),
  },
  {
    name: 'E26 told',
    lacks: 'header -> told',
    shows: {
      'version-2, 512: version 3': /told/,
      'half-full, 4096: version 2': /told/,
    },
    ...hurried('rewriteHeader', ({ switches, steps }) => switches === steps),
  },
  {
    name: 'E26 lazy told',
    lacks: 'lazy refcounts in the header -> told',
    shows: { 'half-full, 512: lazy refcounts': /told/ },
    ...hurried('setCompatible', () => true),
  },
]
