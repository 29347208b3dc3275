import type { BlockBackend } from '../queue/backend.js'
import { checkOnly } from './check-only.js'
import type { CheckResult } from './check-result.js'
import type { CheckOptions } from './check-state.js'
import { repairQcow2 } from './repair.js'

export {
  type CheckResult,
  checkExitCode,
  checkStatistics,
  type Finding,
  type FindingKind,
} from './check-result.js'
export type { CheckOptions, CheckProgress } from './check-state.js'

/**
 * Check an image: count the references to every cluster, compare them with the refcounts, and these with the COPIED
 * flags. Images with features that are not supported for guest data are checked too; the guest's data itself is never read.
 *
 * With `repair` the image is put right and checked again; the result is of the second check, and says what was fixed.
 * No other use of the image may be going on. Memory follows the clusters in use, and is bounded by `maxCountBytes`.
 *
 * @throws as readHeader; ERR_CORRUPT: tables that cannot be where the header says; ERR_READ_ONLY; the signal's reason
 * @see qcow2.md 3.5
 */
export async function checkQcow2(backend: BlockBackend, options: CheckOptions = {}): Promise<CheckResult> {
  return options.repair === undefined
    ? await checkOnly(backend, options)
    : await repairQcow2(backend, options)
}
