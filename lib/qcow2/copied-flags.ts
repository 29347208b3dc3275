import { assert } from '../base/assert.js'
import { hostOffset } from '../base/units.js'
import { clusterOf, entryBytes } from './geometry.js'
import { decodeL2Entry, storeCopiedFlag } from './l2-entry.js'
import { type Parts, withRoom } from './parts.js'
import type { Slice } from './table-cache.js'
import { isCopied, type Step } from './tree-counts.js'

/**
 * Clear COPIED in all entries of L2 tables (E11, E13). While no request runs.
 * @param tables  host offsets
 * @throws what `step` does, between two slices
 */
export async function clearCopied(parts: Parts, tables: readonly number[], step: Step): Promise<void> {
  const total = tables.length * parts.geometry.clusterSize
  for (const [index, table] of tables.entries()) {
    step(index * parts.geometry.clusterSize, total)
    await eachSlice(parts, table, { mayWait: true }, (slice) => {
      let isChanged = false
      for (let at = 0; at < slice.bytes.length; at += parts.geometry.l2EntryBytes) {
        if (!isCopied(decoded(parts, slice, at))) continue
        storeCopiedFlag(slice.view, at, false)
        isChanged = true
      }
      if (isChanged) parts.ordering.share(slice)
    })
  }
  step(total, total)
}

/** Clear COPIED in the first entries of the active L1 table. While no request runs. */
export async function clearL1Copied(parts: Parts, entries: number): Promise<void> {
  const { l1, geometry, ordering } = parts
  const perSlice = geometry.sliceSize / entryBytes
  for (let first = 0; first < entries; first += perSlice) {
    await withRoom(parts, { mayWait: true }, () => {
      const end = Math.min(entries, first + perSlice)
      const copied = Array.from({ length: end - first }, (_, step) => first + step).filter(
        (index) => l1.table(index)?.copied === true,
      )
      for (const index of copied) l1.setCopied(index, false)
      if (copied.length > 0) ordering.share(l1.slice(first))
    })
  }
}

/**
 * Set COPIED in the active tables wherever the count is 1, as the format wants it. While no request runs.
 * @param how     `ownAlone`: a snapshot has gone; `unshare`: one has not come about
 * @param room    whether to wait for room in the queue; where it has failed for lack of space there is none to be waited for
 */
export async function setCopied(
  parts: Parts,
  how: 'ownAlone' | 'unshare',
  room: { readonly mayWait: boolean },
): Promise<void> {
  const { l1, geometry, ordering } = parts
  for (let index = 0; index < l1.entries; index++) {
    const table = l1.table(index)
    if (table === undefined) continue
    // Tables that seem to be shared are looked at as well: their count may be higher than it has to be, after a crash. What is in a table
    // that is shared in fact has counts above 1 itself, since each of the table's owners counts there.
    const isAlone = (await countOf(parts, clusterOf(geometry, table.host))) === 1
    if (isAlone && !table.copied) {
      await withRoom(parts, room, () => {
        ordering[how](l1.setCopied(index, true))
      })
    }
    await eachSlice(parts, table.host, room, async (slice) => {
      const owned: number[] = []
      for (let at = 0; at < slice.bytes.length; at += parts.geometry.l2EntryBytes) {
        const entry = decoded(parts, slice, at)
        const isPlain = entry.type === 'normal' || entry.type === 'zero'
        if (!isPlain || entry.host === undefined || entry.copied) continue
        const cluster = clusterOf(geometry, entry.host)
        const count = parts.allocator.knownCount(cluster) ?? (await countOf(parts, cluster))
        if (count === 1) owned.push(at)
      }
      for (const at of owned) storeCopiedFlag(slice.view, at, true)
      if (owned.length > 0) ordering[how](slice)
    })
  }
}

function decoded(parts: Parts, slice: Slice, at: number): ReturnType<typeof decodeL2Entry> {
  const { clusterBits, extendedL2 } = parts.geometry
  const rules = { version: parts.version, clusterBits, extendedL2 }
  return decodeL2Entry(slice.view.getUint32(at), slice.view.getUint32(at + 4), rules, slice.host + at)
}

async function countOf(parts: Parts, cluster: number): Promise<number> {
  const [count] = await parts.allocator.counts(cluster, 1)
  assert(count !== undefined, 'one cluster has one count')
  return count
}

/** Go through the slices of an L2 table, each in memory and pinned while it is looked at, with room for its node. */
async function eachSlice(
  parts: Parts,
  table: number,
  room: { readonly mayWait: boolean },
  visit: (slice: Slice) => void | Promise<void>,
): Promise<void> {
  const { geometry, l2Cache } = parts
  for (let within = 0; within < geometry.clusterSize; within += geometry.sliceSize) {
    const host = hostOffset(table + within)
    await withRoom(parts, room, async () => {
      let slice = l2Cache.get(host)
      for (; slice === undefined; slice = l2Cache.get(host)) await l2Cache.load(host)
      slice.pins++
      try {
        await visit(slice)
      } finally {
        slice.pins--
      }
    })
  }
}
