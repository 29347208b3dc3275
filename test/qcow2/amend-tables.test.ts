import test from 'ava'
import { expandZeros, hasCompressed } from '../../lib/qcow2/amend-tables.js'
import type { Qcow2Image } from '../../lib/qcow2/image.js'
import { readHeader } from '../../lib/qcow2/open-metadata.js'
import { checkedClean, type Disk, newDisk, source } from '../support/qcow2-disk.js'

const size = 64 * 4096

async function opened(backing?: Uint8Array): Promise<Disk> {
  return newDisk({ size, clusterSize: 4096 }, backing === undefined ? {} : { backing: source(backing) })
}

const expand = (image: Qcow2Image): Promise<void> =>
  image.reorganise((parts, list) => expandZeros(parts, list, () => undefined))

test('without a backing file a zero entry goes, and one that keeps its cluster becomes data', async (t) => {
  const disk = await opened()
  const { image } = disk
  await image.write(new Uint8Array(8192).fill(1), 0)
  await image.writeZeroes(0, 4096, { unmap: false })
  await image.writeZeroes(4096, 4096, { unmap: true })
  await expand(image)
  t.is((await image.mapping(0, 4096)).type, 'data')
  t.is((await image.mapping(4096, 4096)).type, 'unallocated')
  const bytes = new Uint8Array(8192).fill(9)
  await image.read(bytes, 0)
  t.true(bytes.every((byte) => byte === 0))
  await checkedClean(t, disk)
})

test('over a backing file both become data', async (t) => {
  const disk = await opened(new Uint8Array(size).fill(3))
  const { image } = disk
  await image.writeZeroes(0, 3 * 4096, { unmap: true })
  await expand(image)
  t.like(await image.mapping(0, 3 * 4096), { type: 'data' })
  const bytes = new Uint8Array(4 * 4096)
  await image.read(bytes, 0)
  t.deepEqual([...new Set(bytes.subarray(0, 3 * 4096))], [0])
  t.deepEqual([...new Set(bytes.subarray(3 * 4096))], [3])
  await checkedClean(t, disk)
})

test('compressed clusters are found, in the disk and in snapshots', async (t) => {
  const disk = await opened()
  const { memory, image } = disk
  const compressed = async (): Promise<boolean> => {
    await image.flush()
    return hasCompressed(memory, (await readHeader(memory)).header)
  }
  await image.write(new Uint8Array(4096).fill(1), 4096)
  t.false(await compressed())
  await image.writeCompressed(new Uint8Array(4096).fill(1), 0)
  t.true(await compressed())
  await image.snapshots.creating('s', {})()
  await image.write(new Uint8Array(4096).fill(2), 0)
  t.true(await compressed())
  await checkedClean(t, disk)
})
