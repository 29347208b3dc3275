import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import type { Finding } from '../../lib/qcow2/check-result.js'
import { type CheckOptions, CheckState } from '../../lib/qcow2/check-state.js'
import { readHeader } from '../../lib/qcow2/open-metadata.js'

/** A check of these bytes that is about to begin, and what it will find. */
export async function checkStateOf(
  bytes: Uint8Array,
  options: CheckOptions = {},
): Promise<{ state: CheckState; backend: MemoryBackend; found: Finding[]; texts: string[] }> {
  const backend = new MemoryBackend({ contents: SparseBytes.from(Uint8Array.from(bytes)), record: true })
  const { header } = await readHeader(backend)
  const found: Finding[] = []
  const texts: string[] = []
  const state = new CheckState(backend, header, {
    ...options,
    onFinding: (finding) => {
      found.push(finding)
      texts.push(finding.text)
    },
  })
  return { state, backend, found, texts }
}

/** By hand: 512-byte clusters. What an image of 1 MiB with nothing in it looks like. */
export function emptyImage(options: { version?: 2 | 3; refcountOrder?: number } = {}): Buffer {
  // header, refcount table, refcount block, L1 of 32 entries in half a cluster
  const image = Buffer.alloc(4 * 512)
  image.writeUInt32BE(0x514649fb, 0)
  image.writeUInt32BE(options.version ?? 3, 4)
  image.writeUInt32BE(9, 20)
  image.writeBigUInt64BE(1n << 20n, 24)
  image.writeUInt32BE(32, 36)
  image.writeBigUInt64BE(3n * 512n, 40)
  image.writeBigUInt64BE(512n, 48)
  image.writeUInt32BE(1, 56)
  if (options.version !== 2) {
    image.writeUInt32BE(options.refcountOrder ?? 4, 96)
    image.writeUInt32BE(104, 100)
  }
  image.writeBigUInt64BE(1024n, 512)
  // four clusters, a refcount of 1 each, 16 bits wide
  image.writeBigUInt64BE(0x0001000100010001n, 1024)
  return image
}

/** The empty image with more clusters behind it, each 64 big-endian words: only those given are not 0. */
export function imageWith(...clusters: Record<number, bigint>[]): Buffer {
  const more = clusters.map((words) => {
    const cluster = Buffer.alloc(512)
    for (const [index, word] of Object.entries(words)) cluster.writeBigUInt64BE(word, 8 * Number(index))
    return cluster
  })
  return Buffer.concat([emptyImage(), ...more])
}

export const copied = 1n << 63n
export const compressed = 1n << 62n
/** The host offset of cluster number `cluster`. */
export const at = (cluster: number): bigint => BigInt(cluster * 512)
