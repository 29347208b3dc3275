import { guestOffset } from '../base/units.js'
import { punchDataFile } from './data-file.js'
import type { Parts } from './parts.js'
import { cutTail, dropTables } from './resize.js'
import { changeMapping } from './zero-discard.js'

/**
 * Give up all that an image maps: its disk shows the backing file, or zeros. The caller sees to it that no other request runs (H11), and that
 * the backing file durably holds whatever the guest must go on seeing. As with shrinking (E22) mappings go first, then counts, then the tail
 * of the file: a crash in between leaves a part of the mappings, and clusters that leak.
 */
export async function emptyGuest(parts: Parts): Promise<void> {
  const { backend, frees, geometry, l1 } = parts
  // All that the L1 table covers: behind the disk there may be the VM state of a snapshot that was applied, which the snapshot has still.
  await changeMapping(parts, guestOffset(0), l1.entries * geometry.l2TableCoverage, 'unallocate')
  await dropTables(parts, 0)
  await backend.flush()
  // Not before: a crash may bring the mappings back, of bytes that the disk then still has to show.
  if (parts.dataFile !== undefined) await punchDataFile(parts.dataFile, 0, parts.data.length)
  await frees.settled()
  await cutTail(parts)
}
