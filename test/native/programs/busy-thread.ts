import { parentPort, workerData } from 'node:worker_threads'
import { noSection } from '../../../lib/base/units.js'
import type { BackendCodec } from '../../../lib/queue/backend.js'
import { BlockQueue } from '../../../lib/queue/block-queue.js'

/** A worker thread that never stops of itself; says 'busy' when it is. */
const { path, direct } = workerData as { path: string; direct: boolean }
const queue = await BlockQueue.open(path, { readOnly: false, direct, syncPolicy: 'flush', create: true })

async function work(lane: number): Promise<void> {
  const bytes = new Uint8Array(4096).fill(lane + 1)
  const back = new Uint8Array(4096)
  for (let round = 0; ; round++) {
    const offset = (lane * 64 + (round % 64)) * 4096
    await queue.write(bytes, offset)
    await queue.readQueued(back, offset)
    if (back[0] !== lane + 1) throw new Error(`lane ${lane} read ${back[0]}`)
    // Nodes lie behind the data of all lanes.
    queue.enqueue(bytes, (1024 + lane) * 4096, noSection)
    if (round % 8 === 0) await queue.flush()
    if (round === 20 && lane === 0) parentPort?.postMessage('busy')
  }
}

/** Packs and unpacks clusters that take a while, in the same memory over and over. */
async function compress(codec: BackendCodec, lane: number): Promise<void> {
  const size = 2 ** 20
  const cluster = Uint8Array.from({ length: size }, (_, at) => (at * at + lane) % 199)
  const [payload, back] = [new Uint8Array(size), new Uint8Array(size)]
  const offset = (2048 + lane * 512) * 4096
  for (;;) {
    const length = await codec.pack(payload, cluster)
    await queue.write(payload.subarray(0, length), offset)
    if ((await codec.read(back, offset, length)) !== size || back[1] !== cluster[1])
      throw new Error(`lane ${lane} unpacked another cluster`)
  }
}

const codecs = [queue.codec('zlib'), queue.codec('zstd')].filter((codec) => codec !== undefined)
await Promise.all([
  ...Array.from({ length: 16 }, (_, lane) => work(lane)),
  ...codecs.flatMap((codec, kind) => [0, 1].map((lane) => compress(codec, 2 * kind + lane))),
])
