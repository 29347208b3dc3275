import { constants } from 'node:os'
import { sectorSize } from '../../lib/base/units.js'
import type { DeviceOperation, Failure, Fault } from '../../lib/queue/memory-device.js'
import { SeededRandom } from '../support/seeded-random.js'

/**
 * What can go wrong with the device. 'short': a part of it has happened. 'split': it is interrupted and continued, 'slow': it takes long; both succeed.
 * 'loses': a sync fails, and what it should have made durable is gone, or some of it, or nothing. 'budget': the file may grow by so many clusters only.
 */
export const faultKinds = [
  'EIO',
  'EIO for ever',
  'ENOSPC',
  'ENOSPC for ever',
  'EDQUOT',
  'EAGAIN',
  'short EIO',
  'short ENOSPC',
  'short EIO for ever',
  'split',
  'slow',
  'sync loses all',
  'sync loses none',
  'sync loses some',
  'budget',
] as const
export type FaultKind = (typeof faultKinds)[number]

/** Long enough for all that else goes on to come to rest. Turns of the event loop. */
const slowTurns = 300

/** One fault of a run: which operation it hits is counted among those that the kind can hit. */
export type PlannedFault = {
  readonly kind: FaultKind
  readonly index: number
  /** Of what is random about it. */
  readonly seed: number
}

/** A fault that knows whether it has come to it. */
export type ArmedFault = {
  readonly fault: Fault
  /** How often an operation was hit. */
  readonly hits: () => number
}

/** Whether the device does all it is asked for after the fault. */
export function isTransient(kind: FaultKind): boolean {
  return !kind.endsWith('for ever') && kind !== 'budget'
}

/** Whether nobody may notice anything. */
export function isHarmless(kind: FaultKind): boolean {
  return kind === 'split' || kind === 'slow'
}

export function isSyncFault(kind: FaultKind): boolean {
  return kind.startsWith('sync ')
}

/** @param growth  of 'budget': where the file ends at first, and what a step of the budget is; bytes */
export function armFault(planned: PlannedFault, growth: { end: number; clusterSize: number }): ArmedFault {
  const { kind, index, seed } = planned
  const random = new SeededRandom(seed * 1000 + index)
  let hits = 0
  let counted = 0
  if (kind === 'budget') {
    const left = byteBudget(growth.end, index * growth.clusterSize)
    return {
      hits: () => hits,
      fault: (operation) => {
        const failure = left(operation)
        if (failure !== undefined) hits++
        return failure
      },
    }
  }
  return {
    hits: () => hits,
    fault: (operation) => {
      if (!canHit(kind, operation)) return undefined
      const at = counted++
      if (at !== index && !(kind.endsWith('for ever') && at > index)) return undefined
      hits++
      return failureOf(kind, operation, random)
    },
  }
}

function canHit(kind: FaultKind, operation: DeviceOperation): boolean {
  if (isSyncFault(kind)) return operation.kind === 'sync'
  if (kind === 'split') return operation.length > 0
  // Nobody can be told that a read finds no room; and at a sync it means that data is lost.
  if (kind === 'short ENOSPC') return ['write', 'zero', 'allocate'].includes(operation.kind)
  if (kind.startsWith('short')) return ['read', 'write', 'zero', 'allocate'].includes(operation.kind)
  return true
}

function failureOf(kind: FaultKind, operation: DeviceOperation, random: SeededRandom): Failure {
  const { length } = operation
  const sectors = Math.max(1, Math.floor(length / sectorSize))
  switch (kind) {
    case 'short EIO':
    case 'short EIO for ever':
      return { errno: constants.errno.EIO, done: Math.min(length, random.between(1, sectors) * sectorSize) }
    case 'short ENOSPC':
      return {
        errno: constants.errno.ENOSPC,
        done: Math.min(length, random.between(1, sectors) * sectorSize),
      }
    case 'split':
      return { errno: 0, split: Math.min(length, random.between(0, sectors) * sectorSize) }
    case 'slow':
      return { errno: 0, turns: slowTurns }
    case 'sync loses all':
      return { errno: constants.errno.EIO, loses: () => true }
    case 'sync loses none':
      return { errno: constants.errno.EIO, loses: () => false }
    case 'sync loses some':
      return { errno: constants.errno.EIO, loses: () => random.chance(0.5) }
    default:
      return { errno: constants.errno[errnoOf(kind)] }
  }
}

function errnoOf(kind: FaultKind): 'EIO' | 'ENOSPC' | 'EDQUOT' | 'EAGAIN' {
  if (kind === 'EDQUOT' || kind === 'EAGAIN') return kind
  return kind.startsWith('ENOSPC') ? 'ENOSPC' : 'EIO'
}

/**
 * A disk that has room for so many more bytes behind the end of the file. What is written within needs none; what does not fit is
 * written in part, as far as there is room.
 */
export function byteBudget(end: number, bytes: number): (operation: DeviceOperation) => Failure | undefined {
  let reached = end
  return ({ kind, offset, length }) => {
    if (kind !== 'write' && kind !== 'zero' && kind !== 'allocate') return undefined
    const most = end + bytes
    if (offset + length <= Math.max(reached, most)) {
      reached = Math.max(reached, offset + length)
      return undefined
    }
    // Space is reserved as a whole or not at all.
    const done = kind === 'allocate' ? 0 : Math.max(0, most - offset)
    reached = Math.max(reached, done === 0 ? 0 : most)
    return { errno: constants.errno.ENOSPC, done }
  }
}
