import test from 'ava'
import { openQcow2 } from '../../lib/qcow2/image.js'
import { openMetadata } from '../../lib/qcow2/open-metadata.js'
import { atSnapshot } from '../../lib/qcow2/snapshot-view.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { fill, newDisk } from '../support/qcow2-disk.js'

test('a snapshot is a disk of its own size, read beside what came later', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 4096 })
  await disk.image.write(fill(9000, 1), 0)
  await disk.image.snapshots.creating('one', {})()
  await disk.image.resize(512, { shrink: true })
  await disk.image.resize(2 ** 22, { shrink: false })
  await disk.image.write(fill(9000, 2), 0)
  await disk.image.close()

  const backend = new MemoryBackend({ contents: disk.memory.contents, readOnly: true })
  const view = await openQcow2(backend, { readOnly: true, snapshot: 'one' })
  t.is(view.size, 2 ** 20)
  const seen = new Uint8Array(2 ** 20)
  await view.read(seen, 0)
  t.deepEqual(seen.subarray(0, 9000), fill(9000, 1))
  t.true(seen.subarray(9000).every((byte) => byte === 0))
  await view.close()

  const found = await openMetadata(new MemoryBackend({ contents: disk.memory.contents, readOnly: true }), {
    readOnly: true,
    repairing: false,
  })
  const other = new MemoryBackend({ contents: disk.memory.contents, readOnly: true })
  await t.throwsAsync(atSnapshot(other, found, 'two'), { code: 'ERR_SNAPSHOT_NOT_FOUND' })
  t.is((await atSnapshot(other, found, { id: '1' })).header.size, 2 ** 20)
})

test('an entry that asks for a larger disk than its L1 table maps is refused', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 512 })
  await disk.image.snapshots.creating('one', {})()
  await disk.image.close()
  const bytes = disk.memory.snapshot()
  const view = new DataView(bytes.buffer)
  const entry = Number(view.getBigUint64(64))
  view.setBigUint64(entry + 48, 2n ** 40n)
  const { SparseBytes } = await import('../../lib/queue/sparse-bytes.js')
  const backend = new MemoryBackend({ contents: SparseBytes.from(bytes), readOnly: true })
  await t.throwsAsync(openQcow2(backend, { readOnly: true, snapshot: 'one' }), { code: 'ERR_CORRUPT' })
})
