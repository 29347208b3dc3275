import { createHash } from 'node:crypto'
import { deflateRawSync } from 'node:zlib'
import test from 'ava'
import { ClusterCodec } from '../../lib/qcow2/compression.js'
import { checkedClean, diskByQemu, readAll, readDisk } from '../support/qcow2-disk.js'

const cluster = Uint8Array.from({ length: 4096 }, (_, at) => (at * at) % 199)
const payload = new Uint8Array(deflateRawSync(cluster, { windowBits: 12 }))
const codec = new ClusterCodec('zlib', 4096, { path: 'disk.qcow2' })
const unpack = async (bytes: Uint8Array): Promise<Uint8Array> =>
  new Uint8Array(await codec.decompress(bytes, 0x50123))

test('a raw deflate stream is unpacked to one cluster', async (t) => {
  t.deepEqual(await unpack(payload), cluster)
})

test('what follows the stream in its last sector does not matter', async (t) => {
  const sectors = new Uint8Array(payload.length + 400).fill(0xa5)
  sectors.set(payload)
  t.deepEqual(await unpack(sectors), cluster)
})

test('a damaged stream, and one that ends early, is an error of this cluster that names it', async (t) => {
  const damaged = payload.slice()
  damaged.fill(0xff, 0, 4)
  for (const wrong of [damaged, payload.subarray(0, payload.length / 2), new Uint8Array(512)]) {
    const error = await t.throwsAsync(unpack(wrong), { code: 'ERR_IO' })
    t.like(error, { path: 'disk.qcow2', structure: 'compressed cluster', offset: 0x50123 })
  }
})

test('a stream that holds less than a cluster, or more, is damaged', async (t) => {
  for (const length of [4095, 100]) {
    const short = new Uint8Array(deflateRawSync(cluster.subarray(0, length)))
    await t.throwsAsync(unpack(short), { code: 'ERR_IO' })
  }
  const bomb = new Uint8Array(deflateRawSync(new Uint8Array(2 ** 24)))
  await t.throwsAsync(unpack(bomb), { code: 'ERR_IO' })
})

test('many clusters at once are packed and unpacked in turn, and a failure holds up none of them', async (t) => {
  const clusters = Array.from({ length: 40 }, (_, index) => Uint8Array.from(cluster, (byte) => byte ^ index))
  const payloads = await Promise.all(clusters.map((bytes) => codec.compress(bytes)))
  const outcomes = await Promise.allSettled(
    payloads.map((bytes, index) => unpack(index % 3 === 0 ? new Uint8Array(512) : (bytes as Uint8Array))),
  )
  for (const [index, outcome] of outcomes.entries()) {
    if (index % 3 === 0) t.is(outcome.status, 'rejected')
    else t.deepEqual(outcome, { status: 'fulfilled', value: clusters[index] })
  }
})

test('memory that payloads were made in is used again, up to 1 MiB, when it is given back and not before', async (t) => {
  const used: ArrayBufferLike[] = []
  const pack = (to: Uint8Array, from: Uint8Array): Promise<number> => {
    used.push(to.buffer)
    return Promise.resolve(from[0] === 0 ? 1 : -1)
  }
  const read = (): Promise<number> => Promise.reject(new Error('nothing is read'))
  const packer = new ClusterCodec('zlib', 65536, { path: 'file', codec: () => ({ pack, read }) })
  const packTwenty = (): Promise<(Uint8Array | undefined)[]> =>
    Promise.all(Array.from({ length: 20 }, () => packer.compress(new Uint8Array(65536))))
  for (const payload of await packTwenty()) packer.reuse(payload as Uint8Array)
  const first = new Set(used.splice(0))
  t.is(first.size, 20, 'each has its own')
  await packTwenty()
  t.is(used.splice(0).filter((buffer) => first.has(buffer)).length, 16)
  for (const _ of [1, 2]) t.is(await packer.compress(new Uint8Array(65536).fill(1)), undefined)
  t.is(used[0], used[1], 'of what does not get smaller, at once')
})

test('what does not get smaller is not compressed', async (t) => {
  const noise = createHash('shake256', { outputLength: 4096 }).update('seed').digest()
  t.is(await codec.compress(noise), undefined)
})

for (const type of ['zlib', 'zstd'] as const) {
  for (const clusterSize of [512, 4096, 65536, 2 * 2 ** 20]) {
    test(`compressed clusters that qemu-io has written are read, whole and in parts: ${type}, clusters of ${clusterSize}`, async (t) => {
      const disk = await diskByQemu(t, {
        create: [
          '-o',
          `cluster_size=${clusterSize},compression_type=${type}`,
          'disk.qcow2',
          String(8 * clusterSize),
        ],
        io: Array.from(
          { length: 6 },
          (_, index) => `write -c -P ${index + 1} ${index * clusterSize} ${clusterSize}`,
        ),
      })
      const seen = await readAll(disk)
      for (let index = 0; index < 8; index++) {
        const expected = index < 6 ? index + 1 : 0
        const part = seen.subarray(index * clusterSize, (index + 1) * clusterSize)
        t.true(
          part.every((byte) => byte === expected),
          `cluster ${index}`,
        )
      }
      const across = await readDisk(disk, 2 * clusterSize - 10, 20)
      t.deepEqual([across[9], across[10]], [2, 3])
      t.is((await disk.image.mapping(0, clusterSize)).type, 'compressed')
      await checkedClean(t, disk)
    })
  }
}

test('an image for zstd is written like any other, over its compressed clusters too', async (t) => {
  const clusterSize = 65536
  const disk = await diskByQemu(t, {
    create: ['-o', `cluster_size=${clusterSize},compression_type=zstd`, 'disk.qcow2', '256k'],
    io: ['write -c -P 1 0 64k', 'write -c -P 2 64k 64k', 'write -P 3 128k 64k'],
  })
  await disk.image.write(new Uint8Array(clusterSize + 10).fill(9), clusterSize / 2)
  await disk.image.write(new Uint8Array(100).fill(8), 3 * clusterSize)
  const seen = await readAll(disk)
  const runs = [
    [0, 32768, 1],
    [32768, 98314, 9],
    [98314, 131072, 2],
    [131072, 196608, 3],
    [196608, 196708, 8],
    [196708, 262144, 0],
  ] as const
  for (const [from, to, expected] of runs) {
    t.true(
      seen.subarray(from, to).every((byte) => byte === expected),
      `${from} to ${to}`,
    )
  }
  await checkedClean(t, disk)
})
