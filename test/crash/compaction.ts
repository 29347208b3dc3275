import { alignUp } from '../../lib/base/integers.js'
import { sectorSize } from '../../lib/base/units.js'
import { createQcow2 } from '../../lib/qcow2/create.js'
import { openQcow2 } from '../../lib/qcow2/image.js'
import { compactQcow2, type CompactQcow2Options } from '../../lib/qcow2/compact.js'
import type { BlockBackend } from '../../lib/queue/backend.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { readLog } from './device-log.js'
import { replay } from './explore.js'
import { workloadFromName } from './replay.js'
import { stampedBytes, zeroValue } from './payload.js'
import { plainReader } from './payload-reader.js'
import { usual } from './setting.js'
import type { StartImage } from './start-images.js'
import { record, type Recording, type Workload } from './workload.js'

/** The image that a workload has left behind, as one to begin with. */
export async function wornBy(name: string): Promise<StartImage> {
  const recording = await record(await workloadFromName(name))
  const { end } = readLog(recording.events, recording.start)
  const left = replay(recording, end, '')
  if (left.problem !== undefined) throw new Error(`${name}: ${left.problem}`)
  const bytes = new Uint8Array(alignUp(left.bytes.length, sectorSize))
  bytes.set(left.bytes)
  return {
    ...recording.workload.start,
    bytes,
    initial: left.values,
    snapshots: left.snapshots,
    leaks: left.leaks,
  }
}

/** One generation for all that it holds. */
const holedGeneration = 1

/**
 * An image in the middle of which a refcount block is missing, as the stock tool leaves it when it shrinks a disk: what that would count is free. Compacting
 * it makes one, and gives up those behind.
 */
export async function holedImage(): Promise<StartImage> {
  const clusterSize = 512
  const [clusters, perTable, perBlock] = [190, 64, 64]
  const memory = new MemoryBackend()
  const shape = {
    version: 3,
    clusterSize,
    refcountBits: 64,
    lazyRefcounts: false,
    extendedL2: false,
  } as const
  await createQcow2(memory, { ...shape, size: clusters * clusterSize })
  const image = await openQcow2(memory, { readOnly: false, reservation: 0 })
  const initial = new Int32Array(clusters)
  const write = async (cluster: number): Promise<void> => {
    await image.write(stampedBytes(cluster, 1, holedGeneration), cluster * clusterSize)
    initial[cluster] = holedGeneration
  }
  // The L2 tables come first in the file.
  for (let cluster = 0; cluster < clusters; cluster += perTable) await write(cluster)
  for (let cluster = 0; cluster < clusters; cluster++)
    if (initial[cluster] !== holedGeneration) await write(cluster)
  for (let cluster = 0; cluster < clusters; cluster++) {
    const found = await image.mapping(cluster * clusterSize, clusterSize)
    const host = found.type === 'data' ? found.hostOffset : 0
    // Of what is behind few are left: all states of a crash are to be looked at.
    const isKept = host < (perBlock - 4) * clusterSize || host > (2 * perBlock + 60) * clusterSize
    if (isKept) continue
    await image.writeZeroes(cluster * clusterSize, clusterSize, { unmap: true })
    initial[cluster] = zeroValue
  }
  await image.close()
  const bytes = memory.snapshot()
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  // The block counts itself alone; nothing refers to it any more.
  view.setBigUint64(Number(view.getBigUint64(48)) + 8, 0n)
  bytes.fill(0, perBlock * clusterSize, (perBlock + 1) * clusterSize)
  return {
    ...shape,
    name: 'holed',
    bytes,
    initial,
    backing: undefined,
    backingSectors: 0,
    snapshots: [],
    leaks: 0,
    mapped: [],
    free: [],
    cipher: undefined,
    reader: plainReader,
  }
}

/** What reached the device while an image was compacted. @param wrap  what a mutant changes */
export async function recordCompaction(
  name: string,
  start: StartImage,
  options: CompactQcow2Options = {},
  wrap: (memory: MemoryBackend) => BlockBackend = (memory) => memory,
): Promise<Recording & { readonly moved: number }> {
  const memory = new MemoryBackend({ contents: SparseBytes.from(start.bytes), record: true })
  const moved = await compactQcow2(wrap(memory), options)
  await memory.close()
  const workload: Workload = {
    name: `compaction of ${name}`,
    start,
    setting: { ...usual, reserves: false },
    steps: [],
    window: 1,
    deviceSeed: undefined,
    isSluggish: false,
    uncached: false,
  }
  return {
    workload,
    start: start.bytes,
    events: memory.log,
    requests: [],
    reads: [],
    frozen: new Map(),
    errors: [],
    closeError: undefined,
    moved,
  }
}
