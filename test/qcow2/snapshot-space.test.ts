import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { createImage, openImage } from '../../lib/index.js'
import { checkedByQemu, fill, newDisk } from '../support/qcow2-disk.js'
import { makeFolder } from '../support/temp-folder.js'

test('what a snapshot shares is not its own; what the disk has replaced since is', async (t) => {
  const clusterSize = 4096
  const disk = await newDisk({ size: 2 ** 20, clusterSize })
  await disk.image.write(fill(10 * clusterSize, 1), 0)
  await disk.image.snapshots.creating('one', {})()
  const space = (): Promise<unknown> => disk.image.snapshots.space({})
  const named = { id: '1', name: 'one' }
  // Ten clusters of data, an L2 table that is shared still, and an L1 table.
  t.deepEqual(await space(), [{ ...named, referencedBytes: 12 * clusterSize, exclusiveBytes: clusterSize }])
  await disk.image.write(fill(3 * clusterSize, 2), 0)
  t.deepEqual(await space(), [
    { ...named, referencedBytes: 12 * clusterSize, exclusiveBytes: 5 * clusterSize },
  ])
  await disk.image.snapshots.creating('two', {})()
  const [one, two] = await disk.image.snapshots.space({})
  t.is(one?.exclusiveBytes, 5 * clusterSize)
  t.deepEqual(two, {
    id: '2',
    name: 'two',
    referencedBytes: 12 * clusterSize,
    exclusiveBytes: clusterSize,
  })
  await disk.image.write(fill(10 * clusterSize, 3), 0)
  const later = await disk.image.snapshots.space({})
  // Seven clusters are shared by the two, and by nothing else.
  t.deepEqual(
    later.map(({ exclusiveBytes }) => exclusiveBytes),
    [5 * clusterSize, 5 * clusterSize],
  )
  const controller = new AbortController()
  controller.abort(new Error('enough'))
  await t.throwsAsync(disk.image.snapshots.space({ signal: controller.signal }), { message: 'enough' })
  await checkedByQemu(t, disk)
})

test('compressed clusters that share a host cluster count as that', async (t) => {
  const clusterSize = 65536
  const disk = await newDisk({ size: 2 ** 20, clusterSize })
  await disk.image.writeCompressed(fill(clusterSize, 1), 0)
  await disk.image.writeCompressed(fill(clusterSize, 2), clusterSize)
  await disk.image.snapshots.creating('one', {})()
  await disk.image.write(fill(clusterSize, 3), 0)
  // One of the two references to the host cluster that both are in is the disk's, too.
  t.like((await disk.image.snapshots.space({}))[0], { exclusiveBytes: 2 * clusterSize })
  await disk.image.write(fill(clusterSize, 3), clusterSize)
  t.like((await disk.image.snapshots.space({}))[0], { exclusiveBytes: 3 * clusterSize })
})

test('deleting a snapshot frees what was said', async (t) => {
  const path = join(await makeFolder(t), 'disk.qcow2')
  await createImage(path, { size: 2 ** 24 })
  await using image = await openImage(path, { cache: { reservation: 0 } })
  t.deepEqual(await image.snapshots.space(), [])
  await image.write(fill(2 ** 22, 1), 0)
  await image.snapshots.create('one')
  await image.write(fill(2 ** 21, 2), 0)
  const [space] = await image.snapshots.space()
  await image.flush()
  const before = (await stat(path)).blocks * 512
  await image.snapshots.delete('one')
  await image.flush()
  await image.flush()
  const freed = before - (await stat(path)).blocks * 512
  t.is(space?.exclusiveBytes, 2 ** 21 + 2 * 65536)
  t.true(Math.abs(freed - (space?.exclusiveBytes ?? 0)) <= 2 * 65536, `${freed} bytes`)
  await t.throwsAsync(image.snapshots.space({ sign: 1 } as never), { code: 'ERR_INVALID_OPTION' })
})
