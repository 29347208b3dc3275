import type { BlockBackend } from '../queue/backend.js'
import { checkCopiedFlags } from './check-flags.js'
import { compareRefcounts, settleRefcounts } from './check-refcounts.js'
import { countReferences } from './check-references.js'
import type { CheckResult } from './check-result.js'
import { type CheckOptions, CheckState } from './check-state.js'
import { checkTablePlaces } from './open-checks.js'
import { readHeader } from './open-metadata.js'
import { readSnapshotTable } from './snapshot-table.js'
import { StoredRefcounts } from './stored-refcounts.js'

/** Check an image and change nothing. @throws as checkQcow2 */
export async function checkOnly(backend: BlockBackend, options: CheckOptions): Promise<CheckResult> {
  return (await checkedState(backend, options)).result
}

/** As checkOnly. @returns all that was found: of an image whose counts are right, how often each cluster is referred to */
export async function checkedState(backend: BlockBackend, options: CheckOptions): Promise<CheckState> {
  const { header } = await readHeader(backend)
  checkTablePlaces(header, { readOnly: true, repairing: true, path: backend.path })
  const state = new CheckState(backend, header, { ...options, repair: undefined })
  await countReferences(state, await readSnapshotTable(backend, header))
  await compareRefcounts(state)
  if (state.refcountsDiffer) await settleRefcounts(state)
  if (state.flagsAreRight) state.step('flags', header.size, header.size)
  else await checkCopiedFlags(state, new StoredRefcounts(state), { repair: false })
  state.result.needsRebuild = state.needsRebuild
  return state
}
