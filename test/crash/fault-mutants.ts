import { FailurePolicy } from '../../lib/image/failure-policy.js'
import { Allocator } from '../../lib/qcow2/allocator.js'
import { UnsyncedClusters } from '../../lib/qcow2/unsynced-clusters.js'
import { MemoryDevice } from '../../lib/queue/memory-device.js'
import type { FaultKind } from './fault-kinds.js'
import { anySize, anyStart, type Mutant } from './mutant.js'
import { replace, withQueue } from './mutant-tools.js'
import { faultMutants as queueFaultMutants } from './queue-mutants.js'

/** Which loop finds a mutant out: faults of a kind, a full device with a guest that is held, or the order of what it asks for. */
export type FaultMutant = Mutant & { readonly foundBy: readonly (FaultKind | 'full' | 'order')[] }

const everywhere = { starts: anyStart, clusterSizes: anySize }

/** Wrong only when the device fails. */
export const faultMutants: readonly FaultMutant[] = [
  ...queueFaultMutants.map((mutant): FaultMutant => ({
    ...mutant,
    foundBy: mutant.name === 'M28' ? ['ENOSPC', 'full'] : ['EIO', 'sync loses some'],
  })),
  {
    name: 'F1',
    lacks: 'a sync that has failed is not made again',
    ...everywhere,
    foundBy: ['sync loses all'],
    install: () =>
      replace(MemoryDevice.prototype, 'perform', (perform) => {
        return function (this: MemoryDevice, operation, bytes, over) {
          perform.call(this, operation, bytes, (errno) => {
            if (operation.kind === 'sync' && errno !== 0) perform.call(this, operation, bytes, over)
            else over(errno)
          })
        }
      }),
  },
  {
    name: 'F2',
    lacks: 'a write of which a part has happened is not believed whole',
    ...everywhere,
    foundBy: ['short EIO', 'short ENOSPC'],
    install: () =>
      replace(MemoryDevice.prototype, 'perform', (perform) => {
        return function (this: MemoryDevice, operation, bytes, over) {
          perform.call(this, operation, bytes, (errno) => over(operation.kind === 'write' ? 0 : errno))
        }
      }),
  },
  {
    name: 'F3',
    lacks: 'clusters of a request that failed are given back',
    ...everywhere,
    foundBy: ['ENOSPC', 'full'],
    install: () => replace(Allocator.prototype, 'cancel', () => () => Promise.resolve()),
  },
  {
    name: 'F4',
    lacks: 'what was held back runs again',
    ...everywhere,
    foundBy: ['full'],
    install: () =>
      replace(FailurePolicy.prototype, 'run', (run) => {
        return function <T>(this: FailurePolicy, request: () => Promise<T>, kind: 'read' | 'change') {
          let runs = 0
          const once = (): Promise<T> => (runs++ === 0 ? request() : Promise.resolve(undefined as T))
          return run.call(this, once, kind) as Promise<T>
        }
      }),
  },
  {
    name: 'F5',
    lacks: 'what is asked for while a change is held back waits behind it',
    ...everywhere,
    foundBy: ['order'],
    install: () =>
      replace(FailurePolicy.prototype, 'run', (run) => {
        return async function <T>(this: FailurePolicy, request: () => Promise<T>, kind: 'read' | 'change') {
          // Once past everybody else; what fails is held back as usual.
          const first = await request().then(
            (value) => ({ value }),
            () => undefined,
          )
          return first === undefined ? ((await run.call(this, request, kind)) as T) : first.value
        }
      }),
  },
  {
    name: 'F6',
    lacks: 'what a failed sync may have lost is not read',
    ...everywhere,
    foundBy: ['sync loses all', 'sync loses some'],
    install: () => replace(UnsyncedClusters.prototype, 'refuse', () => () => undefined),
  },
  {
    name: 'F7',
    lacks: 'after a failed sync no change is accepted',
    ...everywhere,
    foundBy: ['sync loses none'],
    install: withQueue(
      (Queue) =>
        class extends Queue {
          override state(): ReturnType<InstanceType<typeof Queue>['state']> {
            return { ...super.state(), poisoned: 0 }
          }
        },
    ),
  },
]
