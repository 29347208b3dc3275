import { randomWorkload } from './random-workload.js'
import { type OperationName, sequenceWorkload } from './sequences.js'
import { type Setting, usual, withSetting } from './setting.js'
import type { ClusterSize, StartName } from './start-images.js'
import type { Workload } from './workload.js'

type Plan = {
  readonly start: StartName
  readonly clusterSize: ClusterSize
  readonly names: readonly OperationName[]
  readonly window: number
  readonly deviceSeed?: number
  readonly setting?: Partial<Setting>
}

/** Short workloads that between them make every kind of request to the device, of which each fails in turn. */
const plans: readonly Plan[] = [
  // Frees, re-use, overwriting in place.
  {
    start: 'half-full',
    clusterSize: 512,
    window: 1,
    names: ['write', 'discard', 'flush', 'write', 'overwrite', 'flush'],
  },
  {
    start: 'half-full',
    clusterSize: 4096,
    window: 3,
    deviceSeed: 4,
    names: ['unmap', 'flush', 'write', 'partial', 'discard-more', 'flush', 'write'],
    setting: { reserves: false },
  },
  // Subclusters of a cluster that is there, and of one that is not.
  {
    start: 'extended-backing',
    clusterSize: 32768,
    window: 2,
    deviceSeed: 4,
    names: ['sub', 'sub-over', 'flush', 'sub-zero', 'partial-new', 'sub-again', 'flush'],
  },
  // A new refcount block, and one counted by another.
  {
    start: 'near-block',
    clusterSize: 512,
    window: 2,
    deviceSeed: 4,
    names: ['write', 'flush', 'write', 'far', 'flush'],
  },
  {
    start: 'near-block',
    clusterSize: 4096,
    window: 3,
    deviceSeed: 8,
    names: ['write', 'write-two', 'flush', 'unmap', 'flush', 'far'],
    setting: { reserves: false },
  },
  // A larger L1 table, and a smaller disk.
  {
    start: 'half-full',
    clusterSize: 4096,
    window: 1,
    names: ['grow-l1', 'write', 'flush', 'shrink', 'write', 'flush'],
  },
  {
    start: 'empty',
    clusterSize: 512,
    window: 1,
    names: ['write', 'flush', 'far', 'grow', 'zero', 'flush', 'shrink'],
  },
  // Copying from a backing file.
  {
    start: 'backing',
    clusterSize: 4096,
    window: 2,
    deviceSeed: 6,
    names: ['partial', 'unmap', 'flush', 'zero', 'partial', 'flush'],
  },
  {
    start: 'backing',
    clusterSize: 512,
    window: 1,
    names: ['write-two', 'discard', 'flush', 'partial', 'write'],
    setting: { syncPolicy: 'write' },
  },
  // Shared tables and clusters.
  {
    start: 'snapshot',
    clusterSize: 4096,
    window: 2,
    deviceSeed: 6,
    names: ['partial', 'far', 'flush', 'discard', 'write', 'flush'],
  },
  {
    start: 'snapshot',
    clusterSize: 512,
    window: 1,
    names: ['overwrite', 'flush', 'zero', 'partial'],
    setting: { reserves: false },
  },
  // Making, applying and deleting snapshots.
  {
    start: 'half-full',
    clusterSize: 512,
    window: 1,
    names: [
      'write',
      'snapshot-create',
      'overwrite',
      'flush',
      'snapshot-apply',
      'write',
      'snapshot-delete',
      'flush',
    ],
    setting: { reserves: false },
  },
  {
    start: 'snapshot',
    clusterSize: 512,
    window: 2,
    deviceSeed: 6,
    names: [
      'partial',
      'grow',
      'snapshot-create',
      'compress',
      'snapshot-apply',
      'snapshot-delete',
      'write',
      'flush',
    ],
  },
  {
    start: 'near-block',
    clusterSize: 512,
    window: 1,
    names: ['snapshot-create', 'overwrite', 'snapshot-delete', 'flush'],
    setting: { tiny: true },
  },
  {
    start: 'snapshot',
    clusterSize: 512,
    window: 1,
    names: ['overwrite', 'snapshot-apply', 'snapshot-delete', 'overwrite', 'flush'],
    setting: { lazy: true },
  },
  {
    start: 'version-2',
    clusterSize: 512,
    window: 1,
    names: ['snapshot-create', 'write', 'snapshot-apply', 'flush'],
    setting: { syncPolicy: 'write' },
  },
  // Zeros written to what is reserved.
  {
    start: 'half-full',
    clusterSize: 4096,
    window: 1,
    names: ['overwrite', 'flush', 'write', 'flush', 'write-two', 'far', 'flush', 'write-fua'],
    setting: { zeros: true },
  },
  // Room in the queue for one request at a time.
  {
    start: 'half-full',
    clusterSize: 512,
    window: 2,
    deviceSeed: 4,
    names: ['write', 'far', 'discard', 'overwrite', 'flush', 'write', 'write', 'zero', 'far'],
    setting: { tiny: true },
  },
  // Switches of the header.
  { start: 'autoclear', clusterSize: 512, window: 1, names: ['write', 'overwrite', 'flush'] },
  {
    start: 'half-full',
    clusterSize: 512,
    window: 2,
    deviceSeed: 2,
    names: ['write', 'discard', 'flush', 'far', 'overwrite'],
    setting: { lazy: true },
  },
  {
    start: 'near-block',
    clusterSize: 512,
    window: 1,
    names: ['write', 'write', 'flush', 'far'],
    setting: { lazy: true, reserves: false },
  },
  // Every write synced.
  {
    start: 'half-full',
    clusterSize: 4096,
    window: 2,
    deviceSeed: 2,
    names: ['write', 'partial', 'unmap', 'write', 'flush'],
    setting: { syncPolicy: 'write' },
  },
  {
    start: 'near-block',
    clusterSize: 512,
    window: 2,
    names: ['write', 'write', 'discard'],
    setting: { syncPolicy: 'write', reserves: false },
  },
]

/** A larger refcount table. Slow: there are thousands of clusters to look at in each state. */
const slowPlan: Plan = {
  start: 'near-table',
  clusterSize: 512,
  window: 1,
  names: ['write', 'write', 'flush'],
}

/**
 * @param seed  the order in which the device ends things; 0: as is written above. Others add random workloads
 */
export async function faultWorkloads(seed = 0): Promise<Workload[]> {
  const fixed = plans.map((plan) =>
    planned(seed === 0 ? plan : { ...plan, deviceSeed: (plan.deviceSeed ?? 1) + seed }),
  )
  return await Promise.all([...fixed, ...randomOnes(seed)])
}

export function slowWorkload(): Promise<Workload> {
  return planned(slowPlan)
}

async function planned(plan: Plan): Promise<Workload> {
  const { start, clusterSize, names, window, deviceSeed } = plan
  return withSetting(await sequenceWorkload(start, clusterSize, names, window, deviceSeed), {
    ...usual,
    ...plan.setting,
  })
}

function randomOnes(seed: number): Promise<Workload>[] {
  const kinds: { start: StartName; clusterSize: ClusterSize; setting: Setting }[] = [
    { start: 'backing', clusterSize: 4096, setting: usual },
    { start: 'half-full', clusterSize: 512, setting: usual },
    { start: 'near-block', clusterSize: 512, setting: { ...usual, reserves: false, tiny: true } },
    { start: 'half-full', clusterSize: 512, setting: { ...usual, syncPolicy: 'write' } },
    { start: 'snapshot', clusterSize: 512, setting: usual },
  ]
  return kinds.map(async ({ start, clusterSize, setting }, index) =>
    withSetting(await randomWorkload(seed * 10 + index + 5, { steps: 25, start, clusterSize }), setting),
  )
}
