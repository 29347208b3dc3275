import { createHash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { constants, deflateRawSync, inflateRawSync } from 'node:zlib'
import test, { type ExecutionContext } from 'ava'
import { addon } from '../../lib/native/addon.js'
import { zstdDecompress } from '../../lib/qcow2/zstd.js'
import type { BackendCodec, CompressionType } from '../../lib/queue/backend.js'
import { BlockQueue } from '../../lib/queue/block-queue.js'
import { SeededRandom } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'
import {
  sampleFrame,
  secondFrameAt,
  skippableFrame,
  stockCluster,
  stockClusterSize,
  stockSectors,
} from '../support/zstd-samples.js'

const size = 65536
const cluster = Uint8Array.from({ length: size }, (_, at) => (at * at) % 199)

async function open(t: ExecutionContext, contents: Uint8Array, direct = false): Promise<BlockQueue> {
  const path = join(await makeFolder(t), 'file')
  await writeFile(path, contents)
  const queue = await BlockQueue.open(path, { readOnly: true, direct, syncPolicy: 'flush' })
  t.teardown(() => queue.close())
  return queue
}

/** Of a type that the process has a library for. */
function codecOf(queue: BlockQueue, type: CompressionType): BackendCodec {
  const codec = queue.codec(type)
  if (codec === undefined) throw new Error(`no codec for ${type}`)
  return codec
}

/** Other Nodes do without, by node:zlib and in JavaScript: those tests say that they are skipped. */
const { codecs } = addon()
const testOf = { zlib: codecs.zlib() ? test : test.skip, zstd: codecs.zstd() ? test : test.skip }

const raw = (bytes: Uint8Array): Uint8Array => sampleFrame({ blocks: [bytes] })

/** Payloads of each kind. */
const kinds = {
  zlib: {
    packed: deflateRawSync(cluster, { windowBits: 12 }),
    short: deflateRawSync(cluster.subarray(0, 100)),
    long: deflateRawSync(new Uint8Array(2 ** 24)),
    byOthers: (packed: Uint8Array): Promise<Uint8Array> =>
      Promise.resolve(inflateRawSync(packed, { finishFlush: constants.Z_SYNC_FLUSH })),
  },
  zstd: {
    packed: Buffer.concat([
      skippableFrame(Buffer.from('abc')),
      raw(cluster.subarray(0, 1000)),
      raw(cluster.subarray(1000)),
    ]),
    short: raw(cluster.subarray(0, 100)),
    long: sampleFrame({ blocks: Array.from({ length: 128 }, () => ({ repeat: 0, times: 2 ** 17 })) }),
    byOthers: (packed: Uint8Array): Promise<Uint8Array> => zstdDecompress(packed, size),
  },
}

for (const type of ['zlib', 'zstd'] as const) {
  const { packed, short, long, byOthers } = kinds[type]
  const testIt = testOf[type]

  for (const direct of [false, true]) {
    testIt(
      `${type} at any place, with anything behind it, is unpacked as it is read, direct: ${direct}`,
      async (t) => {
        const contents = new Uint8Array(3 * size).fill(0xa5)
        contents.set(packed, 777)
        const queue = await open(t, contents, direct)
        const bytes = new Uint8Array(size)
        t.is(await codecOf(queue, type).read(bytes, 777, packed.length + 400), size)
        t.deepEqual(bytes, cluster)
        t.is(queue.stats().dataReads, 1)
        t.is(queue.stats().dataReadBytes, packed.length + 400)
      },
    )
  }

  testIt(`${type}: what is damaged or too long is told from what is short`, async (t) => {
    const damaged = Uint8Array.from(packed)
    damaged.fill(0xff, 0, 4)
    const contents = new Uint8Array(8 * 2 * size)
    for (const [index, stream] of [packed, damaged, short, long].entries())
      contents.set(stream, index * 2 * size)
    const codec = codecOf(await open(t, contents), type)
    const unpacked = (index: number, length: number): Promise<number> =>
      codec.read(new Uint8Array(size), index * 2 * size, length)
    t.is(await unpacked(0, packed.length), size)
    t.is(await unpacked(1, packed.length), -1)
    t.is(await unpacked(2, short.length), 100)
    t.is(await unpacked(3, long.length), -1, 'longer than there is room for')
    t.not(await unpacked(0, Math.floor(packed.length / 2)), size, 'the end is missing')
    t.is(await unpacked(5, 512), -1, 'zeros')
    // What came out of room for one byte less is too much by one.
    t.is(await codec.read(new Uint8Array(size - 1), 0, packed.length), -1)
    t.is(await unpacked(0, packed.length), size, 'after all that')
  })

  testIt(`${type}: many at once come back each with its own, also past the end of the file`, async (t) => {
    const codec = codecOf(await open(t, packed), type)
    const all = Array.from({ length: 100 }, () => new Uint8Array(size))
    const lengths = await Promise.all(all.map((bytes) => codec.read(bytes, 0, packed.length + 512)))
    t.true(lengths.every((length) => length === size))
    t.true(all.every((bytes) => Buffer.compare(bytes, cluster) === 0))
    t.is(await codec.read(new Uint8Array(size), 2 ** 40, 512), -1)
  })

  testIt(
    `${type}: clusters of all sizes, packed among each other, are what others unpack to the same`,
    async (t) => {
      const codec = codecOf(await open(t, new Uint8Array(0)), type)
      const wholes = Array.from({ length: 40 }, (_, index) =>
        Uint8Array.from(cluster.subarray(0, 512 << (index % 8)), (byte) => byte ^ index),
      )
      const rooms = wholes.map((whole) => new Uint8Array(whole.length - 1))
      const lengths = await Promise.all(
        wholes.map((whole, index) => codec.pack(rooms[index] as Uint8Array, whole)),
      )
      for (const [index, length] of lengths.entries()) {
        const whole = wholes[index] as Uint8Array
        t.true(length > 0 && length < whole.length)
        const payload = (rooms[index] as Uint8Array).subarray(0, length)
        const again = type === 'zlib' ? await byOthers(payload) : await zstdDecompress(payload, whole.length)
        t.is(Buffer.compare(again, whole), 0)
      }
    },
  )

  testIt(`${type}: what has no room is refused, and what comes after it is packed`, async (t) => {
    const codec = codecOf(await open(t, new Uint8Array(0)), type)
    const noise = createHash('shake256', { outputLength: size }).update('seed').digest()
    const room = new Uint8Array(size - 1)
    for (let round = 0; round < 10; round++) {
      t.is(await codec.pack(room, noise), -1)
      t.is(await codec.pack(new Uint8Array(10), cluster), -1)
      const length = await codec.pack(room, cluster)
      t.is(Buffer.compare(await byOthers(room.subarray(0, length)), cluster), 0)
    }
    await t.throwsAsync(codec.pack(new Uint8Array(0), cluster), undefined, 'no memory to put it in')
    await t.throwsAsync(codec.pack([] as unknown as Uint8Array, cluster), undefined, 'none at all')
  })

  testIt(`${type}: an image that is closed packs and unpacks nothing`, async (t) => {
    const queue = await open(t, packed)
    const codec = codecOf(queue, type)
    const under = [
      codec.read(new Uint8Array(size), 0, packed.length),
      codec.pack(new Uint8Array(size), cluster),
    ]
    await queue.close()
    t.true(
      (await Promise.all(under)).every((length) => length > 0),
      'what was under way is carried out',
    )
    await t.throwsAsync(codec.read(new Uint8Array(size), 0, 512), { code: 'ERR_CLOSED' })
    await t.throwsAsync(codec.pack(new Uint8Array(size), cluster), { code: 'ERR_CLOSED' })
  })

  testIt(
    `${type}: whatever is changed in a payload, nothing is written outside of the cluster`,
    async (t) => {
      const random = new SeededRandom(17)
      const room = new Uint8Array(size)
      const whole = Uint8Array.from(cluster, (byte, at) => (at % 1000 < 500 ? byte : (at >> 4) % 256))
      const codec = codecOf(await open(t, new Uint8Array(0)), type)
      const payload = room.slice(0, await codec.pack(room, whole))
      const payloads = Array.from({ length: 1000 }, () => {
        const wrong = Uint8Array.from(payload)
        for (let count = 1 + random.integer(4); count > 0; count--)
          wrong[random.integer(random.integer(2) === 0 ? 64 : wrong.length)] = random.integer(256)
        return wrong
      })
      const contents = Buffer.concat(payloads)
      const reader = codecOf(await open(t, contents), type)
      const guard = 64
      const outcomes = await Promise.all(
        payloads.map(async (_, index) => {
          const memory = new Uint8Array(size + 2 * guard).fill(0x5a)
          const length = await reader.read(
            memory.subarray(guard, -guard),
            index * payload.length,
            payload.length,
          )
          const around = [...memory.subarray(0, guard), ...memory.subarray(-guard)]
          return { length, isSound: around.every((byte) => byte === 0x5a) }
        }),
      )
      t.true(outcomes.every(({ isSound }) => isSound))
      t.true(outcomes.every(({ length }) => length >= -1 && length <= size))
      const refused = outcomes.filter(({ length }) => length !== size).length
      t.true(refused > 300, `${refused} of 1000 were seen to be damaged`)
    },
  )
}

testOf.zlib('a cluster is packed to the very bytes that node:zlib makes of it', async (t) => {
  const codec = codecOf(await open(t, new Uint8Array(0)), 'zlib')
  const room = new Uint8Array(size)
  const length = await codec.pack(room, cluster)
  t.deepEqual(Buffer.from(room.subarray(0, length)), deflateRawSync(cluster, { windowBits: 12, memLevel: 9 }))
})

testOf.zstd(
  'clusters of zstd that stand right behind each other are read, each from its own frame',
  async (t) => {
    const codec = codecOf(await open(t, stockSectors), 'zstd')
    const bytes = new Uint8Array(stockClusterSize)
    t.is(await codec.read(bytes, 0, 512), stockClusterSize)
    t.deepEqual(bytes, stockCluster(0))
    t.is(await codec.read(bytes, secondFrameAt, stockSectors.length - secondFrameAt), stockClusterSize)
    t.deepEqual(bytes, stockCluster(1))
  },
)

testOf.zstd('a frame of zstd may have any window that QEMU takes, and needs no memory for it', async (t) => {
  const frames = [27, 28].map((windowBits) => sampleFrame({ blocks: [cluster], windowBits }))
  const codec = codecOf(await open(t, Buffer.concat(frames)), 'zstd')
  const [first = Buffer.alloc(0)] = frames
  t.is(await codec.read(new Uint8Array(size), 0, first.length), size)
  t.is(await codec.read(new Uint8Array(size), first.length, first.length), -1)
})
