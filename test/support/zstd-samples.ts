/** Zstandard frames for tests, also where there is nothing that writes them: Node.js 20 only reads. */

/** Bytes of a cluster of `stockSectors`. */
export const stockClusterSize = 2048

/** What the clusters of `stockSectors` hold: number 0 and 1. */
export function stockCluster(index: 0 | 1): Uint8Array {
  const seed = [7, 11][index] as number
  return Uint8Array.from({ length: stockClusterSize }, (_, at) => ((at * at + seed) % 97) % (7 + (at >> 8)))
}

/** Where the second frame begins, in the last sector of the first. */
export const secondFrameAt = 410

/** Two compressed clusters, one right behind the other, as qemu-img 7.2 has written them. */
export const stockSectors: Uint8Array = paddedToSectors(
  Buffer.from(
    [
      'KLUv/WAAB4UMANbdOow0Q0QzMzEgNAA2ADgAr5iElJhP6RQjrXgaURLxpQbRQhqqxBDFpChV5g/+4fKljD1Sx897Sprs+PGPtBcx',
      'g27NCGUPshgyTK9Pm2q1IreLVGuMd08OcsIobmVmRlFxpDL8NCjMKhXRQdG5z5nhLRN06nyCLD2rGC8t2LcaDR1QVICPhqx2n8Ik',
      'DpgxUvWqrkWbAS7EXNpuqbXoFXS59eyKKs47Ps6udjlF3XXVGrRZZY4QeKBo41N4cGZBzmztJJhd8ED3GAs4QwibBAAQSDXchQJ+',
      'qWzyYhUlQkiJuag3wDA1gXcw9idydwE8ICACYhQysh4cUiqsDGfzLni/CZPYMMhaLRd3yKZAO1E/2oU0/o6LYyDFgIxY4vB4sjiH',
      'XOpIL7jAPQHZQ3iL/L5z+ou5QQgdUhortaOFDZLNpC61gIjxrXdGH45ChgY0FpflS3QerxHIIZuCZ4WzHQbIXEXLcUhSPBuzi0LC',
      'q4jbLamC/o1vbIxvVwtSxwPIkKXQMcFag4RrgT4VmQspeFAotS/9YAAHBQ0ARt89jDMyIyIiERA2ADgAPADnlEK2p0UzdCHTyEkv',
      'szqtUI0MSTstuk68DJko9rj2xVPedEorZMdyW+jvT1KPLSQy2c9L1E/kgKK5iVhuKmM9Ml/EZBaRVHVyFrmNrjbSObGIfeqzqHiW',
      'xmO3+DYeKo1ve1p1bJOww79sRSxzPQbaM7tSAwgWBoo5gFDq2YUBdbLW2D95IJn1VzgBoNztqRq9wIS7qiswJIEJrsOrc9m5m6vj',
      '9AAPjAzcIKKKdgb0m/gAdsEnHMPFQRVBlIZ9biyPQTmHMzAu7CfgM1YJ21EQZknVUVwYkYkLXpUULQIdEEB+di2LIFwFFj8gIAKC',
      'GDIyHhZSUAAGI0abFa2he9WujXFjEf0hOiRQQJsVsMUeRb44C8NeAgaZmp0CwSFPneNzm8B3jKEOZkOOrBQzAoRWWNTi3IkiaYFN',
      'eoID78YF39unkKBWuzybh5LfQN+MtsxbhPWtOA6ZFDwXpik0jnt3DU+TQ2xIyXYWIwOMRnYMnzEPb4DOrPY1dKeB05ZlyNHoTLCg',
      'QfLikJpDwyAFfQ8=',
    ].join(''),
    'base64',
  ),
)

function paddedToSectors(bytes: Uint8Array): Uint8Array {
  const sectors = new Uint8Array(Math.ceil(bytes.length / 512) * 512)
  sectors.set(bytes)
  return sectors
}

export type SampleBlock = Uint8Array | { readonly repeat: number; readonly times: number }

export type SampleFrame = {
  readonly contentSize?: number
  /** The window is 2 to this power; ignored with singleSegment. Default 17. */
  readonly windowBits?: number
  readonly singleSegment?: boolean
  readonly blocks: readonly SampleBlock[]
}

/** A frame of blocks as they are, and of one byte repeated. */
export function sampleFrame({
  contentSize,
  windowBits = 17,
  singleSegment = false,
  blocks,
}: SampleFrame): Buffer {
  const size = Buffer.alloc(contentSize === undefined ? 0 : 8)
  if (contentSize !== undefined) size.writeBigUInt64LE(BigInt(contentSize))
  const descriptor = (contentSize === undefined ? 0 : 0xc0) | (singleSegment ? 0x20 : 0)
  return Buffer.concat([
    Buffer.from([0x28, 0xb5, 0x2f, 0xfd, descriptor]),
    Buffer.from(singleSegment ? [] : [(windowBits - 10) << 3]),
    size,
    ...blocks.map((block, index) => sampleBlock(block, index === blocks.length - 1)),
  ])
}

function sampleBlock(block: SampleBlock, isLast: boolean): Buffer {
  const isRaw = block instanceof Uint8Array
  const header = Buffer.alloc(3)
  header.writeUIntLE(((isRaw ? block.length : block.times) << 3) | (isRaw ? 0 : 2) | (isLast ? 1 : 0), 0, 3)
  return Buffer.concat([header, isRaw ? block : Buffer.from([block.repeat])])
}

/** A frame that decoders pass over. */
export function skippableFrame(content: Uint8Array): Buffer {
  const header = Buffer.from([0x53, 0x2a, 0x4d, 0x18, 0, 0, 0, 0])
  header.writeUInt32LE(content.length, 4)
  return Buffer.concat([header, content])
}
