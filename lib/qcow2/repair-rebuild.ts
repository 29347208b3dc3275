import { notSupported } from '../base/errors.js'
import { divideRoundingUp } from '../base/integers.js'
import type { BlockBackend } from '../queue/backend.js'
import { countReferences } from './check-references.js'
import { type CheckOptions, CheckState } from './check-state.js'
import { entryBytes } from './geometry.js'
import type { Header } from './header.js'
import { storeRefcount } from './refcount-entry.js'
import { readSnapshotTable } from './snapshot-table.js'
import { maxRefcountTableBytes } from './spec.js'

/** Where new refcount structures go, in clusters: the blocks one after the other, the table behind them. */
type Place = { readonly start: number; readonly indexes: readonly number[]; readonly tableClusters: number }

/** Each round makes the file longer, and so takes in what pointed past its end; more rounds mean damage without end. */
const roundsAllowed = 8

/**
 * Count all references but those of the refcount structures, and write new structures that say so, behind everything: what
 * lies in unreferenced clusters may be all that is left of somebody's data. Nothing refers to them until the header does.
 * @returns what the header is to be switched to
 * @throws ERR_NOT_SUPPORTED  the file is too long for any refcount table
 */
export async function rebuildRefcounts(
  backend: BlockBackend,
  header: Header,
  options: CheckOptions,
): Promise<{ offset: number; clusters: number }> {
  let fileBytes = backend.length
  const behind = backend.isDevice === true ? await behindEverything(backend, header, options) : undefined
  for (let round = 0; round < roundsAllowed; round++) {
    const state = await recount(backend, header, options, fileBytes)
    const place = findPlace(state, behind ?? state.clusterCount)
    const end = endOf(place) * state.geometry.clusterSize
    // a longer file holds what was past its end before: that has to be counted too
    if (state.wild.counted(0, endOf(place)).next().done) {
      await writeStructures(state, place)
      return {
        offset: (place.start + place.indexes.length) * state.geometry.clusterSize,
        clusters: place.tableClusters,
      }
    }
    fileBytes = end
  }
  throw notSupported('Refcounts cannot be rebuilt: too many entries point past the end of the file', {
    path: backend.path,
  })
}

async function recount(
  backend: BlockBackend,
  header: Header,
  options: CheckOptions,
  fileBytes: number,
): Promise<CheckState> {
  const quiet: CheckOptions = { ...options, repair: undefined, onFinding: undefined }
  const state = new CheckState(backend, header, quiet, { countsRefcountStructures: false, fileBytes })
  await countReferences(state, await readSnapshotTable(backend, header))
  return state
}

/** A device has no end to write behind: the cluster behind all that is referred to, by the refcount structures that are replaced as well. */
async function behindEverything(
  backend: BlockBackend,
  header: Header,
  options: CheckOptions,
): Promise<number> {
  const quiet: CheckOptions = { ...options, repair: undefined, onFinding: undefined }
  const state = new CheckState(backend, header, quiet)
  await countReferences(state, await readSnapshotTable(backend, header))
  let last = 0
  for (const cluster of state.counts.counted(0, Number.POSITIVE_INFINITY)) last = cluster
  return last + 1
}

/**
 * The first place that is long enough, and that no wild entry points into.
 * @param first  the cluster behind the file
 */
function findPlace(state: CheckState, first: number): Place {
  const { geometry, counts, wild } = state
  const counted = new Set<number>()
  let highest = -1
  for (const cluster of counts.counted(0, Number.POSITIVE_INFINITY)) {
    const index = Math.floor(cluster / geometry.refcountsPerBlock)
    if (index !== highest) counted.add(index)
    highest = index
  }
  let start = first
  for (;;) {
    const place = placeAt(state, start, counted)
    let last: number | undefined
    for (const cluster of wild.counted(start, endOf(place))) last = cluster
    if (last === undefined) return place
    start = last + 1
  }
}

/** What it takes to count everything and itself, from cluster `start` on. */
function placeAt(state: CheckState, start: number, counted: ReadonlySet<number>): Place {
  const { refcountsPerBlock, clusterSize } = state.geometry
  const indexes = new Set(counted)
  let tableClusters = 0
  for (let total = -1; total !== indexes.size + tableClusters;) {
    total = indexes.size + tableClusters
    const last = Math.floor((start + total) / refcountsPerBlock)
    for (let index = Math.floor(start / refcountsPerBlock); index <= last; index++) indexes.add(index)
    tableClusters = divideRoundingUp((Math.max(...indexes) + 1) * entryBytes, clusterSize)
    if (tableClusters * clusterSize > maxRefcountTableBytes) {
      throw notSupported(
        `Refcounts cannot be rebuilt: the table would exceed ${maxRefcountTableBytes} bytes`,
        {
          path: state.backend.path,
        },
      )
    }
  }
  return { start, indexes: [...indexes].sort((left, right) => left - right), tableClusters }
}

function endOf(place: Place): number {
  return place.start + place.indexes.length + place.tableClusters
}

async function writeStructures(state: CheckState, place: Place): Promise<void> {
  const { backend, counts, geometry } = state
  const { refcountsPerBlock, clusterSize } = geometry
  const end = endOf(place)
  for (let cluster = place.start; cluster < end; cluster++) counts.set(cluster, 1)

  const table = new Uint8Array(place.tableClusters * clusterSize)
  const entries = new DataView(table.buffer)
  for (const [position, index] of place.indexes.entries()) {
    state.step('repair', position * clusterSize, place.indexes.length * clusterSize)
    const block = new Uint8Array(clusterSize)
    const view = new DataView(block.buffer)
    const first = index * refcountsPerBlock
    for (const cluster of counts.counted(first, first + refcountsPerBlock)) {
      storeRefcount(view, cluster - first, geometry, counts.get(cluster))
    }
    const host = (place.start + position) * clusterSize
    await backend.write(block, host)
    entries.setBigUint64(index * entryBytes, BigInt(host))
  }
  await backend.write(table, (place.start + place.indexes.length) * clusterSize)
}
