import { deflateRawSync } from 'node:zlib'
import test from 'ava'
import { decompressCluster } from '../../lib/qcow2/compression.js'
import { checkedClean, diskByQemu, readAll, readDisk } from '../support/qcow2-disk.js'

const context = { path: 'disk.qcow2', offset: 0x50123 }
const cluster = Uint8Array.from({ length: 4096 }, (_, at) => (at * at) % 199)
const payload = new Uint8Array(deflateRawSync(cluster, { windowBits: 12 }))

test('a raw deflate stream is unpacked to one cluster', async (t) => {
  t.deepEqual(new Uint8Array(await decompressCluster(payload, 4096, context)), cluster)
})

test('what follows the stream in its last sector does not matter', async (t) => {
  const sectors = new Uint8Array(payload.length + 400).fill(0xa5)
  sectors.set(payload)
  t.deepEqual(new Uint8Array(await decompressCluster(sectors, 4096, context)), cluster)
})

test('a damaged stream, and one that ends early, is an error of this cluster that names it', async (t) => {
  const damaged = payload.slice()
  damaged.fill(0xff, 0, 4)
  for (const wrong of [damaged, payload.subarray(0, payload.length / 2), new Uint8Array(512)]) {
    const error = await t.throwsAsync(decompressCluster(wrong, 4096, context), { code: 'ERR_IO' })
    t.like(error, { structure: 'compressed cluster', offset: 0x50123 })
  }
})

test('a stream that holds less than a cluster, or more, is damaged', async (t) => {
  for (const length of [4095, 100]) {
    const short = new Uint8Array(deflateRawSync(cluster.subarray(0, length)))
    await t.throwsAsync(decompressCluster(short, 4096, context), { code: 'ERR_IO' })
  }
  const bomb = new Uint8Array(deflateRawSync(new Uint8Array(2 ** 24)))
  await t.throwsAsync(decompressCluster(bomb, 4096, context), { code: 'ERR_IO' })
})

for (const clusterSize of [512, 4096, 65536, 2 * 2 ** 20]) {
  test(`compressed clusters that qemu-io has written are read, whole and in parts, clusters of ${clusterSize}`, async (t) => {
    const disk = await diskByQemu(t, {
      create: ['-o', `cluster_size=${clusterSize}`, 'disk.qcow2', String(8 * clusterSize)],
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

test('a cluster compressed with zstd is refused by name, and nothing else of the image is', async (t) => {
  const disk = await diskByQemu(t, {
    create: ['-o', 'cluster_size=65536,compression_type=zstd', 'disk.qcow2', '256k'],
    io: ['write -c -P 1 0 64k', 'write -P 2 64k 64k'],
  })
  await t.throwsAsync(readDisk(disk, 0, 512), { code: 'ERR_UNSUPPORTED_FEATURE', message: /zstd/ })
  t.is((await readDisk(disk, 65536, 1))[0], 2)
  await checkedClean(t, disk)
})
