import test from 'ava'
import type { Fault } from '../../lib/queue/memory-device.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { checkedClean, type Disk, fill, newDisk, openDisk, readDisk } from '../support/qcow2-disk.js'

async function frozenDisk(): Promise<Disk> {
  const disk = await newDisk({ size: 2 ** 18, clusterSize: 512 })
  await disk.image.write(fill(60 * 512, 1), 0)
  await disk.image.snapshots.creating('one', {})()
  await disk.image.write(fill(30 * 512, 2), 0)
  return disk
}

const operations = {
  create: (disk: Disk) => disk.image.snapshots.creating('two', {})(),
  apply: (disk: Disk) => disk.image.snapshots.applying('one', {})(),
  delete: (disk: Disk) => disk.image.snapshots.deleting('one', {})(),
}

for (const [name, run] of Object.entries(operations)) {
  for (const [error, errno] of [
    ['ENOSPC', 28],
    ['EIO', 5],
  ] as const) {
    test(`${error} at any request of the device: ${name} fails cleanly or not at all, and can be tried again`, async (t) => {
      const original = await frozenDisk()
      await original.image.close()
      const bytes = original.memory.snapshot()
      let failed = 0
      for (let index = 0; ; index++) {
        let at = -1
        let isHit = false
        const fault: Fault = () => {
          if (at < 0 || at++ !== index) return undefined
          isHit = true
          return errno
        }
        const disk = await openDisk(SparseBytes.from(bytes), { memory: { fault } })
        at = 0
        const first = await run(disk).then(
          () => undefined,
          (reason: unknown) => reason as { code?: string },
        )
        at = -1
        if (!isHit) {
          t.is(first, undefined)
          await disk.image.close()
          break
        }
        if (first === undefined) await checkedClean(t, disk)
        else if (disk.backend.poisoned === undefined) {
          failed++
          t.true(['ERR_NO_SPACE', 'ERR_IO'].includes(first.code ?? ''), first.code)
          const now = (await disk.image.snapshots.list()).map(({ id }) => id).join()
          const wasDone = (name === 'create' && now === '1,2') || (name === 'delete' && now === '')
          if (!wasDone) await run(disk)
          await checkedClean(t, disk)
        } else await disk.image.close().catch(() => undefined)
        t.true(index < 500)
      }
      t.log(`${failed} failures`)
    })
  }
}

test('requests wait until it is over, and see what it has made', async (t) => {
  const disk = await frozenDisk()
  const applying = disk.image.snapshots.applying('one', {})()
  while (disk.parts.active.gate === undefined) await new Promise((resolve) => setImmediate(resolve))
  const reading = readDisk(disk, 0, 512)
  const writing = disk.image.write(fill(512, 7), 1024)
  await applying
  t.deepEqual(await reading, fill(512, 1))
  await writing
  t.deepEqual(await readDisk(disk, 1024, 512), fill(512, 7))
  await checkedClean(t, disk)
})

test('operations that are asked for together run one after the other', async (t) => {
  const disk = await newDisk({ size: 2 ** 18, clusterSize: 512 })
  const names = ['a', 'b', 'c', 'd']
  await Promise.all([
    ...names.map((name) => disk.image.snapshots.creating(name, {})()),
    disk.image.write(fill(5000, 1), 0),
    disk.image.flush(),
  ])
  const made = await disk.image.snapshots.list()
  t.deepEqual(
    made.map(({ id }) => id),
    ['1', '2', '3', '4'],
  )
  await Promise.all(names.map((name) => disk.image.snapshots.deleting(name, {})()))
  await checkedClean(t, disk)
})

test('a signal that is aborted already keeps it from beginning', async (t) => {
  const disk = await frozenDisk()
  const work = { signal: AbortSignal.abort(new Error('enough')) }
  const { snapshots } = disk.image
  await t.throwsAsync(snapshots.creating('x', work)(), { message: 'enough' })
  await t.throwsAsync(snapshots.applying('one', work)(), { message: 'enough' })
  await t.throwsAsync(snapshots.deleting('one', work)(), { message: 'enough' })
  await checkedClean(t, disk)
})
