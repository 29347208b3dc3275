import { sectorSize } from '../base/units.js'
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

/**
 * A device shows zeros where the metadata of a new image will be.
 *
 * Without the barrier a crash could leave the header of the image that was there, and under it what the new one has in the place of its tables. With
 * it, a crash leaves a device that holds no image.
 * @param length  bytes from the start; what lies behind the end of the device is left out
 */
export async function clearDevice(backend: BlockBackend, length: number): Promise<void> {
  await backend.write(new Uint8Array(sectorSize), 0)
  await backend.flush()
  await backend.writeZeroes(0, Math.min(length, backend.length), { unmap: false })
}
