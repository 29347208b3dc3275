import { notSupported } from '../base/errors.js'
import { limitWindow, measureFrame } from './zstd-frames.js'

type Done = (error: Error | null, result: Uint8Array) => void

/** What node:zlib has from Node.js 22.15 and 23.8 on. */
type ZstdOfNode = {
  readonly zstdCompress: (bytes: Uint8Array, options: { chunkSize: number }, done: Done) => void
  readonly zstdDecompress: (
    bytes: Uint8Array,
    options: { chunkSize: number; maxOutputLength: number },
    done: Done,
  ) => void
}

async function zstdOfNode(): Promise<ZstdOfNode | undefined> {
  const zlib = (await import('node:zlib')) as Partial<ZstdOfNode>
  const { zstdCompress, zstdDecompress } = zlib
  return zstdCompress === undefined || zstdDecompress === undefined
    ? undefined
    : { zstdCompress, zstdDecompress }
}

/** @throws ERR_NOT_SUPPORTED  this Node.js reads zstd only */
export async function requireZstdWriter(): Promise<ZstdOfNode> {
  const zlib = await zstdOfNode()
  if (zlib !== undefined) return zlib
  throw notSupported(
    `Writing zstd compressed clusters takes Node.js 22.15, 23.8, 24 or newer; this is ${process.version}`,
  )
}

/** One frame, by a thread of Node's pool. Its level is zstd's own default, as in QEMU. */
export async function zstdCompress(cluster: Uint8Array): Promise<Uint8Array> {
  const zlib = await requireZstdWriter()
  return new Promise((resolve, reject) => {
    zlib.zstdCompress(cluster, { chunkSize: cluster.byteLength }, (error, payload) => {
      if (error === null) resolve(payload)
      else reject(error)
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

function decodeByNode(zlib: ZstdOfNode, frame: Uint8Array, room: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    // With a byte to spare, it all comes out in one piece, and what is too much shows itself.
    const options = { chunkSize: Math.max(room + 1, leastChunk), maxOutputLength: room }
    zlib.zstdDecompress(frame, options, (error, content) => {
      if (error === null) resolve(content)
      else reject(error)
    })
  })
}

/** For Node.js 20. It does not look at checksums, which QEMU writes none of. */
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
