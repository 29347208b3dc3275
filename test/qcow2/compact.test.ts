import test from 'ava'
import { compactQcow2, type CompactQcow2Options } from '../../lib/qcow2/compact.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import type { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { countedClusters } from '../support/compact-image.js'
import { checkContents } from '../support/qcow2-disk.js'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { differenceOf, randomWornShape, shownIn, wornImage, type WornShape } from '../support/worn-image.js'

/** Few every day; QCOW2_COMPACTIONS=10000 for a full run. */
const images = countOfRun('QCOW2_COMPACTIONS', 60)
const seed = seedOfRun()

async function compacted(contents: SparseBytes, options: CompactQcow2Options = {}): Promise<number> {
  const memory = new MemoryBackend({ contents })
  try {
    return await compactQcow2(memory, options)
  } finally {
    await memory.close()
  }
}

async function mustBeCompact(contents: SparseBytes, shape: WornShape): Promise<void> {
  const wanted = await shownIn(contents, shape)
  const moved = await compacted(contents)
  const { corruptions, leaks, checkErrors, findings } = await checkContents(contents)
  if (corruptions + leaks + checkErrors > 0) throw new Error(`it is damaged: ${findings[0]?.text}`)
  const difference = differenceOf(await shownIn(contents, shape), wanted)
  if (difference !== undefined) throw new Error(`${difference} is not what it was`)
  const file = Buffer.from(contents.toBytes())
  const needed = countedClusters(file) * shape.clusterSize
  if (file.length > needed) throw new Error(`${file.length} bytes, ${needed} are needed; ${moved} moved`)
  const again = await compacted(contents)
  if (again !== 0 || !file.equals(contents.toBytes())) throw new Error('a second run changes it')
}

test('images of all kinds take what they need after compacting, and show what they showed', async (t) => {
  t.timeout(24 * 3600 * 1000)
  for (let index = 0; index < images; index++) {
    const ownSeed = (seed + index) >>> 0
    const random = new SeededRandom(ownSeed)
    const shape = randomWornShape(random)
    try {
      await mustBeCompact(await wornImage(shape, random), shape)
    } catch (error) {
      const what = JSON.stringify({ ...shape, backing: shape.backing?.length })
      throw new Error(`QCOW2_SEED=${ownSeed} QCOW2_COMPACTIONS=1: ${what}: ${String(error)}`, { cause: error })
    }
  }
  t.pass()
})
