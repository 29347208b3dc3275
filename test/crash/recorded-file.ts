import { writeFile } from 'node:fs/promises'
import { BlockQueue } from '../../lib/queue/block-queue.js'
import { tinyQueueUnits, startBytes } from './setting.js'
import type { RecordedDisk, Workload } from './workload.js'

/** A file for a workload to run on, with the addon's log of what is done to it. */
export async function recordedFile(path: string, workload: Workload, direct: boolean): Promise<RecordedDisk> {
  const { setting, start } = workload
  await writeFile(path, startBytes(workload))
  const backend = await BlockQueue.open(path, {
    readOnly: false,
    direct,
    syncPolicy: setting.syncPolicy,
    record: true,
    idleMs: 0,
    ...(setting.tiny ? { queueBytes: tinyQueueUnits * start.clusterSize } : {}),
  })
  const { log } = backend
  return {
    backend,
    note: (event) => log?.note(event),
    events: () => log?.events ?? [],
  }
}
