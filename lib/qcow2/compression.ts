import { promisify } from 'node:util'
import { type ErrorContext, Qcow2Error } from '../base/errors.js'

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
