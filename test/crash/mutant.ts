import type { HuntingGround } from './hunt.js'
import type { OperationName } from './sequences.js'
import type { Setting } from './setting.js'
import type { ClusterSize, StartName } from './start-images.js'
import type { Tampering } from './workload.js'

/**
 * Wrong implementations: each lacks one rule of the order of writes. They are made from the right one while a test runs; nothing in
 * lib/ knows of them. The explorer has to find every one of them out.
 */
export type Mutant = {
  /** As in the list of the specification; or the gate, edge or invariant that goes. */
  readonly name: string
  /** The rule that is missing. */
  readonly lacks: string
  /** Where it shows soonest. */
  readonly starts: readonly StartName[]
  readonly clusterSizes: readonly ClusterSize[]
  /** What short workloads in the hunt for it are, or contain in this order: the operations that race without the rule. */
  readonly needs?: readonly OperationName[]
  /** How many requests run at once in these; default: one to four. */
  readonly window?: number
  /** It shows only where a request is held up on its way to the device. */
  readonly isRace?: boolean
  /** It shows only where tables are read back from the file. */
  readonly isUncached?: boolean
  /** What the image is opened with, where that is not the usual. */
  readonly setting?: Partial<Setting>
  /** Where it cannot be found out, because what it lacks is not needed there; and why. */
  readonly hidden?: { readonly on: (ground: HuntingGround) => boolean; readonly because: string }
  /** Put it in place. @returns what puts the right one back */
  readonly install: () => () => void
  /** For each run anew. */
  readonly tampering?: () => Tampering
}

export const anyStart: readonly StartName[] = ['half-full', 'backing', 'empty', 'snapshot', 'near-block']
export const anySize: readonly (512 | 4096)[] = [512, 4096]
export const nothing = (): (() => void) => () => undefined
