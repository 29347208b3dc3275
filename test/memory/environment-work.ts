import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { Worker, workerData } from 'node:worker_threads'
import { noSection, section } from '../../lib/base/units.js'
import { addon } from '../../lib/native/addon.js'
import type { CompressionType } from '../../lib/queue/backend.js'
import { BlockQueue } from '../../lib/queue/block-queue.js'
import { Attempts, descriptorsOf, type Outcome } from './attempts.js'
import type { FailingMemory } from './failing-memory.js'

const unit = 4096
const fill = (value: number): Uint8Array => new Uint8Array(unit).fill(value)

type Orders = { readonly path: string; readonly closes: boolean }

/**
 * A thread that loads the addon anew, uses it a little and ends, with or without having closed its file: all that an environment
 * needs for its beginning and its end.
 */
export async function environmentWork(
  memory: FailingMemory,
  path: string,
  fault: { readonly n: number; readonly forEver: boolean; readonly closes: boolean },
): Promise<Outcome> {
  rmSync(path, { force: true })
  writeFileSync(path, new Uint8Array(8 * unit))
  memory.failAt(fault.n, fault)
  const orders: Orders = { path, closes: fault.closes }
  const worker = new Worker(new URL(import.meta.url), { workerData: { environmentWork: orders } })
  const problems: string[] = []
  worker.on('message', (found: string[]) => problems.push(...found))
  worker.on('error', (error) => problems.push(`the thread failed: ${String(error)}`))
  await new Promise((resolve) => worker.once('exit', resolve))
  const { failed } = memory.relent()
  if (descriptorsOf(path) > 0) problems.push('a descriptor is left')
  const bytes = readFileSync(path)
  if (bytes[unit] !== 0 && bytes[0] === 0) problems.push('a section was written without the one before it')
  return { problems, failed }
}

async function useAddon({ path, closes }: Orders): Promise<string[]> {
  const attempts = new Attempts()
  const options = { readOnly: false, direct: false, syncPolicy: 'flush', idleMs: 0 } as const
  if (!(await attempts.succeeds('load', addon))) return attempts.problems
  const opened = await attempts.result('open', () => BlockQueue.open(path, options))
  if (opened === undefined) return attempts.problems
  const queue = opened.value
  const first = await attempts.result('enqueue', () => queue.enqueue(fill(1), 0, noSection))
  const after = section((first?.value ?? 0) + 1)
  if (first !== undefined) await attempts.succeeds('enqueue', () => queue.enqueue(fill(2), unit, after))
  // Ends, where it does not close, with the queue full and a request under way.
  const written = attempts.succeeds('write', () => queue.write(fill(3), 2 * unit))
  if (!closes) return attempts.problems
  await written
  for (const type of ['zlib', 'zstd'] as const) await useCodec(queue, type, attempts)
  const flushed = await attempts.succeeds('flush', () => queue.flush())
  if (flushed && first !== undefined && readFileSync(path)[0] !== 1) attempts.problems.push('a flush lied')
  await attempts.succeeds('close', () => queue.close())
  return attempts.problems
}

/** Its threads are new ones, which have set up nothing. */
async function useCodec(queue: BlockQueue, type: CompressionType, attempts: Attempts): Promise<void> {
  const codec = queue.codec(type)
  if (codec === undefined) return
  const payload = new Uint8Array(unit)
  const packed = await attempts.result('pack', () => codec.pack(payload, fill(7)))
  if (packed === undefined) return
  const stored = await attempts.succeeds('write', () => queue.write(payload, 4 * unit))
  const back = fill(0)
  const read = await attempts.result('read', () => codec.read(back, 4 * unit, packed.value))
  const isThere = read?.value === unit && back.every((byte) => byte === 7)
  if (stored && read !== undefined && !isThere)
    attempts.problems.push(`a cluster of ${type} is not what it was`)
}

const given = (workerData as { environmentWork?: Orders } | null)?.environmentWork
if (given !== undefined) {
  const { parentPort } = await import('node:worker_threads')
  parentPort?.postMessage(await useAddon(given))
}
