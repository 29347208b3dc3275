import type { BlockBackend } from '../queue/backend.js'

/**
 * The barriers of creating an image: everything but the first sector, then that.
 *
 * Without the barrier a crash could leave a valid header whose refcounts are not there: an image that opens, and whose
 * header cluster the first write would be given. With it, a crash leaves a file that is no image.
 */
export async function publishImage(
  backend: BlockBackend,
  firstSector: Uint8Array,
  writeRest: () => Promise<void>,
): Promise<void> {
  await writeRest()
  await backend.flush()
  await backend.write(firstSector, 0)
  await backend.flush()
}
