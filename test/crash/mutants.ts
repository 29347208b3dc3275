import { allocationMutants } from './allocation-mutants.js'
import { bitmapMutants } from './bitmap-mutants.js'
import { encryptionMutants } from './encryption-mutants.js'
import { formatMutants } from './format-mutants.js'
import { headerMutants } from './header-mutants.js'
import type { Mutant } from './mutant.js'
import { queueMutants } from './queue-mutants.js'
import { snapshotMutants } from './snapshot-mutants.js'
import { subclusterMutants } from './subcluster-mutants.js'

/** All wrong implementations that crashes give away. */
export const mutants: readonly Mutant[] = [
  ...formatMutants,
  ...allocationMutants,
  ...snapshotMutants,
  ...headerMutants,
  ...bitmapMutants,
  ...queueMutants,
  ...subclusterMutants,
  ...encryptionMutants,
]
