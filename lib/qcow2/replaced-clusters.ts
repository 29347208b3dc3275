import type { Section } from '../base/units.js'
import type { L2Entry } from './l2-entry.js'
import type { Parts } from './parts.js'

/**
 * Refuse to change entries that name a table's cluster: replacing them would free it. In a data file there are no tables.
 * @param length  bytes that are mapped like this entry, from the beginning of its cluster on
 * @throws ERR_CORRUPT
 */
export function refuseMetadata(parts: Parts, entry: L2Entry, length: number): void {
  if (parts.dataFile !== undefined || entry.host === undefined) return
  parts.metadata.refuse('guest data', entry.host, entry.type === 'compressed' ? entry.bytes : length)
}

/** What the entries mapped before loses a reference, once they are gone for good (E2). Never punched: a crash may bring it back. */
export function freeReplaced(parts: Parts, old: L2Entry, clusters: number, removal: Section): void {
  if (old.host === undefined) return
  const bytes = old.type === 'compressed' ? old.bytes : clusters * parts.geometry.clusterSize
  parts.frees.add(old.host, bytes, { removal, punch: false, wasTable: false })
}
