import test from 'ava'
import { changeRefcountWidth } from '../../lib/qcow2/amend-refcounts.js'
import { checkOnly } from '../../lib/qcow2/check-only.js'
import { readHeader } from '../../lib/qcow2/open-metadata.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { newDisk } from '../support/qcow2-disk.js'

/** An image with data, whose refcounts take several blocks. */
async function filled(): Promise<MemoryBackend> {
  const disk = await newDisk({ size: 512 * 1024, clusterSize: 512, refcountBits: 32 })
  await disk.image.write(new Uint8Array(200 * 1024).fill(7), 512)
  await disk.image.close()
  return new MemoryBackend({ contents: disk.memory.contents })
}

test('counts of another width say the same, and the old ones are nobody’s', async (t) => {
  const backend = await filled()
  for (const order of [6, 3, 0, 5]) {
    await changeRefcountWidth(backend, order, {})
    t.is((await readHeader(backend)).header.refcountOrder, order)
    t.like(await checkOnly(backend, {}), { corruptions: 0, leaks: 0, checkErrors: 0 })
  }
})

test('damage is refused before anything is written: counts would be made to fit it', async (t) => {
  const backend = await filled()
  const { header } = await readHeader(backend)
  await backend.write(Uint8Array.of(0x7f), header.l1Offset)
  const before = backend.length
  await t.throwsAsync(changeRefcountWidth(backend, 6, {}), { code: 'ERR_CORRUPT' })
  t.is(backend.length, before)
})
