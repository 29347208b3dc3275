import { promisify } from 'node:util'
import { type ErrorContext, Qcow2Error, unsupported } from '../base/errors.js'

/**
 * Decompress a zlib cluster: a raw deflate stream, without header. qcow2 spec, "Compressed Clusters Descriptor".
 * @param payload  the sectors of the descriptor: the stream, then whatever shares its last sector
 * @returns exactly one cluster
 * @throws ERR_IO  the stream is damaged or ends early; as in QEMU an error of the request, not of the image
 */
export async function decompressCluster(
  payload: Uint8Array,
  clusterSize: number,
  context: ErrorContext,
): Promise<Uint8Array> {
  // Loaded on first use: most images need it never, and command lines start often.
  const { inflateRaw, constants } = await import('node:zlib')
  const inflate = promisify<Uint8Array, { finishFlush: number; maxOutputLength: number }, Buffer>(inflateRaw)
  let cluster: Buffer
  try {
    cluster = await inflate(payload, { finishFlush: constants.Z_SYNC_FLUSH, maxOutputLength: clusterSize })
  } catch (cause) {
    throw new Qcow2Error('ERR_IO', 'A compressed cluster cannot be decompressed', {
      ...context,
      structure: 'compressed cluster',
      cause,
    })
  }
  if (cluster.byteLength !== clusterSize) {
    throw new Qcow2Error(
      'ERR_IO',
      `A compressed cluster holds ${cluster.byteLength} bytes instead of ${clusterSize}`,
      {
        ...context,
        structure: 'compressed cluster',
      },
    )
  }
  return cluster
}

/**
 * Compress one cluster, as QEMU does: a raw deflate stream whose window is 4 KiB, which is all that a reader need keep.
 * @returns undefined when it does not get smaller than the cluster
 * @throws ERR_UNSUPPORTED_FEATURE  a compression type that is not written here
 */
export async function compressCluster(
  cluster: Uint8Array,
  type: 'zlib' | 'zstd',
  path: string,
): Promise<Uint8Array | undefined> {
  if (type !== 'zlib') throw unsupported(`Writing ${type} compressed clusters is not supported`, { path })
  const { deflateRaw } = await import('node:zlib')
  const deflate = promisify<Uint8Array, { windowBits: number; memLevel: number }, Buffer>(deflateRaw)
  const payload = await deflate(cluster, { windowBits: 12, memLevel: 9 })
  return payload.byteLength < cluster.byteLength ? payload : undefined
}
