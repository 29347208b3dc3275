import { randomWorkload } from './random-workload.js'
import { sequenceWorkload } from './sequences.js'
import type { Workload } from './workload.js'

/** Short workloads that between them make every kind of request to the device, of which each fails in turn. */
export function faultWorkloads(): Promise<Workload[]> {
  return Promise.all([
    sequenceWorkload('half-full', 512, ['write', 'discard', 'flush', 'write', 'overwrite', 'flush'], 1),
    sequenceWorkload('near-block', 512, ['write', 'flush', 'write', 'far', 'flush'], 2, 4),
    sequenceWorkload('half-full', 4096, ['grow-l1', 'write', 'flush', 'shrink', 'write', 'flush'], 1),
    sequenceWorkload('backing', 4096, ['partial', 'unmap', 'flush', 'zero', 'partial', 'flush'], 2, 6),
    sequenceWorkload('snapshot', 4096, ['partial', 'far', 'flush', 'discard', 'write', 'flush'], 2, 6),
    sequenceWorkload('autoclear', 512, ['write', 'overwrite', 'flush'], 1),
    sequenceWorkload('near-table', 512, ['write', 'write', 'flush'], 1),
    sequenceWorkload('near-block', 4096, ['write', 'write-two', 'flush', 'unmap', 'flush', 'far'], 3, 8),
    sequenceWorkload('empty', 512, ['write', 'flush', 'far', 'grow', 'zero', 'flush', 'shrink'], 1),
    randomWorkload(5, { steps: 25, start: 'backing', clusterSize: 4096 }),
    randomWorkload(6, { steps: 25, start: 'half-full', clusterSize: 512 }),
    randomWorkload(7, { steps: 25, start: 'near-block', clusterSize: 512 }),
  ])
}
