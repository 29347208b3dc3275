import type { QueueStats } from './backend.js'

/** The counters of an image in two files: its own, and its data file's, which has neither queue nor peaks. */
export function addStats(own: QueueStats, data: QueueStats): QueueStats {
  const sum = { ...own }
  for (const name of Object.keys(own) as (keyof QueueStats)[]) {
    if (name !== 'syncMicrosecondsHistogram') sum[name] += data[name]
  }
  sum.syncMicrosecondsHistogram = own.syncMicrosecondsHistogram.map(
    (count, power) => count + (data.syncMicrosecondsHistogram[power] ?? 0),
  )
  return sum
}
