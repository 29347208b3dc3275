import type { DiskImage } from '../../lib/image/disk-image.js'
import { openImage } from '../../lib/image/open.js'
import { checkQcow2 } from '../../lib/qcow2/check.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { SeededRandom } from '../support/seeded-random.js'
import { type FullDevice, fullDevice, turns } from './full-device.js'
import type { Mutant } from './mutant.js'
import { startImage } from './start-images.js'
import { within } from './workload.js'

export type HeldImage = {
  readonly image: DiskImage
  readonly memory: MemoryBackend
  readonly device: FullDevice
  readonly isStopped: () => boolean
  /** Make room and resume. */
  readonly goOn: () => void
}

/** An image on a device that is full from its operation `index` on. */
export async function openOnFull(index: number, stopped: () => void): Promise<HeldImage> {
  const { bytes } = await startImage('half-full', 512)
  const device = fullDevice(index)
  let isStopped = false
  let hasRoom = false
  const memory = new MemoryBackend({ contents: SparseBytes.from(bytes), fault: device.fault, seed: index })
  const image: DiskImage = await openImage(memory, {
    format: 'qcow2',
    onError: 'enospc',
    onEvent: () => {
      // The failure of a request that was under way when there was no room comes late.
      if (hasRoom) return image.resume()
      isStopped = true
      stopped()
    },
  })
  const goOn = (): void => {
    device.makeRoom()
    hasRoom = true
    isStopped = false
    image.resume()
  }
  return { image, memory, device, isStopped: () => isStopped, goOn }
}

export async function countsOf(memory: MemoryBackend): Promise<{ corruptions: number; leaks: number }> {
  const contents = SparseBytes.from(memory.snapshot())
  const { corruptions, leaks } = await checkQcow2(new MemoryBackend({ contents, readOnly: true }))
  return { corruptions, leaks }
}

/** Guest clusters that are asked for: unmapped ones, a mapped one, another table's. */
const places = [70, 71, 8, 90]

/** How many requests a guest that is held goes on to ask for. */
const askedWhileHeld = 8

/**
 * A guest writes few places again and again, waiting for each request; while it is held it goes on asking without. What was asked for last
 * is what each place must show in the end.
 * @returns what is wrong, and how often it was held
 */
export async function heldInOrder(
  index: number,
  seed: number,
  mutant?: Mutant,
): Promise<{ problem: string | undefined; stops: number }> {
  const undo = mutant?.install()
  try {
    return await within(100_000, askInOrder(index, new SeededRandom(seed + index)), 'a held guest')
  } catch (error) {
    return { problem: error instanceof Error ? error.message : String(error), stops: 0 }
  } finally {
    undo?.()
  }
}

async function askInOrder(
  index: number,
  random: SeededRandom,
): Promise<{ problem: string | undefined; stops: number }> {
  let stops = 0
  const last = new Map<number, number>()
  const { image, memory, isStopped, goOn } = await openOnFull(index, () => {
    stops++
  })
  const running: Promise<void>[] = []
  let asked = 0
  for (let value = 1; value <= 24; value++) {
    const place = random.pick(places)
    const offset = place * 512
    const kind = random.integer(6)
    last.set(place, kind === 0 ? 0 : value)
    const done =
      kind === 0
        ? image.writeZeroes({ offset, length: 512, unmap: random.chance(0.5) })
        : image.write(new Uint8Array(512).fill(value), offset)
    running.push(done)
    if (kind === 5) running.push(image.flush())
    while (!isStopped() && (await Promise.race([done.then(() => false), turns(1).then(() => true)])));
    if (isStopped() && asked++ === askedWhileHeld) {
      goOn()
      await Promise.all(running)
    }
  }
  goOn()
  await Promise.all(running)
  for (const [place, value] of last) {
    const [seen] = await image.read({ offset: place * 512, length: 1 })
    if (seen === value) continue
    return {
      stops,
      problem: `place ${place} shows request ${seen}, not ${value}; full from operation ${index} on`,
    }
  }
  await image.close()
  const { corruptions, leaks } = await countsOf(memory)
  const problem = corruptions + leaks === 0 ? undefined : `${corruptions} corruptions, ${leaks} leaks`
  return { problem, stops }
}
