import { open } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { imageInfo } from '../../lib/index.js'
import { qemuImg } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

test('snapshots are listed as the stock tool lists them', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  await qemuImg('create', '-q', '-f', 'qcow2', path, '5M')
  for (const name of ['first', 'zweiter ☃', 'x'.repeat(100)]) await qemuImg('snapshot', '-c', name, path)
  const theirs = JSON.parse(await qemuImg('info', '--output=json', path)) as {
    snapshots: Record<string, string | number>[]
  }
  const { snapshots = [] } = await imageInfo(path)
  t.is(snapshots.length, 3)
  t.deepEqual(
    snapshots.map((snapshot) => ({
      id: snapshot.id,
      name: snapshot.name,
      'vm-state-size': snapshot.vmStateSize,
      'date-sec': snapshot.dateSeconds,
      'date-nsec': snapshot.dateNanoseconds,
      'vm-clock-sec': Math.floor(Number(snapshot.vmClockNanoseconds) / 1e9),
      'vm-clock-nsec': Number(snapshot.vmClockNanoseconds) % 1e9,
      icount: Number(snapshot.icount),
    })),
    theirs.snapshots as never,
  )
  t.is(snapshots[0]?.diskSize, BigInt(5 * 1024 * 1024))
})

test('bitmaps are listed as the stock tool lists them', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  await qemuImg('create', '-q', '-f', 'qcow2', path, '5M')
  t.is((await imageInfo(path)).qcow2?.bitmaps, undefined)
  await qemuImg('bitmap', '--add', path, 'first')
  await qemuImg('bitmap', '--add', '-g', '4096', '--disable', path, 'second')
  t.deepEqual((await imageInfo(path)).qcow2?.bitmaps, [
    { name: 'first', granularity: 65536, flags: ['auto'] },
    { name: 'second', granularity: 4096, flags: [] },
  ])
})

test('bitmaps that a writer without support has made stale are not listed', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  await qemuImg('create', '-q', '-f', 'qcow2', path, '5M')
  await qemuImg('bitmap', '--add', path, 'first')
  const file = await open(path, 'r+')
  // The lowest byte of the autoclear features.
  await file.write(Uint8Array.of(0), 0, 1, 95)
  await file.close()
  t.is((await imageInfo(path)).qcow2?.bitmaps, undefined)
})
