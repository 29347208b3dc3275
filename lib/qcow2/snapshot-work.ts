import { type LongWork, ProgressReporter, throwIfAborted } from '../base/abort.js'
import { Qcow2Error } from '../base/errors.js'
import type { Section } from '../base/units.js'
import { escapeName } from './header-extensions.js'
import type { Parts } from './parts.js'
import type { SnapshotReference } from '../queue/format-image.js'
import type { SnapshotList } from './snapshot-list.js'
import type { Step } from './tree-counts.js'

/** What an operation on snapshots works with. No request runs meanwhile, all that was queued is durable, and nothing waits to be freed. */
export type SnapshotWork<T = undefined> = {
  readonly parts: Parts
  readonly list: SnapshotList
  /** Guest bytes of the disk. */
  readonly size: number
  /** The disk has another size. */
  readonly resized: (size: number) => void
  /** What to call between the steps of a phase. It throws when the work is to be given up. */
  readonly steps: (phase: string) => Step
  /**
   * Call it in the step that switches the header: from here on the operation counts, whatever fails then.
   * @param value   what the operation results in
   * @param finish  what is left to do once that is durable. May be run again, after a failure, until it succeeds
   */
  readonly switched: (removal: Section, value: T, finish: () => Promise<void>) => void
}

/** The steps of work that takes long. */
export function stepsOf({ signal, onProgress }: LongWork): (phase: string) => Step {
  return (phase) => {
    let reporter: ProgressReporter | undefined
    return (done, total) => {
      throwIfAborted(signal)
      reporter ??= new ProgressReporter(onProgress, phase, total)
      reporter.reach(done)
    }
  }
}

/** Make all that was removed durable, and free it: counts are then exactly the references. */
export async function settle({ backend, frees }: Parts): Promise<void> {
  do {
    await backend.flush()
    await frees.settled()
  } while (frees.pending)
}

export function snapshotNotFound(path: string, reference: SnapshotReference): Qcow2Error {
  const { id, name } = typeof reference === 'string' ? { id: undefined, name: reference } : reference
  const what = [
    ...(id === undefined ? [] : [`id '${escapeName(id)}'`]),
    ...(name === undefined ? [] : [`'${escapeName(name)}'`]),
  ]
  return new Qcow2Error('ERR_SNAPSHOT_NOT_FOUND', `There is no snapshot ${what.join(', ')} in '${path}'`, {
    path,
    structure: 'snapshot table',
  })
}
