import { corrupt } from '../base/errors.js'
import { ReferenceCounts } from './check-counts.js'
import { type ReadTable, readTables } from './check-tables.js'
import { clusterOf, entryBytes, type Geometry } from './geometry.js'
import { decodeL1Entry, decodeL2Entry, type L2Entry } from './l2-entry.js'
import type { Parts } from './parts.js'

/** An L1 table with all that it refers to: the active one, or a snapshot's. */
export type Tree = {
  /** Big-endian entries. */
  readonly l1: Uint8Array
  /** How many of them count. */
  readonly entries: number
  /** Where the L1 table stands in the file, for messages. */
  readonly host: number
}

/** How often a tree refers to each cluster; its L1 table's own clusters are left out. */
export type TreeCounts = {
  readonly counts: ReferenceCounts
  /** Host offsets of the L2 tables that have COPIED entries. */
  readonly copiedTables: readonly number[]
}

/** Called between the steps of a walk, with bytes of the file. @throws to stop it */
export type Step = (done: number, total: number) => void

/** As a check may take: enough for 400 million clusters in use. */
const countBytes = 512 * 1024 * 1024

/**
 * Count the references of a tree. Nothing is changed. Tables are read a few MiB at a time; memory for the counts follows the clusters in use.
 * @throws ERR_CORRUPT        an entry that no image can have, or one that points behind the end of the file
 * @throws ERR_NOT_SUPPORTED  it refers to more clusters than there is memory for
 */
export async function countTree(parts: Parts, tree: Tree, step: Step): Promise<TreeCounts> {
  const { geometry, backend } = parts
  const counts = new ReferenceCounts(countBytes, 'Counting the references of a snapshot')
  const copiedTables: number[] = []
  const tables: [index: number, host: number][] = []
  for (const { index, host } of l2TablesOf(tree, geometry)) {
    refuseBehindEnd(parts, 'L1 entry', tree.host + index * entryBytes, host)
    counts.set(clusterOf(geometry, host), counts.get(clusterOf(geometry, host)) + 1)
    tables.push([index, host])
  }
  let done = 0
  for await (const batch of readTables(backend, tables, geometry.clusterSize)) {
    step(done * geometry.clusterSize, tables.length * geometry.clusterSize)
    done += batch.length
    for (const table of batch) if (countTable(parts, table, counts)) copiedTables.push(table.offset)
  }
  step(done * geometry.clusterSize, done * geometry.clusterSize)
  return { counts, copiedTables }
}

/** The L2 tables of a tree, by L1 index. @throws ERR_CORRUPT */
export function* l2TablesOf(
  tree: Tree,
  geometry: Geometry,
): Generator<{ readonly index: number; readonly host: number }> {
  const view = new DataView(tree.l1.buffer, tree.l1.byteOffset, tree.l1.byteLength)
  for (let index = 0; index < tree.entries; index++) {
    const at = index * entryBytes
    const high = view.getUint32(at)
    const low = view.getUint32(at + 4)
    const table = decodeL1Entry(high, low, geometry.clusterBits, tree.host + at)
    if (table !== undefined) yield { index, host: table.host }
  }
}

/** @returns whether an entry is COPIED */
function countTable(parts: Parts, table: ReadTable, counts: ReferenceCounts): boolean {
  const { geometry, version } = parts
  const rules = { version, clusterBits: geometry.clusterBits, extendedL2: geometry.extendedL2 }
  let hasCopied = false
  for (let at = 0; at < geometry.clusterSize; at += geometry.l2EntryBytes) {
    const high = table.view.getUint32(at)
    const low = table.view.getUint32(at + 4)
    if (high === 0 && low === 0) continue
    const place = table.offset + at
    const entry = decodeL2Entry(high, low, rules, place)
    if (isCopied(entry)) hasCopied = true
    const range = rangeOf(entry, geometry)
    if (range === undefined) continue
    refuseBehindEnd(parts, 'L2 entry', place, range.host)
    const last = clusterOf(geometry, range.host + range.bytes - 1)
    for (let cluster = clusterOf(geometry, range.host); cluster <= last; cluster++)
      counts.set(cluster, counts.get(cluster) + 1)
  }
  return hasCopied
}

/** The host bytes that an entry refers to. */
function rangeOf(entry: L2Entry, geometry: Geometry): { host: number; bytes: number } | undefined {
  switch (entry.type) {
    case 'unallocated':
      return undefined
    case 'compressed':
      return entry
    case 'zero':
      return entry.host === undefined ? undefined : { host: entry.host, bytes: geometry.clusterSize }
    case 'normal':
      return { host: entry.host, bytes: geometry.clusterSize }
  }
}

export function isCopied(entry: L2Entry): boolean {
  return (entry.type === 'normal' || entry.type === 'zero') && entry.copied
}

function refuseBehindEnd(parts: Parts, structure: string, place: number, host: number): void {
  if (host < parts.backend.length) return
  throw corrupt(structure, place, `host offset ${host} lies behind the end of the file`)
}
