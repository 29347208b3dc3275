import { createHash } from 'node:crypto'
import * as zlib from 'node:zlib'
import test from 'ava'
import { measureFrame } from '../../lib/qcow2/zstd-frames.js'
import { requireZstdWriter, ZstdCompressor, zstdDecompress } from '../../lib/qcow2/zstd.js'
import {
  sampleFrame,
  type SampleFrame,
  secondFrameAt,
  skippableFrame,
  stockCluster,
  stockClusterSize,
  stockSectors,
} from '../support/zstd-samples.js'

const canWrite = 'zstdCompress' in zlib

test('clusters that stand right behind each other are read, each from its own frame', async (t) => {
  // A descriptor counts whole sectors: the first payload ends with the beginning of the second frame.
  const first = stockSectors.subarray(0, Math.ceil(secondFrameAt / 512) * 512)
  t.true(first.length > secondFrameAt + 18)
  t.deepEqual(new Uint8Array(await zstdDecompress(first, stockClusterSize)), stockCluster(0))
  t.deepEqual(
    new Uint8Array(await zstdDecompress(stockSectors.subarray(secondFrameAt), stockClusterSize)),
    stockCluster(1),
  )
})

const cluster = Buffer.from(Array.from({ length: 4096 }, (_, at) => (at * at) % 199))
const [start, end] = [cluster.subarray(0, 1000), cluster.subarray(1000)]
const behind = Buffer.from('28b52ffd6000ff', 'hex')
const nothing = sampleFrame({ blocks: [Buffer.alloc(0)] })

const whole: Record<string, Buffer[]> = {
  'one frame': [sampleFrame({ blocks: [cluster] })],
  'one frame of many blocks': [sampleFrame({ blocks: [start, Buffer.alloc(0), end], contentSize: 4096 })],
  'several frames': [
    sampleFrame({ blocks: [start], contentSize: 1000, singleSegment: true }),
    sampleFrame({ blocks: [end] }),
  ],
  'frames that hold nothing among them': [
    nothing,
    sampleFrame({ blocks: [start] }),
    skippableFrame(Buffer.from('abc')),
    nothing,
    sampleFrame({ blocks: [end] }),
  ],
  'a window that is far too large for it': [sampleFrame({ blocks: [cluster], windowBits: 27 })],
}

for (const [what, frames] of Object.entries(whole)) {
  test(`a cluster is read from ${what}`, async (t) => {
    const payload = Buffer.concat([...frames, behind])
    t.deepEqual(Buffer.from(await zstdDecompress(payload, 4096)), cluster)
  })
}

const zeros = (times: number): SampleFrame['blocks'][number] => ({ repeat: 0, times })
const damaged: Record<string, Buffer[]> = {
  'nothing at all': [Buffer.alloc(0)],
  'no frame': [Buffer.alloc(512)],
  'one byte too few': [sampleFrame({ blocks: [cluster.subarray(1)] }), behind],
  'one byte too many': [sampleFrame({ blocks: [cluster, zeros(1)] })],
  'one byte too many in the second frame': [
    sampleFrame({ blocks: [start] }),
    sampleFrame({ blocks: [end, zeros(1)] }),
  ],
  'far too much': [sampleFrame({ blocks: Array.from({ length: 500 }, () => zeros(2 ** 17)) })],
  'far too much, as it says itself': [sampleFrame({ blocks: [cluster], contentSize: 2 ** 40 })],
  'another number of bytes than it says': [sampleFrame({ blocks: [cluster], contentSize: 4095 })],
  'frames without end that hold nothing': Array.from({ length: 100 }, () => nothing),
  'a frame that ends early': [sampleFrame({ blocks: [cluster] }).subarray(0, -1)],
  'the second frame ending early': [
    sampleFrame({ blocks: [start] }),
    sampleFrame({ blocks: [end] }).subarray(0, -1),
  ],
}

for (const [what, frames] of Object.entries(damaged)) {
  test(`a payload is refused for ${what}`, async (t) => {
    await t.throwsAsync(zstdDecompress(Buffer.concat(frames), 4096))
  })
}

test('damage within the blocks of a frame ends with an error or with a cluster, never otherwise', async (t) => {
  let refused = 0
  const frame = stockSectors.subarray(0, secondFrameAt)
  for (let at = 0; at < frame.length; at++) {
    const wrong = Uint8Array.from(frame)
    wrong[at] = (wrong[at] ?? 0) ^ (1 << (at % 8))
    await zstdDecompress(wrong, stockClusterSize).then(
      (bytes) => t.is(bytes.length, stockClusterSize),
      () => refused++,
    )
  }
  t.true(refused > 50)
})

const compressor = new ZstdCompressor(4096)

if (canWrite) {
  test('clusters become a frame each, whichever stream makes it, and are the same when they are unpacked', async (t) => {
    const noise = createHash('shake256', { outputLength: 4096 }).update('seed').digest()
    const contents = Array.from({ length: 40 }, (_, index) =>
      index % 5 === 4 ? noise : Buffer.from(cluster.map((byte) => byte ^ index)),
    )
    const frames = await Promise.all(contents.map((content) => compressor.compress(content)))
    for (const [index, frame] of frames.entries()) {
      t.like(measureFrame(frame), { type: 'data', bytes: frame.length })
      t.is(frame.length < 4096, index % 5 !== 4)
      t.deepEqual(Buffer.from(await zstdDecompress(Buffer.concat([frame, behind]), 4096)), contents[index])
    }
  })
} else {
  test('a Node.js that cannot write zstd says so, and what can', async (t) => {
    const expected = {
      code: 'ERR_NOT_SUPPORTED',
      message: /takes Node\.js 22\.15, .*libzstd\.so\.1; this is v2/,
    }
    await t.throwsAsync(requireZstdWriter({ inMemory: true }), expected)
    await t.throwsAsync(compressor.compress(cluster), expected)
  })
}
