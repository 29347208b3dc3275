import { readOnly } from '../base/errors.js'
import type { BlockBackend } from '../queue/backend.js'
import { checkOnly } from './check-only.js'
import { checkCopiedFlags } from './check-flags.js'
import { compareRefcounts, settleRefcounts } from './check-refcounts.js'
import { countReferences } from './check-references.js'
import type { CheckResult } from './check-result.js'
import { type CheckOptions, CheckState } from './check-state.js'
import { entryBytes } from './geometry.js'
import type { Header } from './header.js'
import { checkL1WithinFile, checkTablePlaces, headerRegions, refuseOverlaps } from './open-checks.js'
import { readFirstCluster, readHeader } from './open-metadata.js'
import { dropMisalignedEntries } from './repair-entries.js'
import { RepairOrdering } from './repair-ordering.js'
import { rebuildRefcounts } from './repair-rebuild.js'
import { readSnapshotTable, type SnapshotTable } from './snapshot-table.js'
import { autoclear, incompatible } from './spec.js'
import { StoredRefcounts } from './stored-refcounts.js'

/** Autoclear bits whose promise a repair keeps: it changes no guest data, and counts what bitmaps refer to. */
export const keptAutoclear = autoclear.bitmaps | autoclear.dataFileRaw

/** What was put right so far. */
type Fixed = { corruptions: number; leaks: number }

/**
 * Check an image, put right what can be put right, and check again.
 *
 * Refcounts that are too high are lowered; with repair 'all' those that are too low are raised, or all refcount structures
 * are built anew where they cannot be trusted, entries that keep a misaligned cluster for zeros let go of it, and COPIED
 * flags follow the counts. Guest data is not touched. Cut short at any point, a repair leaves an image that is no worse
 * than before, and that the next repair finishes.
 * @throws ERR_READ_ONLY; ERR_CORRUPT: an L1 or the snapshot table overlaps the header or another, or the L1 is not within the file; as checkQcow2
 */
export async function repairQcow2(backend: BlockBackend, options: CheckOptions): Promise<CheckResult> {
  if (backend.readOnly) {
    throw readOnly('Cannot repair a file that is open read-only', { path: backend.path })
  }
  const { header, firstCluster } = await readFirstCluster(backend)
  checkTablePlaces(header, { readOnly: false, repairing: true, path: backend.path })
  refuseEntangled(backend, header, await readSnapshotTable(backend, header))
  const ordering = new RepairOrdering(backend)
  if ((header.autoclearFeatures & ~keptAutoclear) !== 0n) {
    await ordering.clearAutoclear(firstCluster, header.autoclearFeatures & keptAutoclear)
  }

  const fixed: Fixed = { corruptions: 0, leaks: 0 }
  const first = await repairOnce(backend, header, firstCluster, ordering, fixed, options)
  let { result } = first
  if (first.mayDoMore) {
    const { header: rebuilt } = await readHeader(backend)
    ;({ result } = await repairOnce(backend, rebuilt, firstCluster, ordering, fixed, options))
  }
  await ordering.repaired()
  if (fixed.corruptions > 0 || fixed.leaks > 0) {
    options.onRepaired?.({ ...fixed })
    result = await checkOnly(backend, options)
    result.corruptionsFixed = fixed.corruptions
    result.leaksFixed = fixed.leaks
  }

  const marks = header.incompatibleFeatures & (incompatible.dirty | incompatible.corrupt)
  if (marks !== 0n && result.corruptions === 0 && result.checkErrors === 0) {
    await ordering.markClean(firstCluster, header.incompatibleFeatures & ~marks)
  }
  return result
}

/**
 * A table within the header, or within another table, would change with each repair of that: nobody can tell what it was.
 * The refcount table may lie anywhere, for it is replaced.
 */
function refuseEntangled(backend: BlockBackend, header: Header, table: SnapshotTable): void {
  const places = headerRegions(header, table.bytes).filter(({ structure }) => structure !== 'refcount table')
  for (const { l1Offset, l1Entries } of table.snapshots) {
    const bytes = l1Entries * entryBytes
    if (bytes > 0) places.push({ structure: 'L1 table of a snapshot', offset: l1Offset, bytes })
  }
  refuseOverlaps(places, backend.path)
  // All clusters would be taken for free where the table is missing, and a longer file would be taken for it.
  checkL1WithinFile(header, backend.length, backend.path)
}

/**
 * @returns what was found, not what is left; and whether there is more to do, now that refcount structures do not lie in other tables any more
 */
async function repairOnce(
  backend: BlockBackend,
  header: Header,
  firstCluster: Uint8Array,
  ordering: RepairOrdering,
  fixed: Fixed,
  options: CheckOptions,
): Promise<{ result: CheckResult; mayDoMore: boolean }> {
  let state = await count(backend, header, options)
  if (options.repair === 'all' && state.misalignedZeros > 0) {
    fixed.corruptions += await dropMisalignedEntries(state)
    await ordering.entriesDropped()
    state = await count(backend, header, options)
  }

  await compareRefcounts(state)
  let flags = state
  if (state.needsRebuild && options.repair === 'all') {
    flags = await rebuild(state, firstCluster, ordering, fixed, options)
  } else if (state.refcountsDiffer) {
    await settleRefcounts(state)
    fixed.corruptions += state.result.corruptionsFixed
    fixed.leaks += state.result.leaksFixed
    await ordering.refcountsSettled()
  }

  const clean = state.result.corruptions === 0 && state.result.checkErrors === 0
  const before = flags.result.corruptionsFixed
  await checkCopiedFlags(flags, new StoredRefcounts(flags), { repair: options.repair === 'all' || clean })
  fixed.corruptions += flags.result.corruptionsFixed - before
  flags.result.needsRebuild = flags.needsRebuild
  return { result: flags.result, mayDoMore: flags !== state && flags.misalignedZeros > 0 }
}

async function count(backend: BlockBackend, header: Header, options: CheckOptions): Promise<CheckState> {
  const state = new CheckState(backend, header, options)
  await countReferences(state, await readSnapshotTable(backend, header))
  return state
}

/** @returns the state as it is with the new refcounts, for the flags */
async function rebuild(
  state: CheckState,
  firstCluster: Uint8Array,
  ordering: RepairOrdering,
  fixed: Fixed,
  options: CheckOptions,
): Promise<CheckState> {
  const { backend } = state
  state.report('note', 'Rebuilding refcount structure')
  const table = await rebuildRefcounts(backend, state.header, options)
  await ordering.switchRefcounts(firstCluster, table)
  fixed.corruptions += state.refcountCorruptions
  fixed.leaks += state.result.leaks

  // counts and comparison once more, for what is stored now; their findings have been told already
  let silent = true
  const { header } = await readHeader(backend)
  const after = await count(backend, header, {
    ...options,
    onFinding: (finding) => {
      if (!silent) options.onFinding?.(finding)
    },
  })
  await compareRefcounts(after)
  if (after.refcountsDiffer) await settleRefcounts(after)
  silent = false
  return after
}
