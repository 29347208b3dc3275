import test from 'ava'
import { checkOnly } from '../../lib/qcow2/check-only.js'
import { patchHeader } from '../../lib/qcow2/header.js'
import { readFirstCluster, readHeader } from '../../lib/qcow2/open-metadata.js'
import { rebuildRefcounts } from '../../lib/qcow2/repair-rebuild.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { at, copied, imageWith } from '../support/check-state-of.js'

/** An L2 table at cluster 4 with these entries, data up to cluster 7, and no refcounts at all. */
function damaged(l2: Record<number, bigint>): Buffer {
  const image = imageWith(l2, {}, {}, {})
  image.writeBigUInt64BE(copied | at(4), 3 * 512)
  image.writeBigUInt64BE(0n, 512)
  return image
}

async function rebuilt(image: Buffer) {
  const backend = new MemoryBackend({ contents: SparseBytes.from(image) })
  const { header, firstCluster } = await readFirstCluster(backend)
  const table = await rebuildRefcounts(backend, header, {})
  const unchanged = Buffer.alloc(image.length)
  await backend.read(unchanged, 0)
  // the switch, as the repair does it
  patchHeader(firstCluster, { refcountTable: table })
  await backend.write(firstCluster, 0)
  return { table, unchanged, result: await checkOnly(backend, {}), backend }
}

test('new structures stand behind everything, count all and themselves, and the old bytes are as they were', async (t) => {
  const image = damaged({ 0: copied | at(5), 1: copied | at(7) })
  const { table, unchanged, result } = await rebuilt(image)
  t.true(unchanged.equals(image))
  t.deepEqual(table, { offset: 9 * 512, clusters: 1 })
  t.like(result, { corruptions: 0, leaks: 0, checkErrors: 0 })
})

test('entries that point past the end do not get the new structures for their data', async (t) => {
  // clusters 8 and 9 are the first behind the file
  const image = damaged({ 0: copied | at(5), 1: copied | at(8), 2: copied | at(9), 3: copied | at(2 ** 30) })
  const { table, result } = await rebuilt(image)
  t.true(table.offset > 9 * 512)
  // what was past the end before is in the file now, and counted; what is far away still is
  t.deepEqual(
    result.findings.map(({ kind }) => kind),
    ['beyond-end', 'copied-flag'],
  )
})

test('counts far into the file take a table of several clusters', async (t) => {
  const image = damaged({ 0: copied | at(5) })
  const contents = SparseBytes.from(image)
  // 64 blocks of 256 counts fill a table of one cluster
  contents.extend(70 * 256 * 512)
  const backend = new MemoryBackend({ contents })
  const { header } = await readHeader(backend)
  t.is((await rebuildRefcounts(backend, header, {})).clusters, 2)
})

test('a file that no refcount table can cover is refused', async (t) => {
  const contents = SparseBytes.from(damaged({}))
  // 8 MiB of table are 1048576 blocks of 128 KiB each
  contents.extend(2 ** 38)
  const backend = new MemoryBackend({ contents })
  const { header } = await readHeader(backend)
  await t.throwsAsync(rebuildRefcounts(backend, header, {}), {
    code: 'ERR_NOT_SUPPORTED',
    message: /exceed 8388608/,
  })
})
