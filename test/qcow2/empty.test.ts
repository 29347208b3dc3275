import test from 'ava'
import {
  checkedByQemu,
  checkedClean,
  checkedSound,
  diskByQemu,
  fill,
  newDisk,
  openDisk,
  readAll,
  source,
} from '../support/qcow2-disk.js'
import { afterPowerCut } from '../support/power-cut.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'

const size = 64 * 512

for (const version of [2, 3] as const) {
  test(`an emptied image shows its backing file, and its file is as short as a new one: version ${version}`, async (t) => {
    const backing = source(fill(size, 7))
    const disk = await newDisk({ size, clusterSize: 512, version }, { backing })
    await disk.image.flush()
    const empty = disk.memory.contents.length
    await disk.image.write(fill(30 * 512, 1), 512)
    await disk.image.writeCompressed(fill(1024, 2), 40 * 512)
    if (version === 3) await disk.image.writeZeroes(50 * 512, 1024, { unmap: true })
    await disk.image.empty()
    t.deepEqual(await readAll(disk), fill(size, 7))
    t.true(
      disk.memory.contents.length <= Math.ceil(empty / 512) * 512,
      `${disk.memory.contents.length} bytes, ${empty} at first`,
    )
    // It can be used as before.
    await disk.image.write(fill(512, 3), 512)
    t.is((await readAll(disk))[512], 3)
    await checkedClean(t, disk)
  })
}

test('whenever the power goes while an image is emptied, it is sound, and shows its own bytes or those of the backing file', async (t) => {
  const seed = seedOfRun()
  t.log(`QCOW2_SEED=${seed}`)
  const random = new SeededRandom(seed)
  const backing = source(fill(size, 7))
  const disk = await newDisk(
    { size, clusterSize: 512 },
    { backing, memory: { record: true, seed: random.integer(1000) } },
  )
  await disk.image.write(fill(40 * 512, 1), 512)
  await disk.image.flush()
  const before = disk.memory.snapshot()
  const begun = disk.memory.log.length
  await disk.image.empty()
  await disk.image.close()
  const log = disk.memory.log.slice(begun)
  for (let cut = 0; cut <= log.length; cut++) {
    const then = afterPowerCut(before, log, cut, random)
    await checkedSound(t, then)
    const again = await openDisk(then, { backing })
    const seen = await readAll(again)
    t.true(seen.every((byte) => byte === 7 || byte === 1))
    if (cut === log.length) t.true(seen.every((byte) => byte === 7))
    await again.image.close()
  }
})

test('an image with snapshots is emptied, and they keep what is theirs, VM state behind the disk too', async (t) => {
  const disk = await diskByQemu(t, {
    create: ['-o', 'cluster_size=512', 'disk.qcow2', '32k'],
    io: ['write -q -P 3 0 16k', 'write -q -b -P 5 0 4k'],
    then: [['snapshot', '-c', 'frozen', 'disk.qcow2']],
  })
  await disk.image.write(fill(1024, 4), 0)
  await disk.image.snapshots.applying('frozen', {})()
  await disk.image.empty()
  t.deepEqual(await readAll(disk), fill(32768, 0))
  await disk.image.snapshots.applying('frozen', {})()
  t.deepEqual((await readAll(disk)).subarray(0, 16384), fill(16384, 3))
  await disk.image.empty()
  await checkedByQemu(t, disk)
})
