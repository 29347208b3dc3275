import type { SnapshotReference } from '../queue/format-image.js'
import { parseOptionList } from './option-list.js'
import { UsageError } from './usage-error.js'

/**
 * The argument of -l, which is an id or a name, or `snapshot.id=ID,snapshot.name=NAME`.
 * @throws UsageError  in the words of qemu-img
 */
export function snapshotArgument(text: string | undefined): { snapshot?: SnapshotReference } {
  if (text === undefined) return {}
  if (!text.startsWith('snapshot.')) return { snapshot: text }
  const meant: { id?: string; name?: string } = {}
  for (const { key, value = 'on' } of parseOptionList(text)) {
    if (key === 'snapshot.id') meant.id = value
    else if (key === 'snapshot.name') meant.name = value
    else throw new UsageError([`Invalid parameter '${key}'`, `Failed in parsing snapshot param '${text}'`])
  }
  return { snapshot: meant }
}

/** What to say of an operation that has failed for want of the snapshot; of any other failure nothing. Of what can hold none, the error names no table. */
export function noSnapshot(error: unknown): UsageError | undefined {
  if ((error as { code?: unknown }).code !== 'ERR_SNAPSHOT_NOT_FOUND') return undefined
  const why =
    (error as { structure?: unknown }).structure === undefined
      ? "Block format 'raw' used by device '' does not support temporarily loading internal snapshots"
      : "Can't find snapshot"
  return new UsageError(`Failed to load snapshot: ${why}`)
}
