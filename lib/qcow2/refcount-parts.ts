import type { HostOffset, Section } from '../base/units.js'
import type { BlockBackend } from '../queue/backend.js'
import type { Geometry } from './geometry.js'
import type { MetadataMap } from './metadata-map.js'
import type { RefcountTable } from './refcount-table.js'
import type { TableCache } from './table-cache.js'
import type { WriteOrdering } from './write-ordering.js'

/** A run of host clusters whose counts went from 0 to 1. */
export type Allocation = {
  readonly host: HostOffset
  readonly clusters: number
  /** Whatever refers to these clusters comes after this section. */
  readonly after: Section
  /** Nothing was ever written there: it reads as zeros. */
  readonly fresh: boolean
  /** So it does after any crash: the file durably reaches behind it. */
  readonly blank: boolean
}

/** What the allocator works on; shared by the parts of an open image. */
export type RefcountParts = {
  readonly backend: BlockBackend
  readonly geometry: Geometry
  readonly table: RefcountTable
  readonly cache: TableCache
  readonly metadata: MetadataMap
  readonly ordering: WriteOrdering
}
