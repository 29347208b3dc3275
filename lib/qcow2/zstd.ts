import type { Transform } from 'node:stream'
import { notSupported } from '../base/errors.js'
import { addon } from '../native/addon.js'
import { limitWindow, measureFrame } from './zstd-frames.js'

/** What node:zlib has from Node.js 22.15 and 23.8 on. */
type ZstdOfNode = {
  readonly createZstdCompress: (options: {
    chunkSize: number
    readableHighWaterMark: number
    params: Record<number, number>
  }) => ZstdStream
  readonly zstdDecompress: (
    bytes: Uint8Array,
    options: DecodeOptions,
    done: (error: Error | null, content: Uint8Array) => void,
  ) => void
  readonly zstdDecompressSync: (bytes: Uint8Array, options: DecodeOptions) => Uint8Array
  readonly constants: { readonly ZSTD_c_windowLog: number; readonly ZSTD_e_end: number }
}

type DecodeOptions = { readonly chunkSize: number; readonly maxOutputLength: number }

type ZstdStream = Transform & { flush(kind: number, done: () => void): void }

async function zstdOfNode(): Promise<ZstdOfNode | undefined> {
  const zlib = (await import('node:zlib')) as unknown as Partial<ZstdOfNode>
  return zlib.zstdDecompress === undefined ? undefined : (zlib as ZstdOfNode)
}

/** @param image.inMemory  nothing of it goes through the addon  @throws ERR_NOT_SUPPORTED  its clusters can only be read here */
export async function requireZstdWriter(image: { readonly inMemory: boolean }): Promise<void> {
  if (image.inMemory || !addon().codecs.zstd()) await zstdWriter()
}

async function zstdWriter(): Promise<ZstdOfNode> {
  const zlib = await zstdOfNode()
  if (zlib !== undefined) return zlib
  throw notSupported(
    `Writing zstd compressed clusters takes Node.js 22.15, 23.8, 24 or newer, or for a file on Linux the library libzstd.so.1; this is ${process.version}`,
  )
}

/**
 * Makes a frame of each cluster, on Node's pool of threads, with zstd's own default level as in QEMU. To set up zstd takes longer than a cluster does:
 * its streams are kept, as many as were ever at work at a time.
 */
export class ZstdCompressor {
  readonly #clusterSize: number
  readonly #idle: ZstdStream[] = []

  constructor(clusterSize: number) {
    this.#clusterSize = clusterSize
  }

  /** @throws ERR_NOT_SUPPORTED  this Node.js reads zstd only */
  async compress(cluster: Uint8Array): Promise<Uint8Array> {
    const zlib = await zstdWriter()
    const stream = this.#idle.pop() ?? this.#open(zlib)
    const frame = await nextFrame(stream, cluster, zlib.constants.ZSTD_e_end)
    this.#idle.push(stream)
    return frame
  }

  #open({ createZstdCompress, constants }: ZstdOfNode): ZstdStream {
    const clusterSize = this.#clusterSize
    return createZstdCompress({
      chunkSize: clusterSize,
      // Nobody reads before a frame is complete, and what did not get smaller is a little larger.
      readableHighWaterMark: 2 * clusterSize + leastWindow,
      params: { [constants.ZSTD_c_windowLog]: Math.log2(Math.max(clusterSize, leastWindow)) },
    })
  }
}

/** What zstd accepts. */
const leastWindow = 1024

function nextFrame(stream: ZstdStream, cluster: Uint8Array, end: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    stream.once('error', reject)
    stream.write(cluster)
    stream.flush(end, () => {
      stream.off('error', reject)
      resolve(stream.read() as Buffer)
    })
  })
}

/**
 * Unpack frames until a cluster is full; what follows belongs to the next cluster.
 * @throws Error  damaged frames, one that would fill more than the cluster, or less than a cluster in all
 */
export async function zstdDecompress(payload: Uint8Array, clusterSize: number): Promise<Uint8Array> {
  const decode = await frameDecoder()
  const cluster = new Uint8Array(clusterSize)
  for (let done = 0, at = 0; done < clusterSize;) {
    const frame = measureFrame(payload.subarray(at))
    if (frame.type === 'damaged') throw new Error(`zstd: byte ${at}: ${frame.reason}`)
    const bytes = payload.subarray(at, at + frame.bytes)
    at += frame.bytes
    if (frame.type === 'skippable') continue
    const room = clusterSize - done
    if ((frame.contentSize ?? 0) > room) throw new Error(overfull)
    const content = await decode(limitWindow(bytes, frame, clusterSize), room)
    if (content.length !== (frame.contentSize ?? content.length))
      throw new Error('zstd: a frame unpacks to another number of bytes than it says')
    // The one frame of most clusters.
    if (content.length === clusterSize) return content
    cluster.set(content, done)
    done += content.length
  }
  return cluster
}

const overfull = 'zstd: more comes out than a cluster'

/** Unpacks one frame to at most `room` bytes. */
type FrameDecoder = (frame: Uint8Array, room: number) => Promise<Uint8Array>

async function frameDecoder(): Promise<FrameDecoder> {
  const zlib = await zstdOfNode()
  return zlib === undefined ? decodeInJavaScript : (frame, room) => decodeByNode(zlib, frame, room)
}

/** What node:zlib accepts. */
const leastChunk = 64

/** Bytes: to unpack so many takes 30 to 60 us; to hand them to a thread and to be told takes longer, of this thread's time too. */
const soonUnpacked = 65536

async function decodeByNode(zlib: ZstdOfNode, frame: Uint8Array, room: number): Promise<Uint8Array> {
  // With a byte to spare, it all comes out in one piece, and what is too much shows itself.
  const options = { chunkSize: Math.max(room + 1, leastChunk), maxOutputLength: room }
  if (room <= soonUnpacked) return zlib.zstdDecompressSync(frame, options)
  return new Promise((resolve, reject) => {
    zlib.zstdDecompress(frame, options, (error, content) => {
      if (error === null) resolve(content)
      else reject(error)
    })
  })
}

/** For Node.js 20 where there is no library. It does not look at checksums, which QEMU writes none of. */
async function decodeInJavaScript(frame: Uint8Array, room: number): Promise<Uint8Array> {
  const { Decompress } = await import('fzstd')
  const content = new Uint8Array(room)
  let length = 0
  const decoder = new Decompress((block) => {
    if (block.length > room - length) throw new Error(overfull)
    content.set(block, length)
    length += block.length
  })
  decoder.push(frame, true)
  return length === room ? content : content.subarray(0, length)
}
