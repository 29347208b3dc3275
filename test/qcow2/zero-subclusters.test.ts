import test from 'ava'
import { guestOffset } from '../../lib/base/units.js'
import { changeSubclusters } from '../../lib/qcow2/zero-subclusters.js'
import {
  checkedByQemu,
  checkedClean,
  type Disk,
  fill,
  newDisk,
  readAll,
  readDisk,
  settle,
  source,
} from '../support/qcow2-disk.js'
import { entryText } from '../support/subclusters.js'

const kib = 1024
/** Subclusters of 2 KiB. */
const options = { size: 512 * kib, clusterSize: 64 * kib, extendedL2: true } as const
const backing = source(fill(300 * kib + 700, 7))

async function entries(disk: Disk, count: number): Promise<string[]> {
  const texts: string[] = []
  for (let cluster = 0; cluster < count; cluster++) texts.push(await entryText(disk, cluster))
  return texts
}

test('zeros are marks on whole subclusters, and bytes around them', async (t) => {
  const disk = await newDisk(options, { backing })
  await disk.image.writeZeroes(61 * kib, 6 * kib, { unmap: false })
  // 61 to 62 KiB and 66 to 67 KiB are written: half of a subcluster each.
  t.deepEqual(await entries(disk, 3), ['own 40000000 80000000', 'own 2 1', 'unallocated 0 0'])
  const expected = new Uint8Array(options.size)
  expected.fill(7, 0, backing.size)
  expected.fill(0, 61 * kib, 67 * kib)
  t.deepEqual(await readAll(disk), expected)
  await checkedByQemu(t, disk)
})

test('marks take the place of bytes, and the cluster stays for what else is in it', async (t) => {
  const disk = await newDisk(options, { backing })
  await disk.image.write(fill(64 * kib, 1), 0)
  for (const unmap of [false, true]) {
    await disk.image.writeZeroes(4 * kib, 8 * kib, { unmap })
    t.is(await entryText(disk, 0), 'own ffffffc3 3c')
  }
  await disk.image.writeZeroes(0, 32 * kib, { unmap: true })
  await disk.image.writeZeroes(32 * kib, 32 * kib, { unmap: true })
  t.is(await entryText(disk, 0), 'own 0 ffffffff', 'as QEMU does, also when nothing else is left')
  await disk.image.writeZeroes(0, 64 * kib, { unmap: true })
  t.is(await entryText(disk, 0), 'unallocated 0 ffffffff')
  await checkedByQemu(t, disk)
})

test('whole clusters are changed as those without subclusters are', async (t) => {
  const disk = await newDisk(options, { backing })
  await disk.image.write(fill(2 * kib, 1), 0)
  await disk.image.write(fill(2 * kib, 1), 64 * kib)
  await disk.image.write(fill(2 * kib, 1), 128 * kib)
  await disk.image.writeZeroes(0, 64 * kib, { unmap: false })
  await disk.image.writeZeroes(64 * kib, 64 * kib, { unmap: true })
  await disk.image.discard(128 * kib, 128 * kib)
  t.deepEqual(await entries(disk, 5), [
    'own 0 ffffffff',
    'unallocated 0 ffffffff',
    'unallocated 0 ffffffff',
    'unallocated 0 ffffffff',
    'unallocated 0 0',
  ])
  await disk.image.flush()
  await settle()
  const punched = disk.backend.log.filter(({ kind }) => kind === 'punch')
  t.is(
    punched.reduce((sum, { length }) => sum + length, 0),
    128 * kib,
  )
  await checkedByQemu(t, disk)
})

test('a discard is about whole clusters', async (t) => {
  const disk = await newDisk({ ...options, size: 400 * kib + 512 })
  await disk.image.write(fill(400 * kib + 512, 1), 0)
  await disk.image.discard(2 * kib, 60 * kib)
  t.is(await entryText(disk, 0), 'own ffffffff 0')
  // The last cluster of the disk is whole although the disk ends in it.
  await disk.image.discard(384 * kib, 16 * kib + 512)
  t.is(await entryText(disk, 6), 'unallocated 0 ffffffff')
  await checkedByQemu(t, disk)
})

test('where nothing is hidden, nothing has to be marked', async (t) => {
  const disk = await newDisk(options, { backing: source(fill(2 * kib, 7)) })
  disk.backend.log.length = 0
  await disk.image.writeZeroes(66 * kib, 100 * kib, { unmap: true })
  await disk.image.discard(128 * kib, 128 * kib)
  t.deepEqual(disk.backend.log, [])
  await disk.image.writeZeroes(0, 4 * kib, { unmap: false })
  t.is(await entryText(disk, 0), 'unallocated 0 3')
  await disk.image.hideBacking(0, 128 * kib)
  t.deepEqual(await entries(disk, 2), ['unallocated 0 ffffffff', 'unallocated 0 ffffffff'])
  await checkedByQemu(t, disk)
})

test('subclusters hide any backing file one by one, behind the end of this one too', async (t) => {
  const disk = await newDisk(options, { backing: source(fill(2 * kib, 7)) })
  await disk.image.write(fill(2 * kib, 1), 4 * kib)
  await disk.image.hideBacking(0, 4 * kib)
  t.is(await entryText(disk, 0), 'own 4 3')
  await disk.image.hideBacking(60 * kib, 70 * kib)
  t.deepEqual(await entries(disk, 3), ['own 4 c0000003', 'unallocated 0 ffffffff', 'unallocated 0 1'])
  await checkedByQemu(t, disk)
})

test('subclusters of a shared cluster are marked, and it stays shared; as a whole it is given up', async (t) => {
  const disk = await newDisk(options, { backing })
  await disk.image.write(fill(8 * kib, 1), 0)
  await disk.image.snapshots.creating('s', {})()
  await disk.image.writeZeroes(0, 2 * kib, { unmap: false })
  t.is(await entryText(disk, 0), 'shared e 1')
  await disk.image.writeZeroes(0, 64 * kib, { unmap: false })
  t.is(await entryText(disk, 0), 'unallocated 0 ffffffff')
  await disk.image.snapshots.applying('s', {})()
  t.deepEqual(await readDisk(disk, 0, 10 * kib), new Uint8Array([...fill(8 * kib, 1), ...fill(2 * kib, 7)]))
  await checkedByQemu(t, disk)
})

test('of a compressed cluster a part is made zeros by writing them', async (t) => {
  const disk = await newDisk(options, { backing })
  await disk.image.writeCompressed(fill(64 * kib, 5), 0)
  await disk.image.writeZeroes(3 * kib, 8 * kib, { unmap: true })
  t.is(await entryText(disk, 0), 'own ffffffff 0')
  const expected = fill(64 * kib, 5)
  expected.fill(0, 3 * kib, 11 * kib)
  t.deepEqual(await readDisk(disk, 0, 64 * kib), expected)
  await disk.image.writeCompressed(fill(64 * kib, 5), 0)
  await disk.image.writeZeroes(0, 64 * kib, { unmap: false })
  t.is(await entryText(disk, 0), 'unallocated 0 ffffffff')
  await checkedByQemu(t, disk)
})

test('zeros that reach the end of the disk mark its last subcluster, in which it ends', async (t) => {
  const disk = await newDisk({ ...options, size: 70 * kib + 512 }, { backing })
  await disk.image.write(fill(512, 1), 68 * kib)
  await disk.image.writeZeroes(70 * kib, 512, { unmap: false })
  t.is(await entryText(disk, 1), 'own 4 8')
  await checkedByQemu(t, disk)
})

test('what is unallocated loses its marks and its cluster, and one entry changes for all of a slice', async (t) => {
  const disk = await newDisk(options, { backing })
  await disk.image.write(fill(200 * kib, 1), 10 * kib)
  await disk.image.writeZeroes(300 * kib, 10 * kib, { unmap: false })
  await disk.image.flush()
  disk.backend.log.length = 0
  await changeSubclusters(disk.parts, guestOffset(0), options.size, 'unallocate')
  t.is(disk.backend.log.filter(({ kind }) => kind === 'enqueue').length, 1)
  t.deepEqual(new Set(await entries(disk, 8)), new Set(['unallocated 0 0']))
  await checkedClean(t, disk)
})
