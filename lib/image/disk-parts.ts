import type { FailurePolicy } from './failure-policy.js'
import type { Layer } from './layers.js'
import type { Opening } from './overlay.js'

/** What `openImage` hands to a disk. */
export type DiskParts = {
  readonly path: string
  readonly readOnly: boolean
  /** The image and its backing files, from the top. */
  readonly layers: readonly [Layer, ...Layer[]]
  /** Those that are closed with this disk. */
  readonly owned: readonly Layer[]
  /** Raw was a guess: then the guest must not make the file look like another format. */
  readonly rawWasGuessed: boolean
  /** Undefined where every failure is simply reported. */
  readonly failurePolicy: FailurePolicy | undefined
  /** Undefined for what was not opened by its path: it cannot get an overlay. */
  readonly opening?: Opening
}
