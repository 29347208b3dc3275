import { promisify } from 'node:util'
import { type ErrorContext, Qcow2Error } from '../base/errors.js'
import type { BackendCodec, BlockBackend, CompressionType } from '../queue/backend.js'
import { ZstdCompressor, zstdDecompress } from './zstd.js'

export type { CompressionType }

/**
 * Clusters that are at work at a time, of one image: twice what Node's pool of threads works on by default. Each takes some 300 KiB beside its bytes,
 * and a request may be of thousands.
 */
const clustersAtWork = 8

/** Bytes of memory that an image keeps to pack into: new one for each cluster costs the garbage collector more than it saves. */
const keptRoom = 2 ** 20

/** Packs and unpacks an image's compressed clusters, several at a time, on threads of the backend or of Node. qcow2 spec, "Compressed Clusters Descriptor". */
export class ClusterCodec {
  readonly type: CompressionType
  readonly #clusterSize: number
  readonly #path: string
  /** Where the backend has one. */
  readonly ofBackend: BackendCodec | undefined
  readonly #zstd: ZstdCompressor
  /** Memory to pack into that nobody uses. */
  readonly #rooms: Uint8Array[] = []
  #free = clustersAtWork
  readonly #waiting: (() => void)[] = []

  constructor(type: CompressionType, clusterSize: number, backend: Pick<BlockBackend, 'path' | 'codec'>) {
    this.type = type
    this.#clusterSize = clusterSize
    this.#path = backend.path
    this.ofBackend = backend.codec?.(type)
    this.#zstd = new ZstdCompressor(clusterSize)
  }

  /**
   * @param cluster  as many bytes as a cluster has
   * @returns undefined when it does not get smaller; the memory is to be given back by `reuse`
   * @throws ERR_NOT_SUPPORTED  nothing here writes zstd
   */
  async compress(cluster: Uint8Array): Promise<Uint8Array | undefined> {
    const { ofBackend } = this
    if (ofBackend !== undefined) {
      const [room, length] = await this.#inTurn(async () => {
        const taken = this.#rooms.pop() ?? Buffer.allocUnsafeSlow(cluster.byteLength - 1)
        return [taken, await ofBackend.pack(taken, cluster)] as const
      })
      if (length >= 0) return room.subarray(0, length)
      this.reuse(room)
      return undefined
    }
    const payload = await this.#inTurn(() =>
      this.type === 'zlib' ? zlibCompress(cluster) : this.#zstd.compress(cluster),
    )
    return payload.byteLength < cluster.byteLength ? payload : undefined
  }

  /** @param payload  what `compress` has answered: it is written, and nobody needs it any more */
  reuse(payload: Uint8Array): void {
    if (this.ofBackend === undefined) return
    const isRoom = (this.#rooms.length + 1) * this.#clusterSize <= keptRoom
    if (isRoom) this.#rooms.push(new Uint8Array(payload.buffer))
  }

  /**
   * @param payload  the sectors of the descriptor: the compressed bytes, then whatever shares the last sector
   * @param offset   of the payload, for errors
   * @returns exactly one cluster
   * @throws ERR_IO  the payload is damaged or ends early; as in QEMU an error of the request, not of the image
   */
  async decompress(payload: Uint8Array, offset: number): Promise<Uint8Array> {
    const clusterSize = this.#clusterSize
    let cluster: Uint8Array
    try {
      cluster = await this.#inTurn(() =>
        this.type === 'zlib' ? zlibDecompress(payload, clusterSize) : zstdDecompress(payload, clusterSize),
      )
    } catch (cause) {
      throw new Qcow2Error('ERR_IO', 'A compressed cluster cannot be decompressed', {
        ...this.#context(offset),
        cause,
      })
    }
    this.refuseLength(cluster.byteLength, offset)
    return cluster
  }

  /** @param length  bytes that came out of a payload; -1: it is damaged  @throws ERR_IO  they are not a cluster */
  refuseLength(length: number, offset: number): void {
    if (length === this.#clusterSize) return
    const what =
      length < 0
        ? 'A compressed cluster cannot be decompressed'
        : `A compressed cluster holds ${length} bytes instead of ${this.#clusterSize}`
    throw new Qcow2Error('ERR_IO', what, this.#context(offset))
  }

  #context(offset: number): ErrorContext {
    return { path: this.#path, offset, structure: 'compressed cluster' }
  }

  /** A turn that ends is handed on, in order. */
  async #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#free > 0) this.#free--
    else await new Promise<void>((resolve) => this.#waiting.push(resolve))
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      if (next === undefined) this.#free++
      else next()
    }
  }
}

/** A raw deflate stream, without header; it may end anywhere in `payload`. */
async function zlibDecompress(payload: Uint8Array, clusterSize: number): Promise<Uint8Array> {
  // Loaded on first use: most images need it never, and command lines start often.
  const { inflateRaw, constants } = await import('node:zlib')
  const inflate = promisify<
    Uint8Array,
    { finishFlush: number; maxOutputLength: number; chunkSize: number },
    Buffer
  >(inflateRaw)
  return inflate(payload, {
    finishFlush: constants.Z_SYNC_FLUSH,
    maxOutputLength: clusterSize,
    // All in one piece, with a byte to spare by which what is too much shows itself.
    chunkSize: clusterSize + 1,
  })
}

/** As QEMU does: a raw deflate stream whose window is 4 KiB, which is all that a reader need keep. */
async function zlibCompress(cluster: Uint8Array): Promise<Uint8Array> {
  const { deflateRaw } = await import('node:zlib')
  const deflate = promisify<Uint8Array, { windowBits: number; memLevel: number; chunkSize: number }, Buffer>(
    deflateRaw,
  )
  return deflate(cluster, { windowBits: 12, memLevel: 9, chunkSize: cluster.byteLength })
}
