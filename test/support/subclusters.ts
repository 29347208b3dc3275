import { guestOffset } from '../../lib/base/units.js'
import type { Disk } from './qcow2-disk.js'

/** A cluster of an image with extended L2 entries, in a word: what it is, and its bitmap's halves. */
export async function entryText(disk: Disk, cluster: number): Promise<string> {
  const guest = guestOffset(cluster * disk.image.clusterSize)
  await disk.parts.l2.find(guest, 1)
  const entry = disk.parts.l2.clusterEntry(guest)
  if ('load' in entry) throw new Error('it was loaded just now')
  const { cluster: found, allocated, zero } = entry
  const kind = found.type === 'normal' ? (found.copied ? 'own' : 'shared') : found.type
  return `${kind} ${allocated.toString(16)} ${zero.toString(16)}`
}
