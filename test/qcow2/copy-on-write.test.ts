import test from 'ava'
import {
  checkedClean,
  type Disk,
  diskByQemu,
  fill,
  newDisk,
  readAll,
  readDisk,
  source,
} from '../support/qcow2-disk.js'

const options = { size: 65536, clusterSize: 4096 } as const
const dataWrites = (disk: Disk): number[] =>
  disk.backend.log.filter(({ kind }) => kind === 'write').map(({ length }) => length)

test('a write of a part takes what is around it from the backing file, in one write of the cluster', async (t) => {
  const disk = await newDisk(options, {
    backing: source(Uint8Array.from({ length: 65536 }, (_, at) => at % 251)),
  })
  await disk.image.write(fill(100, 1), 5000)
  t.deepEqual(dataWrites(disk), [4096])
  const expected = Uint8Array.from({ length: 65536 }, (_, at) => at % 251)
  expected.fill(1, 5000, 5100)
  t.deepEqual(await readAll(disk), expected)
  await checkedClean(t, disk)
})

test('a write over several clusters copies at its two ends only', async (t) => {
  const disk = await newDisk(options, { backing: source(fill(65536, 7)) })
  await disk.image.write(fill(3 * 4096, 1), 1000)
  const copied = disk.backend.log.filter(({ kind }) => kind === 'read')
  t.deepEqual(copied, [], "the old bytes are the backing file's")
  const expected = fill(65536, 7)
  expected.fill(1, 1000, 1000 + 3 * 4096)
  t.deepEqual(await readAll(disk), expected)
  await checkedClean(t, disk)
})

test('where the backing file ends within the cluster, zeros are written behind its end', async (t) => {
  const disk = await newDisk(options, { backing: source(fill(5000, 7)) })
  // The host cluster has held something before.
  await disk.image.write(fill(8192, 9), 16384)
  await disk.image.writeZeroes(16384, 8192, { unmap: true })
  await disk.image.flush()
  await disk.image.write(fill(10, 1), 4096 + 2000)
  const expected = new Uint8Array(65536)
  expected.fill(7, 0, 5000)
  expected.fill(1, 6096, 6106)
  t.deepEqual(await readAll(disk), expected)
  await checkedClean(t, disk)
})

test("without a backing file nothing is copied, and a cluster of the file's end needs no zeros", async (t) => {
  const disk = await newDisk(options)
  await disk.image.write(fill(100, 1), 5000)
  t.deepEqual(dataWrites(disk), [100])
  t.is(disk.backend.log.filter(({ kind }) => kind === 'writeZeroes').length, 1, 'the L2 table only')
  await checkedClean(t, disk)
})

test('a host cluster that has held something before is zeroed around what is written', async (t) => {
  const disk = await newDisk(options)
  await disk.image.write(fill(65536, 9), 0)
  await disk.image.flush()
  // Freed without being punched: what it held is still there.
  disk.backend.fail(({ kind }) => kind === 'punch', new Error('cannot'))
  await disk.image.writeZeroes(0, 65536, { unmap: false })
  await disk.image.write(fill(100, 1), 5000)
  const expected = new Uint8Array(65536)
  expected.fill(1, 5000, 5100)
  t.deepEqual(await readAll(disk), expected)
  await checkedClean(t, disk)
})

test('a cluster that a snapshot shares is copied around the write, from the middle of a run', async (t) => {
  const disk = await diskByQemu(t, {
    create: ['-o', 'cluster_size=4096', 'disk.qcow2', '64k'],
    io: ['write -P 1 0 16k', 'write -P 2 16k 16k', 'write -P 3 32k 32k'],
    then: [['snapshot', '-c', 'one', 'disk.qcow2']],
  })
  await disk.image.write(fill(10000, 9), 12388)
  const expected = new Uint8Array([...fill(16384, 1), ...fill(16384, 2), ...fill(32768, 3)])
  expected.fill(9, 12388, 22388)
  t.deepEqual(await readAll(disk), expected)
  await checkedClean(t, disk)
})

test('a compressed cluster is unpacked around the write; its neighbours in the same sectors stay', async (t) => {
  const disk = await diskByQemu(t, {
    create: ['-o', 'cluster_size=4096', 'plain.qcow2', '64k'],
    then: [
      ['create', '-q', '-f', 'raw', 'disk.raw', '64k'],
      ['convert', '-O', 'qcow2', '-c', '-o', 'cluster_size=4096', 'plain.qcow2', 'disk.qcow2'],
    ],
  })
  await disk.image.close()
  const compressed = await compressedDisk(t)
  await compressed.image.write(fill(100, 200), 4096 + 1000)
  await compressed.image.write(fill(4096, 201), 8192)
  await compressed.image.discard(12288, 4096)
  const expected = new Uint8Array(65536)
  for (let at = 0; at < 65536; at += 4096) expected.fill(1 + at / 4096, at, at + 4096)
  expected.fill(200, 5096, 5196)
  expected.fill(201, 8192, 12288)
  expected.fill(0, 12288, 16384)
  t.deepEqual(await readAll(compressed), expected)
  await compressed.image.flush()
  await compressed.image.write(fill(4096, 202), 0)
  expected.fill(202, 0, 4096)
  t.deepEqual(await readAll(compressed), expected)
  await checkedClean(t, compressed)
})

async function compressedDisk(t: Parameters<typeof diskByQemu>[0]): Promise<Disk> {
  return await diskByQemu(t, {
    create: ['-o', 'cluster_size=4096', 'disk.qcow2', '64k'],
    io: Array.from({ length: 16 }, (_, index) => `write -c -P ${index + 1} ${index * 4}k 4k`),
  })
}

test('when the old bytes cannot be read nothing is changed', async (t) => {
  const failure = new Error('unreadable')
  let readable = false
  const backing = source(fill(65536, 7))
  const disk = await newDisk(options, {
    backing: {
      size: 65536,
      read: async (bytes, offset) => {
        if (!readable) throw failure
        await backing.read(bytes, offset)
      },
    },
  })
  await t.throwsAsync(disk.image.write(fill(100, 1), 5000), { is: failure })
  await t.throwsAsync(disk.image.write(fill(100, 1), 4096), { is: failure })
  readable = true
  t.deepEqual(await readDisk(disk, 4096, 4096), fill(4096, 7))
  await disk.image.write(fill(100, 1), 5000)
  t.is((await readDisk(disk, 5000, 1))[0], 1)
  await checkedClean(t, disk)
})
