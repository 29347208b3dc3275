import { noSection, type Section } from '../../lib/base/units.js'
import { addon } from '../../lib/native/addon.js'
import type { NativeAddon } from '../../lib/native/types.js'
import type { Parts } from '../../lib/qcow2/parts.js'
import { loadRefcount } from '../../lib/qcow2/refcount-entry.js'
import { WriteOrdering } from '../../lib/qcow2/write-ordering.js'
import { Context } from '../../lib/queue/context.js'
import type { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { otherwise } from './altered-backend.js'
import type { SyncWatch, Tampering } from './workload.js'

/** What mutants are made of: ways to leave out one rule of the right implementation while a test runs. */

type OrderingMethod = 'linkData' | 'linkL2Table' | 'publishRefcountBlock' | 'ownAlone' | 'replaceStrings'

/** Leave out a call of the policy's. @param applies  whether to do it this time */
export function without(
  method: OrderingMethod,
  call: 'after' | 'afterData' | 'barrier',
  applies: () => boolean = () => true,
): () => () => void {
  return () => {
    let isInside = false
    const undoMethod = replace(WriteOrdering.prototype, method, (original) => {
      return function (this: WriteOrdering, ...args: unknown[]): Section {
        isInside = applies()
        try {
          return (original as (...args: unknown[]) => Section).apply(this, args)
        } finally {
          isInside = false
        }
      }
    })
    const undoCall = replace(Context.prototype, call, (original) => {
      return function (this: Context, predecessor: Section): void {
        if (!isInside) original.call(this, predecessor)
      }
    })
    return () => {
      undoCall()
      undoMethod()
    }
  }
}

/** Put something in the place of a method. @returns what puts it back */
export function replace<T extends object, K extends keyof T>(
  owner: T,
  name: K,
  make: (original: T[K]) => T[K],
): () => void {
  const original = owner[name]
  owner[name] = make(original)
  return () => {
    owner[name] = original
  }
}

export type QueueClass = NativeAddon['RequestQueue']

/** Put another pure queue in place of the addon's. */
export function withQueue(make: (Queue: QueueClass) => QueueClass): () => () => void {
  return () => replace(addon() as { RequestQueue: QueueClass }, 'RequestQueue', make)
}

/** Change how clusters are freed. */
export function freeing(
  change: (parts: Parts, add: Parts['frees']['add']) => Parts['frees']['add'],
): () => Tampering {
  return () => ({
    opened: (parts) => {
      parts.frees.add = change(parts, parts.frees.add.bind(parts.frees))
    },
  })
}

/** A copy of the slice that counts a cluster, and its count. */
export function countOf(
  parts: Parts,
  cluster: number,
): { slice: number; index: number; bytes: Uint8Array; count: number } | undefined {
  const place = parts.table.place(cluster)
  const slice = place && parts.cache.get(place.slice)
  if (place === undefined || slice === undefined) return undefined
  const bytes = slice.bytes.slice()
  const count = loadRefcount(new DataView(bytes.buffer), place.index, parts.geometry)
  return { slice: place.slice, index: place.index, bytes, count }
}

/** The header's switch does not wait for what precedes it, or for itself. */
export function hurriedHeader(skip: 'before' | 'after' | 'both'): () => Tampering {
  return () => {
    let isSwitching = false
    let header = -1
    return {
      wrap: (memory) =>
        otherwise(memory, {
          flush: () => (isSwitching && skip !== 'after' ? Promise.resolve() : memory.flush()),
          enqueue: (bytes, offset, earliest) => {
            const placed = memory.enqueue(bytes, offset, earliest)
            if (offset === 0) header = placed
            return placed
          },
          durable: (through) =>
            through === header && skip !== 'before' ? Promise.resolve() : memory.durable(through),
        }),
      opened: (parts) => {
        const original = parts.ordering.switchHeader.bind(parts.ordering)
        parts.ordering.switchHeader = (change, switched) => {
          isSwitching = true
          try {
            return original(change, switched)
          } finally {
            isSwitching = false
          }
        }
      },
    }
  }
}

export function all(...tamperings: (() => Tampering)[]): () => Tampering {
  return () => {
    const made = tamperings.map((make) => make())
    const wrap = made.find((one) => one.wrap !== undefined)?.wrap
    return {
      ...(wrap === undefined ? {} : { wrap }),
      opened: (parts) => {
        for (const one of made) one.opened?.(parts)
      },
    }
  }
}

export const freedAtOnce = freeing((_parts, add) => (host, length, options) => {
  add(host, length, { ...options, removal: noSection })
})

/** A flush that ends before its time. `begin`: when its sync begins; `join`: with one that runs already; `data`: with the first sync. */
export function earlyFlush(how: 'begin' | 'join' | 'data'): () => Tampering {
  return () => ({
    wrap: (memory: MemoryBackend, watch: SyncWatch) => {
      let waiting: (() => void)[] = []
      let isSyncing = false
      const wake = (): void => {
        const woken = waiting
        waiting = []
        for (const resume of woken) resume()
      }
      watch.onSync = () => {
        isSyncing = true
        if (how === 'begin' && memory.stats().queuedNodesNow === 0) wake()
      }
      memory.onProgress(() => {
        const last = memory.log.findLast(({ type }) => type === 'SSUB' || type === 'SEND')?.type
        isSyncing = last === 'SSUB'
        if (how === 'data' ? last === 'SEND' : !isSyncing) wake()
      })
      return otherwise(memory, {
        flush: () => {
          if (how === 'join' && !(isSyncing && memory.stats().queuedNodesNow === 0)) return memory.flush()
          const early = new Promise<void>((resolve) => waiting.push(resolve))
          return how === 'join' ? early : Promise.race([memory.flush(), early])
        },
      })
    },
  })
}
