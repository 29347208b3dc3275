import { Qcow2Error, type ErrorCode } from '../base/errors.js'

/** The system's numbers and words for errors that have none of their own, as QEMU chooses them. */
const known: Partial<Record<ErrorCode, readonly [errno: number, words: string]>> = {
  ERR_IO: [5, 'Input/output error'],
  ERR_POISONED: [5, 'Input/output error'],
  ERR_CORRUPT: [5, 'Input/output error'],
  ERR_NO_SPACE: [28, 'No space left on device'],
}
/** A count has no room for another reference; there are too many snapshots; the format has none. */
const noCount = [22, 'Invalid argument'] as const
const tooMany = [27, 'File too large'] as const
const noSnapshots = [95, 'Operation not supported'] as const

/** Why a snapshot could not be made, as the stock tool says it: `-22 (Invalid argument)`. */
export function systemErrorText(error: unknown): string {
  if (!(error instanceof Qcow2Error)) return error instanceof Error ? error.message : String(error)
  const { code, structure } = error
  const refused =
    structure === 'refcount block' ? noCount : structure === 'snapshot table' ? tooMany : noSnapshots
  const words = code === 'ERR_NOT_SUPPORTED' ? refused : known[code]
  return words === undefined ? error.message : `-${words[0]} (${words[1]})`
}
