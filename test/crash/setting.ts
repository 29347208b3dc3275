import type { ReservationOptions } from '../../lib/qcow2/reservation.js'
import type { Workload } from './workload.js'

/** How the image of a run is opened. */
export type Setting = {
  readonly syncPolicy: 'flush' | 'write'
  /** With clusters reserved ahead of need, as is the default; but fewer at a time, so that it happens more often. */
  readonly reserves: boolean
  /** With zeros written to them before they are given out. */
  readonly zeros: boolean
  /** With the compatible feature bit of lazy refcounts. */
  readonly lazy: boolean
  /** With room in the queue for hardly more than one request, so that it is written out now and then. */
  readonly tiny: boolean
}

export const usual: Setting = { syncPolicy: 'flush', reserves: true, zeros: false, lazy: false, tiny: false }

/** Of units of metadata: a request takes eight. */
export const tinyQueueUnits = 12

/** The compatible feature bits, big-endian; this is their last byte. */
const compatibleFeaturesEnd = 87

/** Clusters. */
export function reservationOf({ reserves }: Setting): number {
  return reserves ? 8 : 0
}

/** What the image is opened with. */
export function reservationOptions(setting: Setting): Required<ReservationOptions> {
  return { reservation: reservationOf(setting), preallocation: setting.zeros ? 'full' : 'falloc' }
}

/** The same workload in another setting, which its name tells. */
export function withSetting(workload: Workload, setting: Setting): Workload {
  const words = [
    setting.syncPolicy,
    setting.reserves ? 'reserves' : 'exact',
    ...(setting.zeros ? ['zeros'] : []),
    ...(setting.lazy ? ['lazy'] : []),
    ...(setting.tiny ? ['tiny'] : []),
  ]
  const [name] = workload.name.split('|')
  return { ...workload, name: `${name}|${words.join(',')}`, setting }
}

/** The setting that a name tells; `usual` where it tells none. */
export function settingOf(name: string): Setting {
  const words = name.split('|')[1]?.split(',')
  if (words === undefined) return usual
  return {
    syncPolicy: words.includes('write') ? 'write' : 'flush',
    reserves: words.includes('reserves'),
    zeros: words.includes('zeros'),
    lazy: words.includes('lazy'),
    tiny: words.includes('tiny'),
  }
}

/** The file that a workload begins with. */
export function startBytes({ start, setting }: Workload): Uint8Array {
  if (!setting.lazy) return start.bytes
  const bytes = start.bytes.slice()
  bytes[compatibleFeaturesEnd] = 1
  return bytes
}
