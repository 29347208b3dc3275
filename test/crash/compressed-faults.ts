import { Qcow2Error } from '../../lib/base/errors.js'
import { openImage } from '../../lib/image/open.js'
import { createQcow2 } from '../../lib/qcow2/create.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { SeededRandom } from '../support/seeded-random.js'
import { armFault, type FaultKind, isTransient } from './fault-kinds.js'
import { countsOf } from './held-order.js'
import type { Mutant } from './mutant.js'
import './steady-zlib.js'
import { unhandledRejections } from './unhandled.js'
import { within } from './workload.js'

const clusterSize = 4096
const clusters = 24
const steps = 24

/** Compresses to some hundred bytes, or not at all; its first byte is `value`. */
function contents(value: number, isNoise: boolean): Uint8Array {
  const bytes = isNoise ? new SeededRandom(value).bytes(clusterSize) : new Uint8Array(clusterSize)
  if (!isNoise) for (let at = 0; at < 400; at++) bytes[at] = (at * value) % 251
  bytes[0] = value
  return bytes
}

/** What a cluster may begin with. */
type Model = Map<number, Set<number>>

/**
 * Compressed writes, overwriting, discards and flushes on a failing device, one after the other: errors are clean, what is read is what was
 * written (after a failed sync also what was there before), and the closed image is sound, without leaks if it was closed well.
 */
export async function compressedRun(
  kind: FaultKind,
  index: number,
  seed: number,
  mutant?: Mutant,
): Promise<{ hit: boolean; problem: string | undefined }> {
  const created = new MemoryBackend()
  const layout = { version: 3, refcountBits: 16, lazyRefcounts: false } as const
  await createQcow2(created, { size: clusters * clusterSize, clusterSize, ...layout })
  await created.close()
  const bytes = created.snapshot()
  const armed = armFault({ kind, index, seed }, { end: bytes.length, clusterSize })
  const memory = new MemoryBackend({
    contents: SparseBytes.from(bytes),
    fault: armed.fault,
    mayLose: true,
    seed: seed + index,
  })
  const undo = mutant?.install()
  const rejections = unhandledRejections()
  let problem: string | undefined
  try {
    problem = await within(100_000, useImage(memory, kind, new SeededRandom(seed)), 'a compressed image')
  } catch (error) {
    const isOpening = error instanceof Qcow2Error && armed.hits() > 0
    if (!isOpening) problem = error instanceof Error ? error.message : String(error)
  } finally {
    undo?.()
  }
  const unhandled = await rejections.end()
  return { hit: armed.hits() > 0, problem: problem ?? unhandled }
}

async function useImage(
  memory: MemoryBackend,
  kind: FaultKind,
  random: SeededRandom,
): Promise<string | undefined> {
  const cache = { l2CacheBytes: 0, refcountCacheBytes: 0, reservation: random.pick([0, 8]) }
  const image = await openImage(memory, { format: 'qcow2', cache })
  /** Since when it was last known: what may show. */
  const model: Model = new Map(Array.from({ length: clusters }, (_, cluster) => [cluster, new Set([0])]))
  const unflushed: Model = new Map()
  const unclean: string[] = []
  let isPoisoned = false
  const attempt = async (request: Promise<void>): Promise<boolean> => {
    try {
      await request
      return true
    } catch (error) {
      const code = error instanceof Qcow2Error ? error.code : String(error)
      if (code === 'ERR_POISONED') isPoisoned = true
      else if (code !== 'ERR_IO' && code !== 'ERR_NO_SPACE') unclean.push(code)
      return false
    }
  }
  for (let value = 1; value <= steps; value++) {
    const cluster = random.integer(clusters)
    const offset = cluster * clusterSize
    const choice = random.integer(8)
    if (choice === 0) {
      if (await attempt(image.flush())) unflushed.clear()
      continue
    }
    const isDropped = choice === 1
    const bytes = contents(value, random.chance(0.2))
    const before = model.get(cluster) ?? new Set()
    const request = isDropped
      ? image.discard({ offset, length: clusterSize })
      : choice === 2
        ? image.write(bytes, offset)
        : image.writeCompressed(bytes, offset)
    const isDone = await attempt(request)
    const after = isDropped ? 0 : value
    unflushed.set(cluster, new Set([...(unflushed.get(cluster) ?? []), ...before]))
    model.set(cluster, isDone ? new Set([after]) : new Set([...before, after]))
  }
  const may = (cluster: number): Set<number> =>
    new Set([...(model.get(cluster) ?? []), ...(isPoisoned ? (unflushed.get(cluster) ?? []) : [])])
  for (let cluster = 0; cluster < clusters; cluster++) {
    const seen = new Uint8Array(clusterSize)
    if (!(await attempt(image.readInto(seen, cluster * clusterSize)))) continue
    const value = seen[0] ?? 0
    if (!may(cluster).has(value))
      return `cluster ${cluster} shows ${value}, may show ${[...may(cluster)].join()}`
    const whole = [contents(value, false), contents(value, true), new Uint8Array(clusterSize)]
    if (!whole.some((bytes) => Buffer.compare(bytes, seen) === 0)) return `cluster ${cluster} is not whole`
  }
  const isClosed = await attempt(image.close())
  if (unclean.length > 0) return `errors that are not clean: ${unclean.join(', ')}`
  const { corruptions, leaks } = await countsOf(memory)
  if (corruptions > 0) return `corrupt: ${corruptions}`
  if (isClosed && isTransient(kind) && leaks > 0) return `leaks: ${leaks} after a clean close`
  return undefined
}

/** Every operation of a run, as `faultLoop`. */
export async function compressedLoop(
  kind: FaultKind,
  seed: number,
  mutant?: Mutant,
): Promise<{ faults: number; problem: string | undefined }> {
  for (let index = 0; ; index++) {
    const { hit, problem } = await compressedRun(kind, index, seed, mutant)
    if (problem !== undefined) {
      return {
        faults: index,
        problem: `${problem}\n  npm run faults -- --replay 'compressed||${kind}|${index}|${seed}'`,
      }
    }
    if (!hit) return { faults: index, problem: undefined }
  }
}
